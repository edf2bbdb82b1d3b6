"""The daemon came back: what the state remembers is compared with what really runs.

Every effect that may not have been carried out is given again (effects are idempotent), and what happened
meanwhile is turned into the events that were missed.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from topod.lifecycle import events as ev
from topod.lifecycle.clocks import within_reason
from topod.lifecycle.draft import Draft
from topod.lifecycle.effects import (
    CheckDevices,
    Collect,
    Create,
    Deliver,
    Launch,
    PullImage,
    RemoveStray,
    Withdraw,
)
from topod.lifecycle.ending import forsake_checkpoint, unplace
from topod.lifecycle.saving import HOOK_MARGIN_SECONDS, freeze, freeze_seconds, run_hook
from topod.lifecycle.states import HOLDING, Job, JobState, Stage, Stop, StopPhase
from topod.model.container import ContainerStatus, Observed, Signal
from topod.model.job import JobId

SWEEP_MARGIN_SECONDS: Final = 10.0
"""A container younger than this may be missing from a look at the runtime."""


def recover(draft: Draft, event: ev.Recovered) -> Iterator[ev.Event]:
    """Repeat the outstanding effects and yield the events that were missed, job by job."""
    seen: dict[tuple[JobId, int], Observed] = {(c.job, c.attempt): c for c in event.containers}
    known: set[str] = set()
    for remembered in draft.all():
        job = draft.put(within_reason(remembered, draft.now))
        for left in job.leftovers:
            known.add(left.handle)
            draft.do(Collect(job=job.id, attempt=left.attempt, handle=left.handle))
        container = seen.get((job.id, job.attempt))
        if container is not None and (job.state in HOLDING or job.frozen is not None):
            known.add(container.handle)
        yield from _recover_job(draft, job, container)
    for container in event.containers:
        if container.handle not in known:
            draft.note("container.stray", None, f"removing {container.handle}: no job answers for it")
            draft.do(RemoveStray(handle=container.handle))
    count = len(event.containers)
    text = f"topod is back; {count} container{'' if count == 1 else 's'} found"
    if draft.next_job == 1 and not count:
        text = "topod starts; it has had no job here yet"
    draft.note("host.recovered", None, text)


def sweep(draft: Draft, event: ev.Swept) -> Iterator[ev.Event]:
    """Remove containers that nobody answers for and yield exits that nobody reported.

    Only what cannot be undone by an answer still on its way counts: a container of an attempt that is over,
    and a running or stopping job whose container has ended, or is gone although it was started before.
    """
    seen: dict[tuple[JobId, int], Observed] = {(c.job, c.attempt): c for c in event.containers}
    for container in event.containers:
        job = draft.get(container.job)
        alive = job is not None and job.state in HOLDING and job.attempt == container.attempt
        left = job is not None and any(left.handle == container.handle for left in job.leftovers)
        kept = job is not None and job.frozen is not None and job.handle == container.handle
        if not alive and not left and not kept and container.job < draft.next_job:
            draft.note("container.stray", job, f"removing {container.handle}: no job answers for it")
            draft.do(RemoveStray(handle=container.handle))
    for job in draft.all():
        if job.state not in (JobState.RUNNING, JobState.STOPPING) or job.started_at is None:
            continue
        found = seen.get((job.id, job.attempt))
        if found is not None and found.status is ContainerStatus.EXITED:
            yield _exit_of(found)
        elif found is None and job.started_at + SWEEP_MARGIN_SECONDS < event.at:
            yield ev.Exited(job=job.id, attempt=job.attempt, exit_code=None)


def _recover_job(draft: Draft, job: Job, container: Observed | None) -> Iterator[ev.Event]:
    match job.state:
        case JobState.PENDING:
            if not job.image_ready:
                draft.put(replace(job, not_before=0.0))
                draft.do(PullImage(job=job.id, spec=job.spec))
        case JobState.STARTING:
            yield from _recover_starting(draft, job, container)
        case JobState.RUNNING:
            if container is None:
                yield ev.Exited(job=job.id, attempt=job.attempt, exit_code=None)
            elif container.status is not ContainerStatus.RUNNING:
                yield _exit_of(container)
        case JobState.STOPPING:
            yield from _recover_stopping(draft, job, container)
        case _:
            pass


def _recover_starting(draft: Draft, job: Job, container: Observed | None) -> Iterator[ev.Event]:
    assert job.allocation is not None
    if job.stage is Stage.LAUNCHING:
        if container is None:
            yield ev.Exited(job=job.id, attempt=job.attempt, exit_code=None)
        elif container.status is ContainerStatus.CREATED or _still_frozen(job, container):
            _start_again(draft, job, container.handle)
        elif job.withdrawn is not None and container.status is ContainerStatus.EXITED:
            yield _exit_of(container)
        else:
            at = container.started_at if container.started_at is not None else draft.now
            yield ev.Started(job=job.id, attempt=job.attempt, at=at)
            if container.status is ContainerStatus.EXITED:
                yield _exit_of(container)
        return
    if job.frozen is not None and container is None:
        anew = forsake_checkpoint(draft, job, "its container is gone")
        unplace(draft, anew, "its frozen container is gone; it starts anew")
        return
    if container is None or job.stage is Stage.CREATING:
        # Making it again gives the same container when it is there already.
        draft.put(replace(job, stage=Stage.CREATING))
        draft.do(Create(job=job.id, attempt=job.attempt, spec=job.spec, allocation=job.allocation))
    elif job.stage is Stage.CHECKING:
        draft.do(CheckDevices(job=job.id, attempt=job.attempt, gpus=job.allocation.gpus))


def _start_again(draft: Draft, job: Job, handle: str) -> None:
    """Order once more what may have been ordered before: the start, or that it is taken back."""
    if job.withdrawn is not None:
        draft.do(Withdraw(job=job.id, attempt=job.attempt, handle=handle))
        return
    draft.do(Launch(job=job.id, attempt=job.attempt, handle=handle, checkpoint=job.frozen, again=True))


def _may_yet_start(job: Job, container: Observed) -> bool:
    waits = container.status is ContainerStatus.CREATED or _still_frozen(job, container)
    return waits and job.stage is Stage.LAUNCHING and job.stop is not None


def _still_frozen(job: Job, container: Observed) -> bool:
    """Say whether a container that has ended is the frozen one, not yet restored."""
    ended = container.status is ContainerStatus.EXITED
    return job.frozen is not None and ended and container.started_at == job.frozen_life


def _recover_freezing(draft: Draft, job: Job, stop: Stop, container: Observed | None) -> Iterator[ev.Event]:
    """Freeze it once more; where that was done it is done, and the answer says so."""
    if container is not None and container.status is ContainerStatus.EXITED:
        yield _exit_of(container)
        job = draft.jobs[job.id]
        stop = job.stop or stop
    if container is None or container.status is ContainerStatus.CREATED:
        yield ev.Exited(job=job.id, attempt=job.attempt, exit_code=None)
        yield ev.Frozen(job=job.id, attempt=job.attempt, ok=False, text="its container is gone")
        return
    draft.put(replace(job, stop=replace(stop, deadline=draft.now + freeze_seconds(job))))
    draft.do(freeze(job, container.handle))


def _recover_stopping(draft: Draft, job: Job, container: Observed | None) -> Iterator[ev.Event]:
    if job.stop is not None and job.stop.phase is StopPhase.FREEZE:
        yield from _recover_freezing(draft, job, job.stop, container)
        return
    if container is not None and _may_yet_start(job, container):
        # The order to start it was given, and the runtime may still carry it out: its GPUs are not free yet.
        draft.do(Withdraw(job=job.id, attempt=job.attempt, handle=container.handle))
    elif container is None or container.status is not ContainerStatus.RUNNING or job.stop is None:
        if container is not None and container.status is ContainerStatus.EXITED:
            yield _exit_of(container)
        else:
            yield ev.Exited(job=job.id, attempt=job.attempt, exit_code=None)
        return
    if job.stage is Stage.LAUNCHING and container.status is ContainerStatus.RUNNING:
        # Its start was answered while nobody listened; without it no look would ever miss its end.
        at = container.started_at if container.started_at is not None else draft.now
        yield ev.Started(job=job.id, attempt=job.attempt, at=at)
        job = draft.jobs[job.id]
    assert job.stop is not None
    hook = job.spec.checkpoint
    if job.stop.phase is StopPhase.HOOK and hook is not None and hook.signal is None:
        deadline = draft.now + hook.timeout_seconds + HOOK_MARGIN_SECONDS
        draft.put(replace(job, stop=replace(job.stop, deadline=deadline)))
        draft.do(run_hook(job, container.handle, hook))
        return
    signal = Signal.KILL if job.stop.phase in (StopPhase.KILL, StopPhase.STUCK) else Signal.TERM
    if job.stop.phase is StopPhase.HOOK and hook is not None and hook.signal is not None:
        signal = hook.signal
    # Nobody knows whether the signal arrived: it is sent again, and the time to obey it runs anew.
    draft.put(replace(job, stop=replace(job.stop, deadline=None)))
    draft.do(Deliver(job=job.id, attempt=job.attempt, handle=container.handle, signal=signal))


def _exit_of(container: Observed) -> ev.Exited:
    return ev.Exited(
        job=container.job,
        attempt=container.attempt,
        exit_code=container.exit_code,
        out_of_memory=container.out_of_memory,
        started_at=container.started_at,
    )
