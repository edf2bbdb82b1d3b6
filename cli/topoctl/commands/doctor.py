"""`topoctl doctor`: what a real start of topod would use here, and what is wrong."""

import os
from itertools import chain

import typer

from topoctl import exit_codes
from topoctl.doctor.checks import checks, system
from topoctl.doctor.fleet import check_coordinator
from topoctl.place import place
from topoctl.render.doctor import check_text, summary
from topoctl.session import TextOrJson, TextOrJsonOption, show, show_json, style
from topod.protocol.remote import Remote

EXAMPLES = """
topoctl doctor
topoctl doctor -o json | jq '.[] | select(.verdict != "ok")'
"""


def doctor(ctx: typer.Context, *, output: TextOrJsonOption = TextOrJson.TABLE) -> int:
    """Check what topod would use here, and how to mend it.

    Exit status 1 when something is bad: a real start would fail.
    """
    where = place(ctx)
    look, found = style(ctx), []
    # Who asks a coordinator may sit at any machine: what that one has is nobody's matter.
    looks = (
        chain([system()], check_coordinator(where))
        if isinstance(where, Remote)
        else checks(where, os.environ)
    )
    for check in looks:
        found.append(check)
        if output is TextOrJson.TABLE:
            show(check_text(check, look))
    if output is TextOrJson.JSON:
        show_json(found)
    else:
        show("\n" + summary(found))
    return exit_codes.ERROR if any(check.verdict == "bad" for check in found) else exit_codes.OK
