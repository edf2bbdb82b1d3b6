"""Which state of a job may follow which; every change of state goes through `moved`."""

from dataclasses import replace
from typing import Any, Final

from topod.lifecycle.states import Job, JobState

TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.PENDING: frozenset({JobState.STARTING, JobState.FAILED, JobState.CANCELLED, JobState.RETURNED}),
    JobState.STARTING: frozenset(
        {
            JobState.RUNNING,
            JobState.STOPPING,
            JobState.PENDING,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.RETURNED,
        }
    ),
    JobState.RUNNING: frozenset(
        {JobState.STOPPING, JobState.SUCCEEDED, JobState.FAILED, JobState.LOST, JobState.PENDING}
    ),
    JobState.STOPPING: frozenset(
        {
            JobState.RUNNING,
            JobState.PREEMPTED,
            JobState.PENDING,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.LOST,
            JobState.RETURNED,
        }
    ),
    JobState.PREEMPTED: frozenset({JobState.PENDING, JobState.CANCELLED, JobState.RETURNED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.LOST: frozenset(),
    JobState.RETURNED: frozenset(),
}


def moved(job: Job, state: JobState, **changes: Any) -> Job:
    """Return the job in a new state with further fields changed.

    Raises `AssertionError` for a change that `TRANSITIONS` does not have: that is a bug of topod.
    """
    assert state in TRANSITIONS[job.state], f"job {job.id}: {job.state} -> {state}"
    return replace(job, state=state, **changes)
