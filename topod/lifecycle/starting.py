"""From queued to running: what the runtime answers on the way, and what an exit means."""

from dataclasses import replace
from typing import Final

from topod.lifecycle import events as ev
from topod.lifecycle.accepting import placed_by_host
from topod.lifecycle.backoff import BACK_OFF_SECONDS, back_off
from topod.lifecycle.draft import Draft
from topod.lifecycle.effects import CheckDevices, Collect, Launch, PullImage, Withdraw
from topod.lifecycle.ending import fail, forsake_checkpoint, give_back, unpinned, unplace
from topod.lifecycle.holdings import overlaps
from topod.lifecycle.jobtable import Role
from topod.lifecycle.queue import still_good
from topod.lifecycle.states import Job, JobState, Mark, MarkKind, Stage, StopCause, StopPhase, Withdrawn
from topod.lifecycle.stopping import KILLED, REPLAN_SECONDS, exited, stop_victims, terminate
from topod.lifecycle.transitions import moved
from topod.model.cpuset import CpuSet
from topod.model.job import JobId

START_TRIES: Final = 5
"""How often a job is placed anew when the runtime fails to start it, before it fails."""
FLEET_TRIES: Final = 3
"""How often one of the fleet is tried here, its pulls too, before the coordinator may try it elsewhere."""


def at_attempt(draft: Draft, job: JobId, attempt: int, state: JobState, *stages: Stage) -> Job | None:
    """Return the job if it is in `state` (and stage) with this attempt; None for a late answer."""
    found = draft.get(job)
    if found is None or found.attempt != attempt or found.state is not state:
        return None
    return found if not stages or found.stage in stages else None


# --- images and containers --------------------------------------------------------------------------------


def image_ready(draft: Draft, event: ev.ImageReady) -> None:
    """Let the job be placed: its image is local."""
    job = draft.get(event.job)
    if job is not None and job.state is JobState.PENDING and not job.image_ready:
        draft.put(replace(job, image_ready=True, pull_failures=0, not_before=0.0, reason="queued"))


def image_failed(draft: Draft, event: ev.ImageFailed) -> None:
    """Try again later, or fail: the image could not be had."""
    job = draft.get(event.job)
    if job is None or job.state is not JobState.PENDING or job.image_ready:
        return
    if event.final:
        fail(draft, job, event.error)
        return
    failures = job.pull_failures + 1
    if job.assignment is not None and failures >= FLEET_TRIES:
        give_back(draft, job, event.error)
        return
    wait = back_off(failures)
    reason = f"{event.error}; next try in {wait:g} s"
    draft.note("image.failed", job, f"{job.label}: {reason}")
    draft.put(replace(job, pull_failures=failures, not_before=draft.now + wait, reason=reason))


def created(draft: Draft, event: ev.Created) -> None:
    """Stop the victims, if planning again would still name them: the container exists."""
    job = at_attempt(draft, event.job, event.attempt, JobState.STARTING, Stage.CREATING)
    if job is None:
        current = draft.get(event.job)
        if current is None or current.handle != event.handle:
            draft.do(Collect(job=event.job, attempt=event.attempt, handle=event.handle))
        return
    go_on(draft, draft.put(replace(job, handle=event.handle)))


def go_on(draft: Draft, job: Job) -> None:
    """Clear the place of a job whose container is made; one that runs on several hosts waits for all."""
    if job.state is not JobState.STARTING or job.stage is not Stage.CREATING or job.handle is None:
        return
    victims = still_good(draft, job)
    if victims is None:
        pause = draft.now + REPLAN_SECONDS
        unplace(draft, job, "the host changed while its container was made", not_before=pause)
        return
    if job.tag is not None and job.in_gang and not job.tag.go:
        draft.put(replace(job, reason="ready; waits until its other hosts are"))
        return
    job = draft.put(
        replace(
            job,
            victims=victims,
            stage=Stage.CLEARING,
            stage_since=draft.now,
            reason="its GPUs and CPUs are being cleared",
        )
    )
    stop_victims(draft, job)


def create_failed(draft: Draft, event: ev.CreateFailed) -> None:
    """Pull again, try again later, or fail: the container could not be made."""
    job = at_attempt(draft, event.job, event.attempt, JobState.STARTING, Stage.CREATING)
    if job is None:
        return
    if event.image_missing:
        job = unplace(draft, unpinned(job), f"waits for image {job.spec.image}", stays=True)
        draft.put(replace(job, image_ready=False))
        draft.do(PullImage(job=job.id, spec=job.spec))
        return
    _not_started(draft, job, event.error, final=event.final)


def start_failed(draft: Draft, event: ev.StartFailed) -> None:
    """Try again later, or fail: the container could not be started, and nothing can start it any more."""
    job = draft.get(event.job)
    if job is None or job.attempt != event.attempt or job.stage is not Stage.LAUNCHING:
        return
    if event.in_doubt:
        _withdraw(draft, job, event)
    elif job.state is JobState.STOPPING:
        exited(draft, replace(job, frozen=None), None, out_of_memory=False)
    elif job.state is JobState.STARTING:
        why = job.withdrawn or Withdrawn(error=event.error, final=event.final)
        _given_up(draft, job, why)


def _withdraw(draft: Draft, job: Job, event: ev.StartFailed) -> None:
    """Hold the job's GPUs until nothing can start it any more; then `start_failed` is told again."""
    assert job.handle is not None
    text = (
        f"its start failed and is withdrawn, since an earlier order may still be carried out: {event.error}"
    )
    draft.note("start.withdrawn", job, f"{job.label}: {text}")
    draft.do(Withdraw(job=job.id, attempt=job.attempt, handle=job.handle))
    reason = text if job.state is JobState.STARTING else job.reason
    draft.put(replace(job, withdrawn=Withdrawn(error=event.error, final=event.final), reason=reason))


def _given_up(draft: Draft, job: Job, why: Withdrawn) -> None:
    # A start that was withdrawn took the container with it, and its checkpoint.
    hopeless = why.final or job.withdrawn is not None or job.failures + 1 >= START_TRIES
    if job.frozen is not None and hopeless:
        job = forsake_checkpoint(draft, job, why.error)
        unplace(draft, job, f"it could not be restored and starts anew: {why.error}")
    else:
        _not_started(draft, job, why.error, final=why.final)


def _not_started(draft: Draft, job: Job, error: str, *, final: bool) -> None:
    failures = job.failures + 1
    if final or (failures >= START_TRIES and job.assignment is None):
        fail(draft, job, error)
        return
    if job.assignment is not None and job.frozen is None and failures >= FLEET_TRIES:
        give_back(draft, job, error)
        return
    wait = back_off(failures)
    job = unplace(draft, job, f"{error}; next try in {wait:g} s", not_before=draft.now + wait, stays=True)
    draft.put(replace(job, failures=failures))


# --- on the way to running --------------------------------------------------------------------------------


def devices_free(draft: Draft, event: ev.DevicesFree) -> None:
    """Start the job: its GPUs are really free."""
    job = at_attempt(draft, event.job, event.attempt, JobState.STARTING, Stage.CHECKING)
    if job is not None:
        _launch(draft, job)


def devices_busy(draft: Draft, event: ev.DevicesBusy) -> None:
    """Quarantine the GPUs that did not become free, and plan anew."""
    job = at_attempt(draft, event.job, event.attempt, JobState.STARTING, Stage.CHECKING)
    if job is None:
        return
    if event.unknown:
        unplace(
            draft,
            job,
            f"its GPUs cannot be checked: {event.unknown}",
            not_before=draft.now + BACK_OFF_SECONDS,
        )
        return
    names = []
    for uuid, why in event.busy:
        draft.mark(uuid, Mark(kind=MarkKind.QUARANTINED, reason=why, since=draft.now))
        names.append(f"{draft.gpu_name(uuid)}: {why}")
    unplace(draft, job, "its GPUs did not become free: " + "; ".join(names))


def _launch(draft: Draft, job: Job) -> None:
    assert job.handle is not None
    draft.put(replace(job, stage=Stage.LAUNCHING, stage_since=draft.now, reason="being started"))
    draft.do(Launch(job=job.id, attempt=job.attempt, handle=job.handle, checkpoint=job.frozen))


def started(draft: Draft, event: ev.Started) -> None:
    """Take note that the container runs."""
    job = draft.get(event.job)
    if job is None or job.attempt != event.attempt or job.stage is not Stage.LAUNCHING:
        return
    restored = job.frozen is not None
    if restored and job.frozen_life == event.at:
        why = "its checkpoint is gone"
        start_failed(draft, ev.StartFailed(job=job.id, attempt=job.attempt, error=why, final=True))
        return
    # Said by the runtime's clock; whatever became of that, it was after the order to start and is over.
    at = min(max(event.at, job.stage_since), draft.now)
    starts = job.starts + (not restored)
    job = replace(unpinned(job), stage=None, started_at=at, starts=starts, frozen=None, withdrawn=None)
    job = replace(job, restart_first=False, ready_at=None)
    job = replace(job, assignment=placed_by_host(job.assignment, job.allocation))
    if job.state is JobState.STOPPING:
        draft.put(job)
        return
    placed, launched = job.placed_at if job.placed_at is not None else at, job.stage_since
    waited = at - job.submitted_at
    job = draft.put(moved(job, JobState.RUNNING, reason=""))
    draft.note(
        "job.restored" if restored else "job.started",
        job,
        f"{job.label} {'goes on from where it was frozen' if restored else 'runs'}{_where(job)}",
        waited_seconds=round(waited, 3),
        since_plan_seconds=round(at - placed, 3),
        start_seconds=round(max(0.0, at - launched), 3),
    )


def _where(job: Job) -> str:
    indices = job.allocation.gpu_indices if job.allocation else ()
    return f" on {'GPU' if len(indices) == 1 else 'GPUs'} {CpuSet.of(indices)}" if indices else ""


def hook_done(draft: Draft, event: ev.HookDone) -> None:
    """Tell a victim to stop whose hook has ended, unless nobody needs its place any more."""
    job = at_attempt(draft, event.job, event.attempt, JobState.STOPPING)
    stop = job.stop if job is not None else None
    if job is None or stop is None or stop.phase is not StopPhase.HOOK:
        return
    if event.ok:
        job = draft.put(replace(job, checkpoint_at=draft.now))
        draft.note("hook.done", job, f"the checkpoint hook of {job.label} is done", output=event.text[-1000:])
    else:
        draft.note("hook.failed", job, f"the checkpoint hook of {job.label} failed: {event.text}")
    # Nobody else may have been promised what it holds: a stopping job's GPUs count as free.
    wanted = is_victim(draft, job) or is_promised(draft, job)
    if stop.cause is StopCause.PREEMPT and not wanted and is_clear(draft, job):
        draft.put(moved(unpinned(job), JobState.RUNNING, stop=None, reason=""))
        draft.note("job.spared", job, f"{job.label} goes on: the job it was stopped for gave up")
        return
    terminate(draft, job)


def is_victim(draft: Draft, job: Job) -> bool:
    """Say whether the job that `job` was stopped for is still being started and still needs it gone."""
    preemptor = draft.get(job.stop.by) if job.stop else None
    return preemptor is not None and preemptor.state is JobState.STARTING and job.id in preemptor.victims


def container_exited(draft: Draft, event: ev.Exited) -> None:
    """Decide what becomes of a job whose container ended."""
    job = draft.get(event.job)
    if job is None or job.attempt != event.attempt:
        return
    if job.frozen_life is not None and job.frozen_life == event.started_at:
        return  # the end of the life that was frozen, told late or again
    if job.withdrawn is not None and job.state is JobState.STARTING and event.exit_code in (None, KILLED):
        # The withdrawal ended what had just begun to run.
        start_failed(draft, ev.StartFailed(job=job.id, attempt=job.attempt, error="withdrawn", final=False))
        return
    if job.stage is Stage.LAUNCHING:
        # It ended before the runtime's answer to the start was heard.
        started(draft, ev.Started(job=job.id, attempt=job.attempt, at=draft.now))
        job = draft.jobs[job.id]
    if job.state in (JobState.RUNNING, JobState.STOPPING):
        exited(draft, job, event.exit_code, out_of_memory=event.out_of_memory)


def collected(draft: Draft, event: ev.Collected) -> None:
    """Forget what an ended attempt had left behind."""
    job = draft.get(event.job)
    if job is not None:
        kept = tuple(left for left in job.leftovers if left.attempt != event.attempt)
        if kept != job.leftovers:
            draft.put(replace(job, leftovers=kept))


def is_clear(draft: Draft, job: Job) -> bool:
    """Say whether nobody else holds what the job was promised."""
    assert job.allocation is not None
    if not job.allocation.gpus and not job.allocation.cpus:
        return True
    return not any(
        other.id != job.id and other.allocation is not None and overlaps(job.allocation, other.allocation)
        for other in draft.holding()
    )


def is_promised(draft: Draft, job: Job) -> bool:
    """Say whether what the job holds is reserved for one that is moved there."""
    assert job.allocation is not None
    return any(
        other.id != job.id
        and other.pinned is not None
        and other.pinned_reserved
        and overlaps(job.allocation, other.pinned)
        for other in draft.jobs.having(Role.ROOM)
    )


def check_devices(draft: Draft, job: Job) -> None:
    """Look whether the GPUs of a job that is clear are really free; without GPUs, start it."""
    assert job.allocation is not None
    if not job.allocation.gpus:
        _launch(draft, job)
        return
    draft.put(replace(job, stage=Stage.CHECKING, stage_since=draft.now, reason="its GPUs are being checked"))
    draft.do(CheckDevices(job=job.id, attempt=job.attempt, gpus=job.allocation.gpus))
