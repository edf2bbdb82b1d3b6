"""`topoctl top`: the host live, on the whole screen."""

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
    """Show the host live: the machine, its jobs, preemptions.

    `?` tells the keys. It goes on when topod is restarted.
    """
    try:
        from topotui.app import TopApp
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("textual", "rich"):
            raise
        raise UsageError(
            "the screen needs Textual, which is not installed", hint="pip install 'topod[tui]'"
        ) from None
    from topotui.looking import LookingClient

    where, host = watched(ctx, "top")
    kind = LookingClient if read_only else Client
    TopApp(lambda: kind(where, host=host), read_only=read_only).run()


def watched(ctx: typer.Context, command: str) -> tuple[Path | Remote | None, str]:
    """Return whom a screen asks, and which host of a fleet.

    What is wrong with whom we ask is told here, before the screen is taken.
    """
    where, host = place(ctx), (ctx.obj or {}).get("host") or ""
    with Client(where) as client:
        if ask(client, Hello(), Welcome).fleet and not host:
            hint = f"topoctl --host NAME {command}; see topoctl hosts"
            raise UsageError("one host is shown, and this is a fleet", hint=hint)
    return where, host
