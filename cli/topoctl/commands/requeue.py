"""`topoctl requeue`: stop running jobs and queue them again."""

import typer

from topoctl.jobflags import user_name
from topoctl.render.jobs import label
from topoctl.session import JobsArgument, TextOrJson, TextOrJsonOption
from topoctl.several import change
from topod.protocol.requests import Requeue

EXAMPLES = """
topoctl requeue 12
topoctl requeue "12[3-5]"
topoctl requeue $(topoctl ps --state running -o name)
"""


def requeue(ctx: typer.Context, ids: JobsArgument, *, output: TextOrJsonOption = TextOrJson.TABLE) -> int:
    """Stop running jobs and put them back into the queue.

    A job saves (its checkpoint hook or signal), then gets SIGTERM, then SIGKILL when its grace time is over.
    Its place is for whoever is next in the queue. It keeps its number, its submit time and its priority, and
    starts again when its turn comes: at once, if there is room. It is not counted as preempted, and not
    frozen. A job over several hosts is stopped on all of them. With --on-preempt cancel a job never runs
    twice: that is refused, as is a job that does not run: the others named are requeued, and the exit
    status is 5; 4 if there is no such job. The number of an array means all its jobs that run.
    """
    return change(
        ctx,
        ids,
        lambda jobs: Requeue(jobs=jobs, by=user_name()),
        output=output,
        done=lambda job: f"Requeueing {label(job)}",
        running=True,
    )
