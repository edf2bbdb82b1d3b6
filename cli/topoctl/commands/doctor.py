"""`topoctl doctor`: what a real start of topod would use here, and what is wrong."""

import os
from pathlib import Path

import typer

from topoctl import exit_codes
from topoctl.doctor_checks import checks
from topoctl.render.doctor import check_text, summary
from topoctl.session import TextOrJson, TextOrJsonOption, show, show_json, style

EXAMPLES = """
topoctl doctor
topoctl doctor -o json | jq '.[] | select(.verdict != "ok")'
"""


def doctor(ctx: typer.Context, *, output: TextOrJsonOption = TextOrJson.TABLE) -> int:
    """Check what topod would use here, and how to mend it.

    Exit status 1 when something is bad: a real start would fail.
    """
    socket = (ctx.obj or {}).get("socket")
    look, found = style(ctx), []
    for check in checks(Path(socket) if socket else None, os.environ):
        found.append(check)
        if output is TextOrJson.TABLE:
            show(check_text(check, look))
    if output is TextOrJson.JSON:
        show_json(found)
    else:
        show("\n" + summary(found))
    return exit_codes.ERROR if any(check.verdict == "bad" for check in found) else exit_codes.OK
