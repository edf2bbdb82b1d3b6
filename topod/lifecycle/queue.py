"""Who starts next: the order of the queue, placement, and backfill that delays nobody.

Rule: the first job that must wait keeps its target GPUs and CPUs. A job behind it may use them only when it
could be evicted for it at once; so backfill never delays the job that waits.
"""

from collections import Counter
from dataclasses import replace
from typing import Final

from topod.lifecycle.depending import array_counts, array_is_full, waits_for
from topod.lifecycle.draft import Draft
from topod.lifecycle.effects import Create
from topod.lifecycle.explaining import plan_data, plan_text
from topod.lifecycle.holdings import gpu_mask, memory_nodes, occupancy, unknown_health
from topod.lifecycle.states import Job, JobState, Stage
from topod.lifecycle.stopping import unpin
from topod.lifecycle.transitions import moved
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, JobId
from topod.model.occupancy import Block, Occupancy
from topod.model.plan import Plan, Refusal
from topod.model.request import CpuAffinity, ResourceRequest
from topod.preemption.search import plan

LOWEST: Final = -(1 << 62)


def run_queue(draft: Draft) -> None:
    """Place every pending job that can start now, and give every other one its reason."""
    refused: dict[tuple[ResourceRequest, bool], Refusal] = {}
    arrays = array_counts(draft)
    hold: tuple[Job, Block] | None = None
    draft.taken = None
    for found in draft.jobs.waiting():
        wait = _not_ready(draft, found) or array_is_full(found, arrays)
        if wait is not None:
            _wait(draft, found, wait)
            continue
        # A back-off that is over is done with: a clock that is set back must not begin it again.
        job = draft.put(replace(found, not_before=0.0)) if found.not_before else found
        kept = None if hold is None or _yields_to(job, hold[0]) else hold[1]
        if job.pinned is not None:
            # What is reserved for a job that moves is not kept for others: it ran, and it goes on.
            answer = _decide_pinned(draft, job, job.pinned, None if job.pinned_reserved else kept)
            if isinstance(answer, Plan):
                place(draft, job, answer, arrays)
                refused.clear()
                continue
            if not job.pinned_reserved:
                _wait(draft, job, answer.reason)
                continue
            job = unpin(draft, job, answer.reason)
            refused.clear()
        key = (job.spec.request, kept is None)
        answer = refused.get(key) or _decide(draft, job, kept)
        if isinstance(answer, Plan):
            place(draft, job, answer, arrays)
            refused.clear()
            continue
        refused[key] = answer
        _wait(draft, job, answer.reason)
        if hold is None:
            target = _target(draft, job)
            hold = None if target is None else (job, target)


def _decide(draft: Draft, job: Job, kept: Block | None) -> Plan | Refusal:
    """Return the job's plan; behind a job that waits, one that leaves alone what is kept for that one.

    Nobody is stopped to get around what is kept: then the job waits too.
    """
    answer = plan(draft.tables, _occupancy(draft), job.spec.request)
    if kept is None or isinstance(answer, Refusal):
        return answer
    if not gpu_mask(answer.gpus) & kept.gpus and not answer.cpus & kept.cpus:
        return answer
    around = plan(draft.tables, _occupancy(draft, kept), job.spec.request)
    if isinstance(around, Plan) and around.victims:
        return Refusal(reason=f"GPUs or CPUs it could use are {kept.reason}, which came first")
    return around


def _decide_pinned(draft: Draft, job: Job, pinned: Allocation, kept: Block | None) -> Plan | Refusal:
    """Return the plan of a job that may only run where it is pinned to, or why it cannot yet."""
    tables = draft.tables
    only = Block(
        reason=f"not the place {job.label} is bound to",
        gpus=tables.all_gpus & ~gpu_mask(pinned.gpu_indices),
        cpus=CpuSet(tables.cpus) - pinned.cpus,
    )
    now = occupancy(tables.topology, draft, draft.now, draft.rules, without=job.id)
    blocks = (*now.blocks, only) if kept is None else (*now.blocks, only, kept)
    return plan(tables, replace(now, blocks=blocks), job.spec.request)


def _not_ready(draft: Draft, job: Job) -> str | None:
    if not job.image_ready:
        return job.reason if job.pull_failures else f"pulling image {job.spec.image}"
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
    if job.reason != reason:
        draft.retell(job, reason)


def _occupancy(draft: Draft, *kept: Block) -> Occupancy:
    now = draft.taken
    if now is None:
        now = draft.taken = occupancy(draft.tables.topology, draft, draft.now, draft.rules)
    return replace(now, blocks=(*now.blocks, *kept)) if kept else now


def _yields_to(job: Job, waiting: Job) -> bool:
    """Say whether `job` could be evicted for `waiting` the moment that one can start."""
    return job.spec.preemptible and job.priority < waiting.priority and job.spec.min_runtime_seconds == 0


def _target(draft: Draft, job: Job) -> Block | None:
    """Return the GPUs and CPUs that a waiting job waits for: those with the fewest jobs to outlast."""
    now = _occupancy(draft)
    gone = tuple(replace(holder, priority=LOWEST, evictable=True) for holder in now.holders)
    answer = plan(draft.tables, replace(now, holders=gone), job.spec.request)
    if isinstance(answer, Refusal):
        return None
    return Block(reason=f"kept for {job.label}", gpus=gpu_mask(answer.gpus), cpus=answer.cpus)


def place(draft: Draft, job: Job, answer: Plan, arrays: "Counter[JobId]") -> None:
    """Reserve the plan's GPUs and CPUs for the job; first of all its container is made."""
    allocation = allocate(draft, answer, job.spec.request)
    data = plan_data(draft.tables, _occupancy(draft), job.spec.request, answer)
    victims = tuple(JobId(int(name)) for name in answer.victims)
    job = moved(
        job,
        JobState.STARTING,
        reason="its container is being made",
        attempt=job.attempt + 1,
        allocation=allocation,
        stage=Stage.CREATING,
        stage_since=draft.now,
        placed_at=draft.now,
        victims=victims,
        plan=data,
        handle=None,
        pinned=job.pinned if job.pinned_reserved else None,
        not_before=0.0,
    )
    draft.put(job)
    if job.array is not None and job.array.limit is not None:
        arrays[job.array.id] += 1
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
    mask = gpu_mask(job.allocation.gpu_indices)
    if mask and draft.blind is not None:
        return None
    if any(block.gpus & mask for block in now.blocks):
        return None
    if not job.victims:
        return ()
    fresh = plan(draft.tables, now, job.spec.request)
    if isinstance(fresh, Refusal):
        return None
    if (fresh.gpus, fresh.cpus) != (job.allocation.gpu_indices, job.allocation.cpus):
        return None
    return tuple(JobId(int(name)) for name in fresh.victims)
