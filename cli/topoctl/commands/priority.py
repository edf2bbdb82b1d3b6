"""`topoctl priority`: change the priority of a job."""

from typing import Annotated

import typer

from topoctl.jobflags import user_name
from topoctl.session import (
    JobArgument,
    TextOrJson,
    TextOrJsonOption,
    ask,
    connect,
    job_ids,
    one_job,
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
"""


def priority(
    ctx: typer.Context,
    job: JobArgument,
    value: Annotated[
        str, typer.Argument(metavar="PRIO", help="low, normal, high or a number.", show_default=False)
    ],
    *,
    output: TextOrJsonOption = TextOrJson.TABLE,
) -> None:
    """Change the priority of a job that waits or runs."""
    try:
        number = jobfields.priority(value)
    except ValueError as error:
        raise UsageError(f"PRIO: {error}") from None
    with connect(ctx) as client:
        (ident,) = job_ids(client, [job])
        view = one_job(ask(client, SetPriority(job=ident, priority=number, by=user_name()), Jobs))
    if output is TextOrJson.JSON:
        show_json(view)
    else:
        show(f"Job {view.id} ({view.name}) has priority {view.priority}\n")
