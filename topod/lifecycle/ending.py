"""How a job leaves its place: back into the queue, back to the coordinator, or for good."""

from dataclasses import replace

from topod.lifecycle.draft import Draft
from topod.lifecycle.effects import Collect
from topod.lifecycle.states import Job, JobState, Leftover
from topod.lifecycle.transitions import moved


def unpinned(job: Job) -> Job:
    """Return the job without a place that is reserved for it."""
    return replace(job, pinned=None, pinned_reserved=False) if job.pinned_reserved else job


def unpin(draft: Draft, job: Job, reason: str) -> Job:
    """Give up the place that is reserved for a job on its way; it queues then, first among its equals."""
    if not job.pinned_reserved:
        return job
    draft.note("job.unpinned", job, f"{job.label} does not move to its place: {reason}")
    return draft.put(replace(unpinned(job), restart_first=True))


def unplace(
    draft: Draft,
    job: Job,
    reason: str,
    *,
    not_before: float = 0.0,
    preempted: bool = False,
    stays: bool = False,
) -> Job:
    """Put a starting job whose command never ran back into the queue; its reservation is gone.

    A job of the fleet is given back instead, unless it `stays`, or only this host can go on with it.
    """
    if job.assignment is not None and job.frozen is None and not stays:
        return give_back(draft, replace(job, preemptions=job.preemptions + preempted), reason)
    draft.note("job.unplaced", job, f"{job.label} goes back into the queue: {reason}")
    if job.frozen is not None:
        job = replace(job, pinned=job.allocation)
    return draft.put(
        moved(
            job if job.frozen is not None else left_behind(draft, job),
            JobState.PENDING,
            reason=reason,
            allocation=None,
            stage=None,
            victims=(),
            placed_at=None,
            not_before=not_before,
            preemptions=job.preemptions + preempted,
        )
    )


def forsake_checkpoint(draft: Draft, job: Job, why: str) -> Job:
    """Return a frozen job that starts from the beginning next time, because it could not be restored."""
    draft.note("job.not-restored", job, f"{job.label} starts anew: it could not be restored: {why}")
    return draft.put(replace(left_behind(draft, job), frozen=None, pinned=None))


def left_behind(draft: Draft, job: Job) -> Job:
    """Return the job without its container, which will be collected."""
    if job.handle is None:
        return job
    draft.do(Collect(job=job.id, attempt=job.attempt, handle=job.handle))
    leftover = Leftover(attempt=job.attempt, handle=job.handle)
    return replace(job, handle=None, withdrawn=None, leftovers=(*job.leftovers, leftover))


def give_back(draft: Draft, job: Job, reason: str, exit_code: int | None = None) -> Job:
    """End a job of the fleet here: the coordinator is to place it anew."""
    return end(draft, job, JobState.RETURNED, reason, exit_code)


def end(draft: Draft, job: Job, state: JobState, reason: str, exit_code: int | None = None) -> Job:
    """End a job for good; what it leaves behind is collected."""
    job = moved(
        left_behind(draft, unpinned(job)),
        state,
        reason=reason,
        exit_code=exit_code,
        ended_at=draft.now,
        frozen=None,
        stage=None,
        victims=(),
        stop=None,
    )
    draft.note(f"job.{state.value}", job, f"{job.label} {state.value}: {reason}", exit_code=exit_code)
    return draft.put(job)


def fail(draft: Draft, job: Job, reason: str) -> Job:
    """End a job that could not be started."""
    return end(draft, job, JobState.FAILED, reason)
