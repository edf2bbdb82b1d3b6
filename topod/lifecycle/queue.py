"""Who starts next: the order of the queue, placement, and backfill that delays nobody.

Rule: the first job that must wait keeps its target GPUs and CPUs. A job behind it may use them only when it
could be evicted for it at once; so backfill never delays the job that waits.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from topod.lifecycle.accepting import as_expected, may_wait, named, pulls, take
from topod.lifecycle.depending import array_counts, array_is_full, waits_for
from topod.lifecycle.draft import Draft
from topod.lifecycle.effects import Create
from topod.lifecycle.ending import give_back, unpin, unplace
from topod.lifecycle.explaining import plan_data, plan_text
from topod.lifecycle.fairness import Usage
from topod.lifecycle.holdings import for_one, gpu_mask, memory_nodes, occupancy, overlaps, unknown_health
from topod.lifecycle.holds import (
    Hold,
    current_hold,
    may_evict_at,
    outlasting,
    taken_now,
    update_hold,
    yields_to,
)
from topod.lifecycle.overtaking import overtaken, without
from topod.lifecycle.states import Job, JobState, Stage
from topod.lifecycle.stopping import REPLAN_SECONDS, stop_victims
from topod.lifecycle.transitions import moved
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, JobId
from topod.model.occupancy import Block, Occupancy
from topod.model.plan import Plan, Refusal
from topod.model.request import CpuAffinity, ResourceRequest
from topod.preemption.refusal import gpu_names, refuse_by_quota
from topod.preemption.remembered import plan_again
from topod.preemption.search import plan


@dataclass(slots=True, kw_only=True)
class _Pass:
    """One pass over the queue."""

    usage: Usage
    arrays: Counter[int]
    """How many of each array hold an allocation."""
    hold: Hold | None
    """What is kept for the job that was blocked for too long."""
    first: Job | None = None
    """The first job that must wait ..."""
    kept: Block | None = None
    """... and its target, which is kept for it during this pass."""
    refused: dict[tuple[ResourceRequest, bool, bool, bool, float], Refusal] = field(default_factory=dict)
    """Answers to jobs that ask alike, since the last job was placed."""
    told: dict[int, str] = field(default_factory=dict)
    """What each kind of jobs waits for (`JobTable.waiting`), since what they wait for changed."""

    def is_held_for(self, job: Job) -> bool:
        """Say whether the job is the blocked one that something is kept for."""
        return self.hold is not None and self.hold.job.id == job.id

    def forget(self) -> None:
        """Let every job be answered anew: what is free, or who holds what, has changed."""
        self.refused.clear()
        self.told.clear()


def run_queue(draft: Draft) -> None:
    """Place every pending job that can start now, and give every other one its reason."""
    draft.taken = None
    usage = Usage(draft.jobs, draft.rules)
    arrays = array_counts(draft)
    now = _Pass(usage=usage, arrays=arrays, hold=update_hold(draft, usage, arrays))
    served = None if now.hold is None else now.hold.job.id
    for waiting, kind in draft.jobs.waiting():
        # Thousands wait for the same as one before them: who has a kind is of no fleet, and may wait.
        told = None if kind is None or waiting.id == served else now.told.get(kind)
        if told is not None:
            if waiting.reason != told:
                draft.retell(waiting, told)
            continue
        job = _rested(draft, waiting)
        wait = _not_ready(draft, job)
        if wait is None and (wait := array_is_full(job, now.arrays)):
            job = _throttled(draft, job)
        wait = wait or _over_quota(job, usage)
        if wait is not None:
            _wait(draft, job, wait)
        else:
            wait = _try(draft, _ready(draft, job), now)
        if wait is not None and kind is not None:
            now.told[kind] = wait


def _rested(draft: Draft, job: Job) -> Job:
    """Return the job without a back-off that is over: a clock that is set back must not begin it again."""
    over = job.image_ready and 0.0 < job.not_before <= draft.now
    return draft.put(replace(job, not_before=0.0)) if over else job


def _ready(draft: Draft, job: Job) -> Job:
    """Return the job, which waits for nothing but room from now on."""
    return job if job.ready_at is not None else draft.put(replace(job, ready_at=draft.now))


def _throttled(draft: Draft, job: Job) -> Job:
    """Return the job, which waits for its array now: whatever it has waited for room does not count."""
    return job if job.ready_at is None else draft.put(replace(job, ready_at=None, hold=None))


def _try(draft: Draft, job: Job, now: _Pass) -> str | None:
    """Place a job that is ready, or say why it must wait.

    Returns what all that come behind it and are of its kind wait for as well; None where that is not known.
    """
    kept, held = _kept_from(draft, job, now)
    if job.pinned is not None:
        # What is reserved for a job that moves is not kept for others: it ran, and it goes on.
        others = [] if job.pinned_reserved else [block for block in (kept, held) if block is not None]
        answer = _decide_pinned(draft, job, job.pinned, others)
        if isinstance(answer, Plan):
            _place(draft, job, answer, now, taken_now(draft))
            return None
        if not job.pinned_reserved:
            _wait(draft, job, _bound(job, job.pinned, answer.reason))
            if now.first is None and job.frozen is not None:
                now.first, now.kept = job, _kept_for(job, job.pinned, held)
                now.told.clear()
            return None
        now.usage.add(job.spec, -len(job.pinned.gpus))
        job = unpin(draft, job, answer.reason)
        now.forget()
        kept, held = _kept_from(draft, job, now)
    own = now.hold.block if now.hold is not None and now.is_held_for(job) else None
    key = (job.spec.request, kept is None, held is None, own is None, may_evict_at(job))
    known = now.refused.get(key)
    answer = known or _decide(draft, job, kept, held)
    alone = job.assignment is None  # the coordinator's plan overtakes nobody
    if isinstance(answer, Refusal) and known is None and kept is None and alone:
        answer = _overtake(draft, job, held, now) or answer
    if isinstance(answer, Plan):
        blocks = [block for block in (kept,) if block is not None]
        answer = as_expected(draft, job, answer, _asked(draft, job, held), blocks)
    if isinstance(answer, Plan):
        # Who was served by a hold keeps it in mind: see `guarded_until`.
        served = replace(job, hold=None if own is None else job.hold)
        _place(draft, served, answer, now, _asked(draft, job, held))
        return None
    if known is None and alone:
        now.refused[key] = answer
    mine = "" if own is None else f"; kept for it: {gpu_names(own.gpus)}"
    _wait(draft, job, f"{answer.reason}{mine}")
    if now.first is None and alone and (target := _target(draft, job, held)) is not None:
        now.first, now.kept = job, target
        now.told.clear()
        return None
    return answer.reason if own is None else None


def _kept_from(draft: Draft, job: Job, now: _Pass) -> tuple[Block | None, Block | None]:
    """Return what `job` must leave alone: the first waiting job's target, and the hold of a blocked one."""
    kept = now.kept
    if now.first is None or yields_to(job, now.first, draft.now, draft.rules):
        kept = None
    # Who is bound by the hold keeps nothing of it from its owner (`_target`): the two never block each other.
    bound = now.hold is not None and now.hold.binds(job, draft.now, draft.rules)
    return kept, now.hold.block if now.hold is not None and bound else None


def _decide(draft: Draft, job: Job, kept: Block | None, held: Block | None) -> Plan | Refusal:
    """Return the job's plan; behind a job that waits, one that leaves alone what is kept for that one.

    Nobody is stopped to get around what is kept in this pass: then the job waits too.
    """
    free = _asked(draft, job, held)
    answer = plan_again(draft.tables, free, job.spec.request)
    if kept is None or isinstance(answer, Refusal):
        return answer
    if not gpu_mask(answer.gpus) & kept.gpus and not answer.cpus & kept.cpus:
        return answer
    around = plan(draft.tables, replace(free, blocks=(*free.blocks, kept)), job.spec.request)
    if isinstance(around, Plan) and around.victims:
        return Refusal(reason=f"GPUs or CPUs it could use are {kept.reason}, which came first")
    return around


def _overtake(draft: Draft, job: Job, held: Block | None, now: _Pass) -> Plan | None:
    """Return the plan of a job that goes before some whose containers are being made; they are placed anew.

    They have stopped nobody yet: were they to do so first, it would be in vain.
    """
    for others in overtaken(draft, job):
        host = without(draft, others)
        free = _patient(draft, job, occupancy(draft.tables.topology, host, draft.now, draft.rules))
        free = free if held is None else replace(free, blocks=(*free.blocks, held))
        answer = plan(draft.tables, free, job.spec.request)
        if isinstance(answer, Refusal):
            continue
        place = allocate(draft, answer, job.spec.request)
        for other in others:
            if other.allocation is None or not overlaps(place, other.allocation):
                continue
            now.usage.add(other.spec, -len(other.allocation.gpus))
            if other.array is not None and other.array.limit is not None:
                now.arrays[other.array.id] -= 1
            unplace(draft, other, f"{job.label} goes before it", not_before=draft.now + REPLAN_SECONDS)
        return answer
    return None


def _asked(draft: Draft, job: Job, held: Block | None) -> Occupancy:
    """Return who holds what as the planner sees it for one pending job."""
    taken = taken_now(draft) if held is None else taken_now(draft, held)
    return _patient(draft, job, for_one(taken, draft.jobs, job, draft.now))


def _patient(draft: Draft, job: Job, taken: Occupancy) -> Occupancy:
    """Return the same with nobody to be stopped while the job still waits for free GPUs."""
    left = may_evict_at(job) - draft.now
    if left <= 0:
        return taken
    reason = f"waits {ceil(left)} s more for free GPUs before anyone is stopped"
    return replace(taken, may_evict=False, evict_reason=reason)


def _decide_pinned(draft: Draft, job: Job, pinned: Allocation, kept: Sequence[Block]) -> Plan | Refusal:
    """Return the plan of a job that may only run where it is pinned to, or why it cannot yet."""
    tables = draft.tables
    only = Block(
        reason=f"not the place {job.label} is bound to",
        gpus=tables.all_gpus & ~gpu_mask(pinned.gpu_indices),
        cpus=CpuSet(tables.cpus) - pinned.cpus,
    )
    now = occupancy(tables.topology, draft, draft.now, draft.rules, without=job.id)
    now = for_one(now, draft.jobs, job, draft.now)
    now = now if job.frozen is None else _patient(draft, job, now)
    answer = plan(tables, replace(now, blocks=(*now.blocks, only, *kept)), job.spec.request)
    if job.frozen is not None and isinstance(answer, Plan) and answer.cpus != pinned.cpus:
        return Refusal(reason="its GPUs and CPUs are not to be had together")
    return answer


def _bound(job: Job, pinned: Allocation, reason: str) -> str:
    """Say what a job waits for that may only run at one place."""
    if job.frozen is None:
        return reason
    gpus = f"GPUs {CpuSet.of(pinned.gpu_indices)}" if pinned.gpu_indices else ""
    cpus = f"CPUs {pinned.cpus}" if pinned.cpus else ""
    place = " and ".join(part for part in (gpus, cpus) if part) or "a place"
    return f"frozen, to be restored on {place}: {reason}"


def _kept_for(job: Job, place: Allocation, held: Block | None) -> Block:
    """Return the place a frozen job waits for, less what is held for another: neither waits for the other."""
    gpus, cpus = gpu_mask(place.gpu_indices), place.cpus
    if held is not None:
        gpus, cpus = gpus & ~held.gpus, cpus - held.cpus
    return Block(reason=f"kept for {job.label}", gpus=gpus, cpus=cpus)


def _not_ready(draft: Draft, job: Job) -> str | None:
    if pulls(job):
        return job.reason if job.pull_failures else f"waits for image {job.spec.image}"
    if job.not_before > draft.now:
        return job.reason
    # Last: what a job says of its own trouble is kept nowhere else, and would be lost.
    if job.after:
        return waits_for(draft, job)
    if draft.drain is not None:
        return f"the host is drained: {draft.drain}"
    if draft.blind is not None and job.spec.request.gpus:
        return unknown_health(draft.blind)
    return None


def _wait(draft: Draft, job: Job, reason: str) -> None:
    if not may_wait(job, draft.now):
        give_back(draft, job, reason)
    elif job.reason != reason:
        draft.retell(job, reason)


def _over_quota(job: Job, usage: Usage) -> str | None:
    """Return which quota leaves no room for a job; what is reserved for it counts as held already."""
    room = None if job.pinned_reserved else usage.room(job.spec)
    request = job.spec.request
    return None if room is None or request.gpus <= room.gpus else refuse_by_quota(room, request).reason


def _target(draft: Draft, job: Job, held: Block | None) -> Block | None:
    """Return the GPUs and CPUs that a waiting job waits for: those with the fewest jobs to outlast.

    Beside what is held for another job; where it cannot wait for anything else, for what will be left of it.
    """
    target = None if held is None else outlasting(draft, job, held)
    target = target or outlasting(draft, job)
    if target is None:
        return None
    gpus, cpus = gpu_mask(target.gpus), target.cpus
    if held is not None:
        gpus, cpus = gpus & ~held.gpus, cpus - held.cpus
    if may_evict_at(job) > draft.now:  # it waits for free GPUs: others may have what is not free
        for holder in taken_now(draft).holders:
            gpus, cpus = gpus & ~holder.gpus, cpus - holder.cpus
    return Block(reason=f"kept for {job.label}", gpus=gpus, cpus=cpus)


def _place(draft: Draft, job: Job, answer: Plan, now: _Pass, seen: Occupancy) -> None:
    """Reserve the plan's GPUs and CPUs for the job; first of all its container is made.

    A frozen job has its container, and its victims are stopped at once. `seen` is who held what when the plan
    was made.
    """
    job = take(draft, job)
    if not job.image_ready:
        return
    data = plan_data(draft.tables, seen, job.spec.request, answer)
    job = moved(
        job,
        JobState.STARTING,
        stage_since=draft.now,
        placed_at=draft.now,
        victims=tuple(JobId(int(name)) for name in answer.victims),
        plan=data,
        pinned=job.pinned if job.pinned_reserved or job.frozen is not None else None,
        not_before=0.0,
    )
    draft.put(job)
    if job.array is not None and job.array.limit is not None:
        now.arrays[job.array.id] += 1
    if not job.pinned_reserved:  # else it was counted already
        now.usage.add(job.spec, job.spec.request.gpus)
    now.forget()
    if job.frozen is not None:
        allocation, reason = job.pinned, "its GPUs and CPUs are being cleared"
        job = replace(job, stage=Stage.CLEARING, allocation=allocation, pinned=None, reason=reason)
        draft.note("job.placed", job, f"{job.label} is restored: {plan_text(data)}", plan=data)
        stop_victims(draft, draft.put(job))
        return
    allocation, reason = allocate(draft, answer, job.spec.request), "its container is being made"
    job = replace(job, stage=Stage.CREATING, allocation=allocation, reason=reason, handle=None)
    job = draft.put(replace(job, attempt=job.attempt + 1))
    draft.note("job.placed", job, f"{job.label}: {plan_text(data)}", plan=data)
    draft.do(Create(job=job.id, attempt=job.attempt, spec=job.spec, allocation=allocation))


def allocate(draft: Draft, answer: Plan, request: ResourceRequest) -> Allocation:
    """Return what a plan gives: UUIDs instead of indices, and memory bound where CPUs are NUMA-local."""
    topology = draft.tables.topology
    bind = request.cpu_affinity is CpuAffinity.NUMA and answer.cpu_affinity is CpuAffinity.NUMA
    return Allocation(
        gpus=tuple(topology.gpus[index].uuid for index in answer.gpus),
        gpu_indices=answer.gpus,
        cpus=answer.cpus,
        memory_nodes=memory_nodes(topology, answer.cpus) if bind and answer.cpus else (),
    )


def still_good(draft: Draft, job: Job) -> tuple[JobId, ...] | None:
    """Return the victims to stop for a job whose container is ready; None when it must be placed anew.

    While the container was made the world may have moved: a victim ended, a GPU fell ill. No victim is
    stopped that planning again would not name.
    """
    assert job.allocation is not None
    now = occupancy(draft.tables.topology, draft, draft.now, draft.rules, without=job.id)
    now = for_one(now, draft.jobs, job, draft.now)
    hold = current_hold(draft.jobs, draft.now, draft.rules)
    mask = gpu_mask(job.allocation.gpu_indices)
    if mask and draft.blind is not None:
        return None
    if any(block.gpus & mask or block.cpus & job.allocation.cpus for block in now.blocks):
        return None
    if not job.victims:
        return ()
    if hold is not None and hold.binds(job, draft.now, draft.rules):
        now = replace(now, blocks=(*now.blocks, hold.block))
    fresh = plan(draft.tables, now, job.spec.request)
    if isinstance(fresh, Plan):
        fresh = as_expected(draft, job, fresh, now)
    if isinstance(fresh, Refusal):
        return None
    if (fresh.gpus, fresh.cpus) != (job.allocation.gpu_indices, job.allocation.cpus):
        return None
    victims = tuple(JobId(int(name)) for name in fresh.victims)
    return victims if named(job, victims) else None
