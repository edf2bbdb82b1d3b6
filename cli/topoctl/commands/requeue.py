"""`topoctl requeue`: stop running jobs and queue them again."""

import typer

from topoctl import exit_codes
from topoctl.jobflags import user_name
from topoctl.render.jobs import label
from topoctl.session import (
    JobsArgument,
    TextOrJson,
    TextOrJsonOption,
    ask,
    connect,
    job_ids,
    note,
    show,
    show_json,
)
from topod.protocol.replies import Jobs
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
    status is 5. The number of an array means all its jobs that run.
    """
    with connect(ctx) as client:
        request = Requeue(jobs=job_ids(client, ids, whole=True, running=True), by=user_name())
        reply = ask(client, request, Jobs)
    if output is TextOrJson.JSON:
        show_json(reply.jobs)
    else:
        for job in reply.jobs:
            show(f"Requeueing {label(job)}\n")
    for reason in reply.refused:
        note(reason)
    return exit_codes.CONFLICT if reply.refused else exit_codes.OK
