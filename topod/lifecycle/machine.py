"""The scheduling core of one host: `step` takes a state and an event and returns what follows.

Pure: no clock, no files, no containers. `now` is an argument (epoch seconds); the daemon and the simulator
run the same code. After each event the host is settled: victims whose preemptor runs or gave up go back into
the queue, starting jobs whose GPUs are clear go on, and the queue is run.
"""

from dataclasses import replace
from typing import Final, assert_never

from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.asking import cancel, change_priority, clear_gpu, mark_gpu, submitted
from topod.lifecycle.draft import Draft
from topod.lifecycle.effects import CheckDevices, Collect, Launch, PullImage
from topod.lifecycle.holdings import overlaps
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.queue import run_queue, still_good
from topod.lifecycle.recovery import recover, sweep
from topod.lifecycle.states import (
    HostState,
    Job,
    JobState,
    Mark,
    MarkKind,
    Stage,
    StopCause,
    StopPhase,
)
from topod.lifecycle.stopping import (
    BACK_OFF_SECONDS,
    advance_stop,
    back_off,
    begin_stop,
    exited,
    fail,
    requeue,
    terminate,
    unplace,
)
from topod.lifecycle.transitions import moved
from topod.model.cpuset import CpuSet
from topod.model.job import JobId

START_TRIES: Final = 5
"""How often a job is placed anew when the runtime fails to start it, before it fails."""

REPLAN_SECONDS: Final = 0.2
"""A job whose plan was overtaken is planned anew after this long: a quick world must not make a busy loop."""


def step(tables: TopologyTables, state: HostState, event: ev.Event, now: float) -> Outcome:
    """Return what `event` leads to at the moment `now`. The same arguments always give the same outcome."""
    draft = Draft(tables, state, now)
    _apply(draft, event)
    _settle(draft)
    return draft.finish()


def _apply(draft: Draft, event: ev.Event) -> None:  # noqa: C901, PLR0912 - one case an event
    match event:
        case ev.Submitted():
            submitted(draft, event)
        case ev.CancelRequested():
            cancel(draft, event)
        case ev.PriorityChanged():
            change_priority(draft, event)
        case ev.HostDrained():
            draft.drain = event.reason
            draft.note("host.drained", None, f"the host is drained: {event.reason}")
        case ev.HostResumed():
            draft.drain = None
            draft.note("host.resumed", None, "the host takes jobs again")
        case ev.GpuMarked():
            mark_gpu(draft, event)
        case ev.GpuCleared():
            clear_gpu(draft, event)
        case ev.ImageReady():
            _image_ready(draft, event)
        case ev.ImageFailed():
            _image_failed(draft, event)
        case ev.Created():
            _created(draft, event)
        case ev.CreateFailed():
            _create_failed(draft, event)
        case ev.DevicesFree():
            _devices_free(draft, event)
        case ev.DevicesBusy():
            _devices_busy(draft, event)
        case ev.Started():
            _started(draft, event)
        case ev.StartFailed():
            _start_failed(draft, event)
        case ev.HookDone():
            _hook_done(draft, event)
        case ev.Exited():
            _exited(draft, event)
        case ev.Collected():
            _collected(draft, event)
        case ev.Recovered():
            for seen in recover(draft, event):
                _apply(draft, seen)
        case ev.Swept():
            for seen in sweep(draft, event):
                _apply(draft, seen)
        case ev.Tick():
            _tick(draft)
        case _:
            assert_never(event)


def _attempt(draft: Draft, job: JobId, attempt: int, state: JobState, *stages: Stage) -> Job | None:
    """Return the job if it is in `state` (and stage) with this attempt; None for a late answer."""
    found = draft.get(job)
    if found is None or found.attempt != attempt or found.state is not state:
        return None
    return found if not stages or found.stage in stages else None


# --- images and containers --------------------------------------------------------------------------------


def _image_ready(draft: Draft, event: ev.ImageReady) -> None:
    job = draft.get(event.job)
    if job is not None and job.state is JobState.PENDING and not job.image_ready:
        draft.put(replace(job, image_ready=True, pull_failures=0, not_before=0.0, reason="queued"))


def _image_failed(draft: Draft, event: ev.ImageFailed) -> None:
    job = draft.get(event.job)
    if job is None or job.state is not JobState.PENDING or job.image_ready:
        return
    if event.final:
        fail(draft, job, event.error)
        return
    failures = job.pull_failures + 1
    wait = back_off(failures)
    reason = f"{event.error}; next try in {wait:g} s"
    draft.note("image.failed", job, f"{job.label}: {reason}")
    draft.put(replace(job, pull_failures=failures, not_before=draft.now + wait, reason=reason))


def _created(draft: Draft, event: ev.Created) -> None:
    job = _attempt(draft, event.job, event.attempt, JobState.STARTING, Stage.CREATING)
    if job is None:
        current = draft.get(event.job)
        if current is None or current.handle != event.handle:
            draft.do(Collect(job=event.job, attempt=event.attempt, handle=event.handle))
        return
    job = draft.put(replace(job, handle=event.handle))
    victims = still_good(draft, job)
    if victims is None:
        pause = draft.now + REPLAN_SECONDS
        unplace(draft, job, "the host changed while its container was made", not_before=pause)
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
    for ident in victims:
        victim = draft.get(ident)
        if victim is not None:
            reason = f"preempted by {job.label}, priority {job.priority}"
            begin_stop(draft, victim, StopCause.PREEMPT, reason, by=job.id)


def _create_failed(draft: Draft, event: ev.CreateFailed) -> None:
    job = _attempt(draft, event.job, event.attempt, JobState.STARTING, Stage.CREATING)
    if job is None:
        return
    if event.image_missing:
        job = unplace(draft, job, f"pulling image {job.spec.image}")
        draft.put(replace(job, image_ready=False))
        draft.do(PullImage(job=job.id, spec=job.spec))
        return
    _not_started(draft, job, event.error, final=event.final)


def _start_failed(draft: Draft, event: ev.StartFailed) -> None:
    job = draft.get(event.job)
    if job is None or job.attempt != event.attempt or job.stage is not Stage.LAUNCHING:
        return
    if job.state is JobState.STOPPING:
        exited(draft, job, None, out_of_memory=False)
    elif job.state is JobState.STARTING:
        _not_started(draft, job, event.error, final=event.final)


def _not_started(draft: Draft, job: Job, error: str, *, final: bool) -> None:
    failures = job.failures + 1
    if final or failures >= START_TRIES:
        fail(draft, job, error)
        return
    wait = back_off(failures)
    job = unplace(draft, job, f"{error}; next try in {wait:g} s", not_before=draft.now + wait)
    draft.put(replace(job, failures=failures))


# --- on the way to running --------------------------------------------------------------------------------


def _devices_free(draft: Draft, event: ev.DevicesFree) -> None:
    job = _attempt(draft, event.job, event.attempt, JobState.STARTING, Stage.CHECKING)
    if job is not None:
        _launch(draft, job)


def _devices_busy(draft: Draft, event: ev.DevicesBusy) -> None:
    job = _attempt(draft, event.job, event.attempt, JobState.STARTING, Stage.CHECKING)
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
    draft.do(Launch(job=job.id, attempt=job.attempt, handle=job.handle))


def _started(draft: Draft, event: ev.Started) -> None:
    job = draft.get(event.job)
    if job is None or job.attempt != event.attempt or job.stage is not Stage.LAUNCHING:
        return
    job = replace(job, stage=None, started_at=event.at, starts=job.starts + 1)
    if job.state is JobState.STOPPING:
        draft.put(job)
        return
    placed = job.placed_at if job.placed_at is not None else event.at
    waited = event.at - job.submitted_at
    job = draft.put(moved(job, JobState.RUNNING, reason=""))
    draft.note(
        "job.started",
        job,
        f"{job.label} runs{_where(job)}",
        waited_seconds=round(waited, 3),
        since_plan_seconds=round(event.at - placed, 3),
    )


def _where(job: Job) -> str:
    indices = job.allocation.gpu_indices if job.allocation else ()
    return f" on {'GPU' if len(indices) == 1 else 'GPUs'} {CpuSet.of(indices)}" if indices else ""


def _hook_done(draft: Draft, event: ev.HookDone) -> None:
    job = _attempt(draft, event.job, event.attempt, JobState.STOPPING)
    stop = job.stop if job is not None else None
    if job is None or stop is None or stop.phase is not StopPhase.HOOK:
        return
    if event.ok:
        job = draft.put(replace(job, checkpoint_at=draft.now))
        draft.note("hook.done", job, f"the checkpoint hook of {job.label} is done", output=event.text[-1000:])
    else:
        draft.note("hook.failed", job, f"the checkpoint hook of {job.label} failed: {event.text}")
    # Nobody else may have been promised what it holds: a stopping job's GPUs count as free.
    if stop.cause is StopCause.PREEMPT and not _is_victim(draft, job) and _is_clear(draft, job):
        draft.put(moved(job, JobState.RUNNING, stop=None, reason=""))
        draft.note("job.spared", job, f"{job.label} goes on: the job it was stopped for gave up")
        return
    terminate(draft, job)


def _is_victim(draft: Draft, job: Job) -> bool:
    """Say whether the job that `job` was stopped for is still being started and still needs it gone."""
    preemptor = draft.get(job.stop.by) if job.stop else None
    return preemptor is not None and preemptor.state is JobState.STARTING and job.id in preemptor.victims


def _exited(draft: Draft, event: ev.Exited) -> None:
    job = draft.get(event.job)
    if job is None or job.attempt != event.attempt:
        return
    if job.stage is Stage.LAUNCHING:
        # It ended before the runtime's answer to the start was heard.
        _started(draft, ev.Started(job=job.id, attempt=job.attempt, at=draft.now))
        job = draft.jobs[job.id]
    if job.state in (JobState.RUNNING, JobState.STOPPING):
        exited(draft, job, event.exit_code, out_of_memory=event.out_of_memory)


def _collected(draft: Draft, event: ev.Collected) -> None:
    job = draft.get(event.job)
    if job is not None:
        kept = tuple(left for left in job.leftovers if left.attempt != event.attempt)
        if kept != job.leftovers:
            draft.put(replace(job, leftovers=kept))


# --- time and order ---------------------------------------------------------------------------------------


def _tick(draft: Draft) -> None:
    for job in draft.all():
        match job.state:
            case JobState.STOPPING:
                if job.stop is not None and job.stop.deadline is not None and job.stop.deadline <= draft.now:
                    advance_stop(draft, job)
            case JobState.RUNNING:
                limit = job.spec.max_runtime_seconds
                if limit is not None and job.started_at is not None and job.started_at + limit <= draft.now:
                    begin_stop(draft, job, StopCause.TIME_LIMIT, f"time limit of {limit:g} s reached")
            case JobState.PENDING:
                if not job.image_ready and job.pull_failures and 0 < job.not_before <= draft.now:
                    draft.put(replace(job, not_before=0.0))
                    draft.do(PullImage(job=job.id, spec=job.spec))
            case _:
                pass


def _settle(draft: Draft) -> None:
    """Bring the host to rest: every rule that can move a job without a further event has been applied."""
    for job in draft.all():
        if job.state is JobState.PREEMPTED and not _is_victim(draft, job):
            preemptor = draft.get(job.stop.by) if job.stop else None
            runs = preemptor is not None and preemptor.state is JobState.RUNNING
            requeue(draft, job, first=not runs)
    _replan_stuck(draft)
    for job in draft.all():
        if job.state is JobState.STARTING and job.stage is Stage.CLEARING and _is_clear(draft, job):
            _check_devices(draft, job)
    run_queue(draft)


def _is_clear(draft: Draft, job: Job) -> bool:
    assert job.allocation is not None
    return not any(
        other.id != job.id and other.allocation is not None and overlaps(job.allocation, other.allocation)
        for other in draft.holding()
    )


def _check_devices(draft: Draft, job: Job) -> None:
    assert job.allocation is not None
    if not job.allocation.gpus:
        _launch(draft, job)
        return
    draft.put(replace(job, stage=Stage.CHECKING, stage_since=draft.now, reason="its GPUs are being checked"))
    draft.do(CheckDevices(job=job.id, attempt=job.attempt, gpus=job.allocation.gpus))


def _replan_stuck(draft: Draft) -> None:
    """Give up plans that wait for a job which does not die."""
    stuck = [job for job in draft.holding() if job.stop is not None and job.stop.phase is StopPhase.STUCK]
    for job in draft.all():
        if job.state is not JobState.STARTING or job.stage is not Stage.CLEARING:
            continue
        for other in stuck:
            if job.allocation and other.allocation and overlaps(job.allocation, other.allocation):
                unplace(draft, job, f"{other.label} does not stop; planned anew without its GPUs")
                break
