"""`topoctl cancel`: stop jobs for good."""

import typer

from topoctl.jobflags import user_name
from topoctl.render.jobs import label
from topoctl.session import JobsArgument, TextOrJson, TextOrJsonOption, ask, connect, job_ids, show, show_json
from topod.protocol.replies import Jobs
from topod.protocol.requests import Cancel

EXAMPLES = """
topoctl cancel 12
topoctl cancel 12 13
topoctl cancel "12[3-5]"
topoctl cancel $(topoctl ps --state pending -o name)
"""


def cancel(ctx: typer.Context, ids: JobsArgument, *, output: TextOrJsonOption = TextOrJson.TABLE) -> None:
    """Cancel jobs that wait or run.

    A running job gets SIGTERM, then SIGKILL when its grace time is over. The number of an array means all
    its jobs that have not ended; `12[3]` is one of them, `12[0]` the first.
    """
    with connect(ctx) as client:
        request = Cancel(jobs=job_ids(client, ids, whole=True, live=True), by=user_name())
        jobs = ask(client, request, Jobs).jobs
    if output is TextOrJson.JSON:
        show_json(jobs)
        return
    for job in jobs:
        done = "Cancelled" if job.state == "cancelled" else "Cancelling"
        show(f"{done} {label(job)}\n")
