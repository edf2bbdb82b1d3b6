"""`topoctl top`: a host or a fleet live, on the whole screen."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topoctl.place import place
from topoctl.session import ask
from topod.errors import UsageError
from topod.protocol.client import Client
from topod.protocol.remote import Remote
from topod.protocol.replies import Welcome
from topod.protocol.requests import Hello

if TYPE_CHECKING:
    from topotui.recording import Recorder

EXAMPLES = """
topoctl top
topoctl top --read-only
topoctl --host gpu-7 top
topoctl top --record today.jsonl
topoctl top --replay today.jsonl
"""


def top(
    ctx: typer.Context,
    *,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Look only: no key changes anything.")
    ] = False,
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="FILE", help="Write what happens to this file, too."),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option("--replay", metavar="FILE", help="Show what was recorded; no topod is asked."),
    ] = None,
) -> None:
    """Show a host or a fleet live: GPUs, jobs, preemptions.

    `?` tells the keys. It goes on when topod is restarted, or another coordinator leads. A
    recording has a line of JSON for each change; one that is there already is gone on with.
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
    from topotui.terminal import need_terminal, run

    if replay is not None:
        if record is not None:
            raise UsageError("--record and --replay are not to be had together")
        _replay(replay)
        return
    where, host, fleet = watched(ctx)
    kind = LookingClient if read_only else Client
    need_terminal()
    recorder = _recorder(record, fleet=fleet)
    if fleet:
        run(FleetApp(lambda name: kind(where, host=name), read_only=read_only, record=recorder))
    else:
        run(TopApp(lambda: kind(where, host=host), read_only=read_only, record=recorder))


def _recorder(path: Path | None, *, fleet: bool) -> "Recorder | None":
    from topotui.recording import Recorder

    return None if path is None else Recorder(path.expanduser().absolute(), fleet=fleet)


def _replay(path: Path) -> None:
    from topotui.recording import load
    from topotui.replay import ReplayApp
    from topotui.terminal import need_terminal, run

    recording = load(path.expanduser())
    need_terminal()
    run(ReplayApp(recording))


def watched(ctx: typer.Context) -> tuple[Path | Remote | None, str, bool]:
    """Return whom a screen asks, which host of a fleet, and whether it shows a whole fleet.

    What is wrong with whom we ask is told here, before the screen is taken.
    """
    where, host = place(ctx), (ctx.obj or {}).get("host") or ""
    with Client(where) as client:
        return where, host, ask(client, Hello(), Welcome).fleet and not host
