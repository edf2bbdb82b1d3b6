"""Stopping a job: hook, SIGTERM, grace, SIGKILL, and what becomes of it afterwards."""

from dataclasses import replace
from typing import Final

from topod.lifecycle import events as ev
from topod.lifecycle.backoff import back_off, failures_before
from topod.lifecycle.draft import Draft
from topod.lifecycle.effects import Deliver
from topod.lifecycle.ending import end, give_back, left_behind, unpin, unpinned, unplace
from topod.lifecycle.exits import describe_exit, seconds_run
from topod.lifecycle.saving import HOOK_MARGIN_SECONDS, freeze, freeze_seconds, run_hook
from topod.lifecycle.states import (
    TAKEN_BACK,
    Job,
    JobState,
    Mark,
    MarkKind,
    Stage,
    Stop,
    StopCause,
    StopPhase,
)
from topod.lifecycle.transitions import moved
from topod.model.container import Signal
from topod.model.job import JobId, OnPreempt, RestartPolicy

KILL_SECONDS: Final = 30.0
"""How long a job may take to vanish after SIGKILL before its GPUs are quarantined."""
STUCK_SECONDS: Final = 60.0
"""How often a job that survives SIGKILL gets another one."""
KILLED: Final = 137
NUMBERS: Final = {
    Signal.HUP: 1,
    Signal.INT: 2,
    Signal.KILL: 9,
    Signal.USR1: 10,
    Signal.USR2: 12,
    Signal.TERM: 15,
}
"""Of Linux, on every architecture that has GPUs; exit code 128 + n: the signal killed the job."""
REPLAN_SECONDS: Final = 0.2
"""A job whose plan was overtaken is planned anew after this long: a quick world must not make a busy loop."""


def begin_stop(draft: Draft, job: Job, cause: StopCause, reason: str, by: JobId | None = None) -> None:
    """Start to stop a job in any state that has not ended."""
    launching = job.state is JobState.STARTING and job.stage is Stage.LAUNCHING
    if job.state is JobState.RUNNING or launching:
        _stop_container(draft, job, cause, reason, by)
    elif job.state is JobState.STOPPING:
        if cause is StopCause.CANCEL and job.stop is not None:
            stop = replace(job.stop, cause=cause, reason=reason)
            draft.put(replace(unpinned(job), stop=stop, reason=reason))
        elif cause in TAKEN_BACK and job.stop is not None:
            _take_back(draft, job, job.stop, cause, reason)
        elif cause is StopCause.PREEMPT:
            unpin(draft, job, reason)
    elif cause is StopCause.CANCEL:
        end(draft, job, JobState.CANCELLED, reason)
    elif cause in TAKEN_BACK:
        give_back(draft, job, reason)
    elif job.state is JobState.STARTING:
        unplace(draft, unpinned(job), reason, preempted=True)
    elif cause is StopCause.PREEMPT:
        unpin(draft, job, reason)


def _take_back(draft: Draft, job: Job, stop: Stop, cause: StopCause, reason: str) -> None:
    """Let a job that stops already end as returned; one that is being frozen is of no use to others."""
    if stop.cause in (StopCause.CANCEL, StopCause.TIME_LIMIT):
        return
    stop = replace(stop, cause=cause, reason=reason)
    job = draft.put(replace(unpinned(job), stop=stop, reason=reason))
    if stop.phase is StopPhase.FREEZE and stop.gone:
        job = draft.put(replace(job, stop=replace(stop, phase=StopPhase.TERM)))
        exited(draft, job, stop.exit_code, out_of_memory=stop.out_of_memory)
    elif stop.phase is StopPhase.FREEZE:
        ask_to_stop(draft, job)


def stop_victims(draft: Draft, job: Job) -> None:
    """Begin to stop the jobs that a starting job names as its victims."""
    for ident in job.victims:
        victim = draft.get(ident)
        if victim is not None:
            reason = f"preempted by {job.label}, priority {job.priority}"
            begin_stop(draft, victim, StopCause.PREEMPT, reason, by=job.id)


def _stop_container(draft: Draft, job: Job, cause: StopCause, reason: str, by: JobId | None) -> None:
    stop = Stop(cause=cause, by=by, reason=reason, since=draft.now, phase=StopPhase.HOOK, deadline=None)
    job = job if cause is StopCause.MOVE else unpinned(job)
    job = draft.put(moved(job, JobState.STOPPING, stop=stop, reason=reason))
    draft.note("job.stopping", job, f"{job.label} is told to stop: {reason}", cause=cause.value, by=by)
    saves = cause in (StopCause.PREEMPT, StopCause.MOVE, StopCause.REQUEUE) or cause in TAKEN_BACK
    asked = saves and job.stage is None and job.handle is not None
    freezable = cause is StopCause.PREEMPT and job.spec.on_preempt is OnPreempt.CHECKPOINT and not job.in_gang
    if asked and freezable:
        _freeze(draft, job)
    elif asked:
        ask_to_stop(draft, job)
    else:
        terminate(draft, job)


def _freeze(draft: Draft, job: Job) -> None:
    """Have the container written to disk, within the job's grace time."""
    assert job.stop is not None
    assert job.handle is not None
    stop = replace(job.stop, phase=StopPhase.FREEZE, deadline=draft.now + freeze_seconds(job))
    draft.put(replace(job, stop=stop))
    draft.do(freeze(job, job.handle))


def ask_to_stop(draft: Draft, job: Job) -> None:
    """Begin to stop a victim that runs: its hook first, if it has one."""
    hook, stop = job.spec.checkpoint, job.stop
    assert stop is not None
    assert job.handle is not None
    if hook is None:
        terminate(draft, job)
        return
    if hook.signal is not None:
        _enter(draft, job, StopPhase.HOOK, hook.signal)
        return
    deadline = draft.now + hook.timeout_seconds + HOOK_MARGIN_SECONDS
    draft.put(replace(job, stop=replace(stop, phase=StopPhase.HOOK, deadline=deadline)))
    draft.do(run_hook(job, job.handle, hook))


def terminate(draft: Draft, job: Job) -> None:
    """Send SIGTERM and let the grace time run."""
    _enter(draft, job, StopPhase.TERM, Signal.TERM)


def _enter(draft: Draft, job: Job, phase: StopPhase, signal: Signal) -> None:
    assert job.stop is not None
    assert job.handle is not None
    draft.do(Deliver(job=job.id, attempt=job.attempt, handle=job.handle, signal=signal))
    draft.note("job.signalled", job, f"{signal.value} to {job.label}", signal=signal.value)
    draft.put(replace(job, stop=replace(job.stop, phase=phase, deadline=None)))


def delivered(draft: Draft, event: ev.Delivered) -> None:
    """Let the time run that a job has to obey a signal: only now does it know of it."""
    job = draft.get(event.job)
    if job is None or job.attempt != event.attempt or job.stop is None or job.stop.deadline is not None:
        return
    if job.withdrawn is not None:
        # Sent before its start was withdrawn, so perhaps before it ran: once more, behind the withdrawal.
        handle = job.handle or ""
        draft.do(Deliver(job=job.id, attempt=job.attempt, handle=handle, signal=event.signal))
        return
    match job.stop.phase, event.signal:
        case StopPhase.TERM, Signal.TERM:
            seconds = job.spec.grace_seconds
        case StopPhase.KILL, Signal.KILL:
            seconds = KILL_SECONDS
        case StopPhase.STUCK, Signal.KILL:
            seconds = STUCK_SECONDS
        case StopPhase.HOOK, signal if (
            job.spec.checkpoint is not None and job.spec.checkpoint.signal is signal
        ):
            seconds = job.spec.checkpoint.timeout_seconds
        case _:
            return
    draft.put(replace(job, stop=replace(job.stop, deadline=draft.now + seconds)))


def advance_stop(draft: Draft, job: Job) -> None:
    """Go on to the next phase of a stop whose deadline has passed."""
    assert job.stop is not None
    match job.stop.phase:
        case StopPhase.HOOK:
            hook = job.spec.checkpoint
            by_signal = hook is not None and hook.signal is not None
            what = (
                f"{job.label} did not end after its checkpoint signal"
                if by_signal
                else (f"the checkpoint hook of {job.label} did not end")
            )
            draft.note("hook.expired", job, f"{what} in time")
            terminate(draft, job)
        case StopPhase.TERM:
            _enter(draft, job, StopPhase.KILL, Signal.KILL)
        case StopPhase.KILL:
            again = draft.now + STUCK_SECONDS
            draft.put(replace(job, stop=replace(job.stop, phase=StopPhase.STUCK, deadline=again)))
            text = f"{job.label} survives SIGKILL"
            for uuid in job.allocation.gpus if job.allocation else ():
                mark = Mark(kind=MarkKind.QUARANTINED, reason=text, since=draft.now, job=job.id)
                draft.mark(uuid, mark)
            draft.note("job.stuck", job, f"{text}; its GPUs are quarantined")
        case StopPhase.FREEZE:
            draft.note("freeze.expired", job, f"{job.label} was not frozen in time")
            if job.stop.gone:
                _gone_unfrozen(draft, job)
            else:
                terminate(draft, job)
        case StopPhase.STUCK:
            # Perhaps it never got the first one: an engine can drop what it was told.
            kill = Deliver(job=job.id, attempt=job.attempt, handle=job.handle or "", signal=Signal.KILL)
            draft.do(kill)
            draft.put(replace(job, stop=replace(job.stop, deadline=None)))


def not_frozen(draft: Draft, job: Job) -> None:
    """Go on with a victim that could not be frozen: stop it as any other, unless it ended meanwhile."""
    assert job.stop is not None
    if job.stop.gone:
        _gone_unfrozen(draft, job)
    else:
        ask_to_stop(draft, job)


def _gone_unfrozen(draft: Draft, job: Job) -> None:
    """Decide what becomes of a victim that ended while it was being frozen and left no checkpoint."""
    assert job.stop is not None
    code = job.stop.exit_code
    # CRIU ends what it has written with SIGKILL, so that may be its doing: then the job was preempted.
    by_engine = (code is None or code == KILLED) and not job.stop.out_of_memory
    stop = replace(job.stop, phase=StopPhase.TERM) if by_engine else None
    exited(draft, draft.put(replace(job, stop=stop)), code, out_of_memory=job.stop.out_of_memory)


def _being_frozen(draft: Draft, job: Job, exit_code: int | None, *, out_of_memory: bool) -> bool:
    """Note the end of a job that is being frozen: the answer to that says what it means."""
    if job.stop is None or job.stop.phase is not StopPhase.FREEZE:
        return False
    gone = replace(job.stop, gone=True, exit_code=exit_code, out_of_memory=out_of_memory)
    draft.put(replace(job, stop=gone))
    return True


def _settled(draft: Draft, job: Job) -> Job:
    """Count the GPU time of an attempt that ended, and hand out again what was kept back because of it."""
    gpus = job.allocation.gpus if job.allocation else ()
    if job.stop is not None and job.stop.phase is StopPhase.STUCK:
        for uuid in gpus:
            draft.unmark(uuid, MarkKind.QUARANTINED, job.id)
    used = job.gpu_seconds + seconds_run(job, draft.now) * len(gpus)
    return draft.put(replace(job, gpu_seconds=used, failures=failures_before(job, draft.now)))


def exited(draft: Draft, job: Job, exit_code: int | None, *, out_of_memory: bool) -> None:
    """Decide what becomes of a running or stopping job whose container ended."""
    if _being_frozen(draft, job, exit_code, out_of_memory=out_of_memory):
        return
    job = _settled(draft, job)
    stop = job.stop
    if stop is None or _was_not_told(job, stop, exit_code):
        _ended_by_itself(draft, job, exit_code, out_of_memory=out_of_memory)
        return
    match stop.cause:
        case StopCause.CANCEL:
            end(draft, job, JobState.CANCELLED, stop.reason, exit_code)
        case StopCause.TIME_LIMIT:
            end(draft, job, JobState.FAILED, stop.reason, exit_code)
        case StopCause.REVOKED | StopCause.LEASE:
            give_back(draft, _after_signal(draft, job, exit_code), stop.reason, exit_code)
        case StopCause.UNHEALTHY:
            _queue_again(draft, job, f"requeued; {stop.reason}", exit_code)
        case StopCause.REQUEUE:
            _queue_again(draft, _after_signal(draft, job, exit_code), stop.reason, exit_code)
        case StopCause.MOVE:
            job = _after_signal(draft, job, exit_code)
            moving = replace(job, moves=job.moves + 1, restart_first=True)
            _queue_again(draft, moving, stop.reason, exit_code)
        case StopCause.PREEMPT:
            _preempted(draft, _after_signal(draft, job, exit_code), stop, exit_code)


def _was_not_told(job: Job, stop: Stop, exit_code: int | None) -> bool:
    """Say whether a job that stops ended by itself: while its hook still runs nobody has told it to.

    A checkpoint signal is different: to save and to end is what it asks for. And a job that was to stop for
    good, or is taken back, does not start anew because it failed meanwhile.
    """
    hook = job.spec.checkpoint
    if (
        stop.phase is not StopPhase.HOOK
        or exit_code is None
        or (hook is not None and hook.signal is not None)
    ):
        return False
    return exit_code == 0 or stop.cause in (StopCause.PREEMPT, StopCause.MOVE)


def _preempted(draft: Draft, job: Job, stop: Stop, exit_code: int | None) -> None:
    job = replace(job, preemptions=job.preemptions + 1, exit_code=exit_code)
    if job.spec.on_preempt is OnPreempt.CANCEL:
        end(draft, job, JobState.CANCELLED, stop.reason, exit_code)
        return
    draft.note("job.preempted", job, f"{job.label} stopped: {stop.reason}", by=stop.by, exit_code=exit_code)
    if _goes_back(job):
        give_back(draft, job, stop.reason, exit_code)
        return
    draft.put(
        moved(
            left_behind(draft, job),
            JobState.PREEMPTED,
            reason=f"{stop.reason}; back in the queue when that one runs",
            allocation=None,
            stage=None,
        )
    )


def _goes_back(job: Job) -> bool:
    """Say whether a stopped job is the coordinator's to place: no room here is reserved for it."""
    return job.assignment is not None and (job.in_gang or not job.pinned_reserved)


def _queue_again(draft: Draft, job: Job, reason: str, exit_code: int | None) -> None:
    if _goes_back(job):
        give_back(draft, job, reason, exit_code)
        return
    draft.note("job.requeued", job, f"{job.label} is back in the queue: {reason}", exit_code=exit_code)
    draft.put(
        moved(
            left_behind(draft, job),
            JobState.PENDING,
            reason=reason,
            allocation=None,
            stage=None,
            stop=None,
            exit_code=exit_code,
        )
    )


def _after_signal(draft: Draft, job: Job, exit_code: int | None) -> Job:
    """Note what became of the work of a job that was sent its checkpoint signal."""
    hook = job.spec.checkpoint
    if hook is None or hook.signal is None or job.stop is None or job.stop.phase is not StopPhase.HOOK:
        return job
    if exit_code == 128 + NUMBERS[hook.signal]:
        text = f"{job.label} does not handle its checkpoint signal: {hook.signal.value} killed it"
        draft.note("hook.failed", job, text)
        return job
    draft.note("hook.done", job, f"{job.label} ended after its checkpoint signal", exit_code=exit_code)
    return replace(job, checkpoint_at=draft.now)


def _ended_by_itself(draft: Draft, job: Job, exit_code: int | None, *, out_of_memory: bool) -> None:
    if exit_code == 0:
        end(draft, job, JobState.SUCCEEDED, "exit code 0", 0)
        return
    reason = describe_exit(exit_code, out_of_memory=out_of_memory)
    restarts = job.spec.restart is RestartPolicy.ON_FAILURE and job.failures < job.spec.max_restarts
    if restarts and not job.in_gang:  # its others must end first: the coordinator starts all of them anew
        failures = job.failures + 1
        wait = back_off(failures)
        text = f"{reason}; restart {failures} of {job.spec.max_restarts} in {wait:g} s"
        draft.note("job.restarting", job, f"{job.label}: {text}", exit_code=exit_code)
        draft.put(
            moved(
                left_behind(draft, job),
                JobState.PENDING,
                reason=text,
                allocation=None,
                stop=None,
                failures=failures,
                exit_code=exit_code,
                not_before=draft.now + wait,
            )
        )
        return
    state = JobState.LOST if exit_code is None else JobState.FAILED
    end(draft, job, state, reason, exit_code)


def requeue(draft: Draft, job: Job, *, first: bool) -> None:
    """Put a preempted job back into the queue, with its original submit time."""
    by = job.stop.by if job.stop else None
    other = draft.get(by)
    reason = f"requeued; it was preempted by job {by if other is None else other.ident}"
    draft.note("job.requeued", job, f"{job.label} is back in the queue", by=by, first=first)
    draft.put(moved(job, JobState.PENDING, reason=reason, stop=None, restart_first=first))
