"""`topoctl events`: the story of the host."""

import time
from collections.abc import Iterator
from itertools import chain
from typing import Annotated

import typer

from topoctl.render.events import event_line
from topoctl.render.style import Style
from topoctl.session import Output, ask, connect, job_ids, show, show_json_line, style
from topod.protocol.client import Client
from topod.protocol.replies import Events, Jobs
from topod.protocol.requests import GetJob, ReadEvents
from topod.protocol.views import EventView

EXAMPLES = """
topoctl events
topoctl events -f
topoctl events --job 12 -n 100
topoctl events -f -o json | jq -r .name
"""


def events(
    ctx: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what happens.")] = False,
    number: Annotated[int, typer.Option("-n", "--number", min=0, max=1000, help="The last so many.")] = 30,
    job: Annotated[
        str | None, typer.Option("--job", metavar="ID", help="Only of this job.", show_default=False)
    ] = None,
    output: Annotated[
        Output,
        typer.Option(
            "-o", "--output", help="wide: with number and name; json: one object a line.", show_default=False
        ),
    ] = Output.TABLE,
) -> None:
    """Show what happened on this host, oldest first."""
    look = style(ctx)
    with connect(ctx) as client:
        only = None if job is None else job_ids(client, [job])[0]
        if only is not None:
            ask(client, GetJob(job=only), Jobs)  # a job that does not exist is told, not waited for
        # Subscribed before reading: what happens in between comes twice and is told apart by its number.
        live: Iterator[EventView | None] = client.events() if follow else iter(())
        early = next(live, None)
        last = _newest(client)
        for old in _read(client, -number, only) if number else []:
            last = max(last, old.seq)
            _print(old, output, look)
        for event in chain([early], live):
            if event is None or event.seq <= last:
                continue
            # A gap: the stream drops events while it reconnects, or when this reader is slow.
            missed = _read(client, last, None) if event.seq > last + 1 else []
            for one in missed or [event]:
                if only is None or one.job == only:
                    _print(one, output, look)
            last = max(one.seq for one in (event, *missed))


def _newest(client: Client) -> int:
    found = _read(client, -1, None)
    return found[-1].seq if found else 0


def _read(client: Client, since: int, job: int | None) -> list[EventView]:
    return ask(client, ReadEvents(since=since, limit=1000, job=job), Events).events


def _print(event: EventView, output: Output, look: Style) -> None:
    match output:
        case Output.JSON:
            show_json_line(event)
        case Output.NAME:
            show(f"{event.name}\n")
        case _:
            show(event_line(event, time.time(), look, wide=output is Output.WIDE) + "\n")
