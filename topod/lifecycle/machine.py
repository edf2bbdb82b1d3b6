"""The scheduling core of one host: `step` takes a state and an event and returns what follows.

Pure: no clock, no files, no containers. `now` is an argument (epoch seconds); the daemon and the simulator
run the same code. After each event the host is settled: victims whose preemptor runs or gave up go back into
the queue, starting jobs whose GPUs are clear go on, and the queue is run.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.asking import cancel, change_priority, put_back, submitted
from topod.lifecycle.assignments import concerning_fleet
from topod.lifecycle.clocks import clock_set
from topod.lifecycle.depending import settle_dependencies
from topod.lifecycle.devices import concerning_devices
from topod.lifecycle.draft import Draft
from topod.lifecycle.effects import PullImage
from topod.lifecycle.ending import unplace
from topod.lifecycle.freezing import frozen
from topod.lifecycle.holdings import overlaps
from topod.lifecycle.jobtable import Role
from topod.lifecycle.moving import request_moves
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.outranked import give_way
from topod.lifecycle.queue import run_queue
from topod.lifecycle.recovery import recover, sweep
from topod.lifecycle.starting import (
    check_devices,
    collected,
    container_exited,
    create_failed,
    created,
    devices_busy,
    devices_free,
    hook_done,
    image_failed,
    image_ready,
    is_clear,
    is_victim,
    start_failed,
    started,
)
from topod.lifecycle.states import HostState, JobState, Stage, StopCause
from topod.lifecycle.stopping import advance_stop, begin_stop, delivered, requeue
from topod.model.job import JobId
from topod.model.rules import NO_RULES, Rules

_STOPS_OTHERS: Final = (ev.Created, ev.Go)


def step(
    tables: TopologyTables, state: HostState, event: ev.Event, now: float, rules: Rules = NO_RULES
) -> Outcome:
    """Return what `event` leads to at the moment `now`. The same arguments always give the same outcome."""
    outcome, _ = step_all(tables, state, (event,), now, rules)
    return outcome


def step_all(
    tables: TopologyTables,
    state: HostState,
    events: Sequence[ev.Event],
    now: float,
    rules: Rules = NO_RULES,
    *,
    queue: bool = True,
) -> tuple[Outcome, tuple[tuple[JobId, ...], ...]]:
    """Return what `events` lead to, coming one after the other at the same moment; and the jobs each made.

    Those on which others are told to stop come late: nobody is stopped on less than is known at that moment.
    The queue is run once, after the last: so a burst of submits is decided by priority, not by arrival.
    Without `queue` it is left to a later step: what is submitted stays pending until then.
    """
    draft = Draft(tables, state, now, rules)
    made: list[tuple[JobId, ...]] = [()] * len(events)
    for place in _order(events):
        event, first = events[place], draft.next_job
        _apply(draft, event)
        _settle(draft)
        made[place] = tuple(JobId(ident) for ident in range(first, draft.next_job))
    if queue:
        run_queue(draft)
        settle_dependencies(draft)
    return draft.finish(), tuple(made)


def _order(events: Sequence[ev.Event]) -> list[int]:
    """Return the places of the events in the order in which they are looked at.

    Those on which others are told to stop come last, but before what is reported later of the same attempt.
    """
    order: list[int] = []
    late: list[int] = []
    for place, event in enumerate(events):
        if isinstance(event, _STOPS_OTHERS):
            late.append(place)
            continue
        attempt = _attempt(event)
        if late and attempt is not None:
            due = [one for one in late if _attempt(events[one]) == attempt]
            order += due
            late = [one for one in late if one not in due]
        order.append(place)
    return order + late


def _attempt(event: ev.Event) -> tuple[int, int] | None:
    """Return the job and the attempt that an event reports on; None for one that is no such report."""
    attempt: int | None = getattr(event, "attempt", None)
    job: int | None = getattr(event, "job", None)
    return None if attempt is None or job is None else (job, attempt)


def _apply(draft: Draft, event: ev.Event) -> None:  # noqa: C901, PLR0912 - one case an event
    match event:
        case ev.Submitted():
            submitted(draft, event)
        case ev.CancelRequested():
            cancel(draft, event)
        case ev.RequeueRequested():
            put_back(draft, event)
        case ev.PriorityChanged():
            change_priority(draft, event)
        case ev.ImageReady():
            image_ready(draft, event)
        case ev.ImageFailed():
            image_failed(draft, event)
        case ev.Created():
            created(draft, event)
        case ev.CreateFailed():
            create_failed(draft, event)
        case ev.DevicesFree():
            devices_free(draft, event)
        case ev.DevicesBusy():
            devices_busy(draft, event)
        case ev.Started():
            started(draft, event)
        case ev.StartFailed():
            start_failed(draft, event)
        case ev.HookDone():
            hook_done(draft, event)
        case ev.Delivered():
            delivered(draft, event)
        case ev.Exited():
            container_exited(draft, event)
        case ev.Collected():
            collected(draft, event)
        case ev.Recovered() | ev.Swept():
            missed = recover(draft, event) if isinstance(event, ev.Recovered) else sweep(draft, event)
            for seen in missed:
                _apply(draft, seen)
        case ev.MovesRequested():
            request_moves(draft, event)
        case ev.Frozen():
            frozen(draft, event)
        case ev.ClockSet():
            clock_set(draft, event)
        case ev.Assigned() | ev.Revoked() | ev.Go() | ev.Settled() | ev.LeaseEnded():
            concerning_fleet(draft, event)
        case ev.Tick():
            _tick(draft)
        case _:
            concerning_devices(draft, event)


# --- time and order ---------------------------------------------------------------------------------------


def _tick(draft: Draft) -> None:
    for job in draft.active():
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
    """Bring the jobs to rest that are not queued: every rule that can move one without a further event."""
    give_way(draft)
    for job in draft.jobs.having(Role.VICTIM):
        if not is_victim(draft, job):
            preemptor = draft.get(job.stop.by) if job.stop else None
            runs = preemptor is not None and preemptor.state is JobState.RUNNING
            requeue(draft, job, first=not runs)
    settle_dependencies(draft)
    _replan_stuck(draft)
    for job in draft.jobs.having(Role.PROMISED):
        if job.stage is Stage.CLEARING and is_clear(draft, job):
            check_devices(draft, job)


def _replan_stuck(draft: Draft) -> None:
    """Give up plans that wait for a job which does not die."""
    stuck = draft.jobs.having(Role.STUCK)
    for job in draft.jobs.having(Role.PROMISED) if stuck else ():
        if job.stage is not Stage.CLEARING:
            continue
        for other in stuck:
            if job.allocation and other.allocation and overlaps(job.allocation, other.allocation):
                unplace(draft, job, f"{other.label} does not stop; planned anew without its GPUs")
                break
