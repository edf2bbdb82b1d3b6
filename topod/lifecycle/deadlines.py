"""When the next `Tick` is due."""

from topod.lifecycle.jobtable import JobTable, active
from topod.lifecycle.states import HostState, Job, JobState
from topod.model.rules import NO_RULES, Rules


def next_deadline(state: HostState, now: float, rules: Rules = NO_RULES) -> float | None:  # noqa: ARG001 - the wait for a hold will count
    """Return the earliest moment (epoch seconds) at which time alone changes something; None for never."""
    times: list[float] = []
    if isinstance(state.jobs, JobTable) and state.jobs.behind:
        return now
    moving = active(state.jobs)
    waiting = len(moving) < len(state.jobs) or any(job.state is JobState.PENDING for job in moving)
    for job in moving:
        if job.state is JobState.STOPPING and job.stop is not None and job.stop.deadline is not None:
            times.append(job.stop.deadline)
        if job.state is JobState.PENDING and (job.not_before > now or _pull_due(job)):
            times.append(job.not_before)
        if job.state is JobState.RUNNING and job.started_at is not None:
            if job.spec.max_runtime_seconds is not None:
                times.append(job.started_at + job.spec.max_runtime_seconds)
            protected_until = job.started_at + job.spec.min_runtime_seconds
            if waiting and protected_until > now:
                times.append(protected_until)
    return min(times, default=None)


def _pull_due(job: Job) -> bool:
    return not job.image_ready and job.pull_failures > 0 and job.not_before > 0
