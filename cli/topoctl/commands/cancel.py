"""`topoctl cancel`: stop jobs for good."""

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
    its jobs that have not ended; `12[3]` is one of them, `12[0]` the first. A job that ended before keeps no
    other from being cancelled; it is named, and the exit status is 5.
    """
    with connect(ctx) as client:
        request = Cancel(jobs=job_ids(client, ids, whole=True, live=True), by=user_name())
        jobs = ask(client, request, Jobs).jobs
    late = [job for job in jobs if job.state in OVER]
    if output is TextOrJson.JSON:
        show_json(jobs)
    else:
        for job in jobs:
            if job not in late:
                show(f"{'Cancelled' if job.state == 'cancelled' else 'Cancelling'} {label(job)}\n")
    for job in late:
        note(f"{label(job)} has ended: {job.state}")
    return exit_codes.CONFLICT if late else exit_codes.OK
