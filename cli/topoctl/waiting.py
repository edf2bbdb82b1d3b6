"""Waiting for jobs, and the exit status that their end means."""

from topoctl import exit_codes
from topoctl.render.jobs import ENDED, label
from topoctl.session import ask_patiently, one_job
from topod.model.job import OnPreempt
from topod.protocol.client import Client
from topod.protocol.replies import Jobs
from topod.protocol.requests import WaitJob
from topod.protocol.views import JobView

POLL_SECONDS = 4.0
"""How long one question waits: short, since a restart of topod loses the question."""


def wait_until_ended(client: Client, job: int) -> JobView:
    """Return the job once it has ended, however long that takes."""
    while True:
        request = WaitJob(job=job, timeout=POLL_SECONDS)
        view = one_job(ask_patiently(client, request, Jobs, timeout=POLL_SECONDS + 4))
        if view.state in ENDED:
            return view


def exit_status(job: JobView) -> int:
    """Return what `wait` ends with: the job's own exit code where it ran to its end."""
    match job.state:
        case "succeeded":
            return exit_codes.OK
        case "failed":
            # 0 is possible: a job stopped at its time limit may end well after SIGTERM.
            return job.exit_code or exit_codes.ERROR
        case "cancelled" if job.preemptions and job.spec.on_preempt is OnPreempt.CANCEL:
            return exit_codes.PREEMPTED
        case _:
            return exit_codes.ERROR


def ending(job: JobView) -> str:
    """Say in one line how a job ended: `job 12 (train) failed: exit code 3`."""
    reason = f": {job.reason}" if job.reason and job.state != "succeeded" else ""
    return f"{label(job)} {job.state}{reason}"
