"""Preemption without loss of work: a victim is written to disk and later restored where it was.

A frozen job waits in the queue bound to its old GPUs and CPUs, which others may use meanwhile; its container
is kept. What cannot be frozen is stopped as any victim, what cannot be restored starts from the beginning;
the host's story has the reason.
"""

from dataclasses import replace

from topod.lifecycle import events as ev
from topod.lifecycle.draft import Draft
from topod.lifecycle.ending import unpinned
from topod.lifecycle.exits import seconds_run
from topod.lifecycle.saving import checkpoint_name
from topod.lifecycle.starting import is_clear, is_promised, is_victim
from topod.lifecycle.states import Job, JobState, Stop, StopCause, StopPhase
from topod.lifecycle.stopping import exited, not_frozen
from topod.lifecycle.transitions import moved


def frozen(draft: Draft, event: ev.Frozen) -> None:
    """Go on with a victim that the engine has written to disk, or could not."""
    job = draft.get(event.job)
    if job is None or job.attempt != event.attempt or job.state is not JobState.STOPPING or job.stop is None:
        return
    if event.ok:
        _on_disk(draft, job, job.stop, event.life)
    elif job.stop.phase is StopPhase.FREEZE:
        draft.note("job.not-frozen", job, f"{job.label} cannot be frozen: {event.text}")
        # Nobody else may have been promised what it holds: a stopping job's GPUs count as free.
        wanted = is_victim(draft, job) or is_promised(draft, job)
        spared = job.stop.cause is StopCause.PREEMPT and not wanted and not job.stop.gone
        if spared and is_clear(draft, job):
            draft.put(moved(unpinned(job), JobState.RUNNING, stop=None, reason=""))
            draft.note("job.spared", job, f"{job.label} goes on: the job it was stopped for gave up")
            return
        reason = f"{job.stop.reason} (not frozen: {event.text})"
        job = draft.put(replace(job, reason=reason, stop=replace(job.stop, reason=reason)))
        not_frozen(draft, job)


def _on_disk(draft: Draft, job: Job, stop: Stop, life: float | None) -> None:
    """Keep the container of a victim that has left its GPUs; it goes back into the queue as it is."""
    if stop.cause is not StopCause.PREEMPT or stop.phase is StopPhase.STUCK:
        # Cancelled meanwhile, for example: the checkpoint goes with the container.
        job = draft.put(replace(job, stop=replace(stop, phase=StopPhase.TERM)))
        exited(draft, job, None, out_of_memory=False)
        return
    gpus = job.allocation.gpus if job.allocation else ()
    draft.note("job.frozen", job, f"{job.label} is frozen on disk: {stop.reason}", by=stop.by)
    draft.put(
        moved(
            job,
            JobState.PREEMPTED,
            reason=f"{stop.reason}; frozen, back in the queue when that one runs",
            gpu_seconds=job.gpu_seconds + seconds_run(job, draft.now) * len(gpus),
            preemptions=job.preemptions + 1,
            checkpoint_at=draft.now,
            frozen=checkpoint_name(job),
            frozen_life=life,
            pinned=job.allocation,
            pinned_reserved=False,
            allocation=None,
            stage=None,
        )
    )
