"""`topoctl cancel`: stop jobs for good."""

import typer

from topoctl.jobflags import user_name
from topoctl.render.jobs import label
from topoctl.session import JobsArgument, TextOrJson, TextOrJsonOption
from topoctl.several import change, has_ended
from topod.protocol.requests import Cancel

EXAMPLES = """
topoctl cancel 12
topoctl cancel 12 13
topoctl cancel "12[3-5]"
topoctl cancel $(topoctl ps --state pending -o name)
"""


OVER = frozenset({"succeeded", "failed", "lost"})
"""Ended, and not because somebody cancelled it."""


def cancel(ctx: typer.Context, ids: JobsArgument, *, output: TextOrJsonOption = TextOrJson.TABLE) -> int:
    """Cancel jobs that wait or run.

    A running job gets SIGTERM, then SIGKILL when its grace time is over. The number of an array means all
    its jobs that have not ended; `12[3]` is one of them, `12[0]` the first. A job that ended before, or that
    there is not, keeps no other from being cancelled; it is named, and the exit status is 5, or 4.
    """
    return change(
        ctx,
        ids,
        lambda jobs: Cancel(jobs=jobs, by=user_name()),
        output=output,
        done=lambda job: f"{'Cancelled' if job.state == 'cancelled' else 'Cancelling'} {label(job)}",
        late=lambda job: has_ended(job) if job.state in OVER else None,
    )
