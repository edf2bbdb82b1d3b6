"""`topoctl top`: the host live, on the whole screen."""

from typing import Annotated

import typer

from topoctl.place import place
from topod.errors import UsageError
from topod.protocol.client import Client

EXAMPLES = """
topoctl top
topoctl top --read-only
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
    where = place(ctx)
    with Client(where):
        pass  # what is wrong with the place itself is told before the screen is taken
    TopApp(lambda: Client(where), read_only=read_only).run()
