"""`topoctl priority`: change the priority of a job, or of the jobs of an array."""

from typing import Annotated

import typer

from topoctl.jobflags import user_name
from topoctl.render.jobs import ENDED, label
from topoctl.session import (
    TextOrJson,
    TextOrJsonOption,
    ask,
    connect,
    job_ids,
    show,
    show_json,
)
from topod.errors import UsageError
from topod.protocol import jobfields
from topod.protocol.replies import Jobs
from topod.protocol.requests import SetPriority

EXAMPLES = """
topoctl priority 12 high
topoctl priority 12 750
topoctl priority 12 -5
topoctl priority "12[3]" low
"""


def priority(
    ctx: typer.Context,
    job: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A job id, 12[3] or 12[*] of an array, or `latest`.", show_default=False
        ),
    ],
    value: Annotated[
        str, typer.Argument(metavar="PRIO", help="low, normal, high or a number.", show_default=False)
    ],
    *,
    output: TextOrJsonOption = TextOrJson.TABLE,
) -> None:
    """Change the priority of a job that waits or runs.

    The number of an array means all its jobs that have not ended; `12[3]` is one of them, `12[0]` the first.
    """
    try:
        number = jobfields.priority(value)
    except ValueError as error:
        raise UsageError(f"PRIO: {error}") from None
    with connect(ctx) as client:
        first, *others = job_ids(client, [job], whole=True, live=True)
        request = SetPriority(job=first, priority=number, also=others, by=user_name())
        views = ask(client, request, Jobs).jobs
    if output is TextOrJson.JSON:
        several = len(views) > 1 or job == str(views[0].array_id)
        show_json(views if several else views[0])
        return
    for view in views:
        if view.state in ENDED:  # since the array was looked at
            continue
        show(f"J{label(view)[1:]} has priority {view.priority}\n")
