"""`topoctl top`: a host or a fleet live, on the whole screen."""

from pathlib import Path
from typing import Annotated

import typer

from topoctl.place import place
from topoctl.session import ask
from topod.errors import UsageError
from topod.protocol.client import Client
from topod.protocol.remote import Remote
from topod.protocol.replies import Welcome
from topod.protocol.requests import Hello

EXAMPLES = """
topoctl top
topoctl top --read-only
topoctl --host gpu-7 top
"""


def top(
    ctx: typer.Context,
    *,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Look only: no key changes anything.")
    ] = False,
) -> None:
    """Show a host or a fleet live: GPUs, jobs, preemptions.

    `?` tells the keys. It goes on when topod is restarted, or another coordinator leads.
    """
    try:
        from topotui.app import TopApp
        from topotui.fleet import FleetApp
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("textual", "rich"):
            raise
        raise UsageError(
            "the screen needs Textual, which is not installed", hint="pip install 'topod[tui]'"
        ) from None
    from topotui.looking import LookingClient

    where, host, fleet = watched(ctx)
    kind = LookingClient if read_only else Client
    if fleet:
        FleetApp(lambda name: kind(where, host=name), read_only=read_only).run()
    else:
        TopApp(lambda: kind(where, host=host), read_only=read_only).run()


def watched(ctx: typer.Context) -> tuple[Path | Remote | None, str, bool]:
    """Return whom a screen asks, which host of a fleet, and whether it shows a whole fleet.

    What is wrong with whom we ask is told here, before the screen is taken.
    """
    where, host = place(ctx), (ctx.obj or {}).get("host") or ""
    with Client(where) as client:
        return where, host, ask(client, Hello(), Welcome).fleet and not host
