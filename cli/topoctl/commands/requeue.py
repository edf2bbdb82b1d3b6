"""`topoctl requeue`: stop running jobs and queue them again."""

import typer

from topoctl.jobflags import user_name
from topoctl.render.jobs import label
from topoctl.session import JobsArgument, TextOrJson, TextOrJsonOption, ask, connect, job_ids, show, show_json
from topod.protocol.replies import Jobs
from topod.protocol.requests import Requeue

EXAMPLES = """
topoctl requeue 12
topoctl requeue "12[3-5]"
topoctl requeue $(topoctl ps --state running -o name)
"""


def requeue(ctx: typer.Context, ids: JobsArgument, *, output: TextOrJsonOption = TextOrJson.TABLE) -> None:
    """Stop running jobs and put them back into the queue.

    A job saves (its checkpoint hook or signal), then gets SIGTERM, then SIGKILL when its grace time is over.
    Its place is for whoever is next in the queue. It keeps its number, its submit time and its priority, and
    starts again when its turn comes: at once, if there is room. It is not counted as preempted, and not
    frozen. A job over several hosts is stopped on all of them. With --on-preempt cancel a job never runs
    twice: that is refused, as is a job that does not run. The number of an array means all its jobs that run.
    """
    with connect(ctx) as client:
        request = Requeue(jobs=job_ids(client, ids, whole=True, running=True), by=user_name())
        jobs = ask(client, request, Jobs).jobs
    if output is TextOrJson.JSON:
        show_json(jobs)
        return
    for job in jobs:
        show(f"Requeueing {label(job)}\n")
