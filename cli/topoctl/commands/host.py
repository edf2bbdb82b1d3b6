"""`topoctl host`: what an administrator does with one host of a fleet."""

from typing import Annotated

import typer

from topoctl.session import ask, connect, show
from topod.errors import UsageError
from topod.protocol.replies import Done
from topod.protocol.requests import DrainHost, LabelHost, RemoveHost, ResumeHost

EXAMPLES = """
topoctl host drain node-a --reason "new disk"
topoctl host resume node-a
topoctl host label node-a rack=7 zone-
topoctl host remove node-a --dead
"""
DRAIN_EXAMPLES = """
topoctl host drain node-a --reason "kernel update at 18:00"
topoctl host drain node-a --requeue --reason "fan is loud"
"""
RESUME_EXAMPLES = """
topoctl host resume node-a
"""
LABEL_EXAMPLES = """
topoctl host label node-a rack=7 zone=b
topoctl host label node-a rack-
"""
REMOVE_EXAMPLES = """
topoctl host remove node-a
topoctl host remove node-a --dead
"""
MAX_REASON = 200
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Of the host, as `topoctl hosts` shows it.", show_default=False)
]


def host() -> None:
    """Drain, resume, label or remove a host of a fleet."""


def drain(
    ctx: typer.Context,
    name: NameArgument,
    *,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; shown to whoever waits.", show_default=False)
    ],
    requeue: Annotated[bool, typer.Option("--requeue", help="Its jobs stop and go on elsewhere.")] = False,
) -> None:
    """Give a host no more jobs of the fleet: cordon it.

    Jobs that run go on; with --requeue they leave it too. What its own users submit there it still runs.
    """
    if not reason.strip():
        raise UsageError("--reason: is empty")
    if len(reason) > MAX_REASON:
        raise UsageError(f"--reason: {len(reason)} characters, at most {MAX_REASON}")
    with connect(ctx) as client:
        done = ask(client, DrainHost(host=name, reason=reason, requeue=requeue), Done)
    show(f"{done.text}\n")


def resume(ctx: typer.Context, name: NameArgument) -> None:
    """Give a host jobs of the fleet again."""
    with connect(ctx) as client:
        done = ask(client, ResumeHost(host=name), Done)
    show(f"{done.text}\n")


def label(
    ctx: typer.Context,
    name: NameArgument,
    labels: Annotated[
        list[str],
        typer.Argument(metavar="K=V|K-...", help="Set a label; with - forget it.", show_default=False),
    ],
) -> None:
    """Set labels of a host, by which jobs choose it (--select).

    They win over those of the host's own configuration, which cannot be removed here.
    """
    given: dict[str, str] = {}
    gone: list[str] = []
    for text in labels:
        key, equals, value = text.partition("=")
        if key and equals:
            given[key] = value
        elif not equals and text.endswith("-") and len(text) > 1:
            gone.append(text[:-1])
        else:
            raise UsageError(f"a label is written KEY=VALUE, or KEY- to forget it, not {text!r}")
    with connect(ctx) as client:
        done = ask(client, LabelHost(host=name, labels=given, remove=gone), Done)
    show(f"{done.text}\n")


def remove(
    ctx: typer.Context,
    name: NameArgument,
    *,
    dead: Annotated[
        bool, typer.Option("--dead", help="Nothing runs there any more: place its jobs anew now.")
    ] = False,
) -> None:
    """Take a host that is gone out of the fleet.

    With --dead you vouch that nothing runs on it: else its jobs may run twice.
    """
    with connect(ctx) as client:
        done = ask(client, RemoveHost(host=name, dead=dead), Done)
    show(f"{done.text}\n")
