"""`topoctl priority`: change the priority of jobs."""

from typing import Annotated

import typer

from topoctl.jobflags import user_name
from topoctl.render.jobs import ENDED, label
from topoctl.session import JobsArgument, TextOrJson, TextOrJsonOption
from topoctl.several import change, has_ended
from topod.errors import UsageError
from topod.protocol import jobfields
from topod.protocol.requests import SetPriority
from topod.protocol.views import JobView

EXAMPLES = """
topoctl priority 12 high
topoctl priority 12 750
topoctl priority 12 -5
topoctl priority 12 13 low
topoctl priority "12[3]" low
"""


def priority(
    ctx: typer.Context,
    ids: JobsArgument,
    value: Annotated[
        str, typer.Argument(metavar="PRIO", help="low, normal, high or a number.", show_default=False)
    ],
    *,
    output: TextOrJsonOption = TextOrJson.TABLE,
) -> int:
    """Change the priority of jobs that wait or run.

    The number of an array means all its jobs that have not ended; `12[3]` is one of them, `12[0]` the first.
    A job that ended before, or that there is not, keeps no other from it; it is named, and the exit status is
    5, or 4.
    """
    try:
        number = jobfields.priority(value)
    except ValueError as error:
        raise UsageError(f"PRIO: {error}") from None

    def request(jobs: list[int]) -> SetPriority:
        return SetPriority(job=jobs[0], also=jobs[1:], priority=number, by=user_name())

    def single(jobs: list[JobView]) -> bool:
        return len(jobs) == len(ids) == 1 and ids[0] != str(jobs[0].array_id)

    return change(
        ctx,
        ids,
        request,
        output=output,
        done=lambda job: f"J{label(job)[1:]} has priority {job.priority}",
        late=lambda job: has_ended(job) if job.state in ENDED else None,
        single=single,
    )
