"""When the next `Tick` is due."""

from topod.lifecycle.fairness import guarded_until
from topod.lifecycle.holds import may_evict_at, next_growth
from topod.lifecycle.jobtable import JobTable, active
from topod.lifecycle.states import HostState, Job, JobState
from topod.model.rules import NO_RULES, Rules


def next_deadline(state: HostState, now: float, rules: Rules = NO_RULES) -> float | None:
    """Return the earliest moment (epoch seconds) at which time alone changes something; None for never."""
    times: list[float] = []
    if isinstance(state.jobs, JobTable) and state.jobs.behind:
        return now
    growth = next_growth(state.jobs, now, rules)
    if growth is not None:
        times.append(growth)
    moving = active(state.jobs)
    waiting = len(moving) < len(state.jobs) or any(job.state is JobState.PENDING for job in moving)
    for job in moving:
        if job.state is JobState.STOPPING and job.stop is not None and job.stop.deadline is not None:
            times.append(job.stop.deadline)
        if job.state is JobState.PENDING and (job.not_before > now or _pull_due(job)):
            times.append(job.not_before)
        if job.state is JobState.PENDING and job.ready_at is not None and may_evict_at(job) > now:
            times.append(may_evict_at(job))
        if job.state is JobState.RUNNING and job.started_at is not None:
            if job.spec.max_runtime_seconds is not None:
                times.append(job.started_at + job.spec.max_runtime_seconds)
            protected_until = job.started_at + job.spec.min_runtime_seconds
            guarded = guarded_until(job, rules) or 0.0
            times += [moment for moment in (protected_until, guarded) if waiting and moment > now]
    return min(times, default=None)


def _pull_due(job: Job) -> bool:
    return not job.image_ready and job.pull_failures > 0 and job.not_before > 0
