"""`topoctl show`: everything about one job."""

import time

import typer

from topoctl.render.show import job_text
from topoctl.session import (
    JobsArgument,
    TextOrJson,
    TextOrJsonOption,
    ask,
    connect,
    job_ids,
    one_job,
    show_json,
    style,
)
from topoctl.session import show as write
from topod.protocol.replies import Events, Jobs
from topod.protocol.requests import GetJob, ReadEvents

EXAMPLES = """
topoctl show 12
topoctl show latest
topoctl show 12 -o json
"""
LAST_EVENTS = 1000


def show(ctx: typer.Context, ids: JobsArgument, *, output: TextOrJsonOption = TextOrJson.TABLE) -> None:
    """Show all about a job: its request, its plan, its story.

    The plan comes with its reasons: the victims, what each cost key came to, and the next best plan.
    """
    with connect(ctx) as client:
        for index, job in enumerate(job_ids(client, ids)):
            view = one_job(ask(client, GetJob(job=job), Jobs))
            events = ask(client, ReadEvents(since=-LAST_EVENTS, limit=LAST_EVENTS, job=job), Events).events
            if output is TextOrJson.JSON:
                show_json({"job": view, "events": events})
            else:
                write(("\n" if index else "") + job_text(view, events, time.time(), style(ctx)))
