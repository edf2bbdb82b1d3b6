"""The growing hold: nobody waits for ever for many GPUs while small jobs come and go.

The job that has been blocked longest, if longer than `hold_after`, has GPUs of its target kept for it: one at
first, one more after each `hold_step`, with the CPUs beside them. Nobody else of lower standing gets them, so
only those who are on them already have to be outlasted: after `hold_after + (n - 1) * hold_step` no one joins
them any more, and the job starts when the last of them has ended.

One hold at a time: two could block each other. The target stays as it was chosen; were it chosen anew with
every job that ends, waiting could start over each time.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from topod.lifecycle.depending import array_is_full
from topod.lifecycle.draft import Draft
from topod.lifecycle.fairness import Usage, effective_priority
from topod.lifecycle.holdings import gpu_mask, memory_nodes, occupancy
from topod.lifecycle.jobtable import blocked
from topod.lifecycle.states import Job
from topod.model.budgets import budget_names
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, JobId
from topod.model.occupancy import Block, Occupancy
from topod.model.plan import Plan
from topod.model.request import ResourceRequest
from topod.model.rules import Rules
from topod.preemption.refusal import gpu_names
from topod.preemption.search import plan

LOWEST: Final = -(1 << 62)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What is kept for one blocked job now."""

    job: Job
    block: Block

    def binds(self, job: Job, now: float, rules: Rules) -> bool:
        """Say whether `job` must leave alone what is kept."""
        if job.id == self.job.id or (job.pinned is not None and job.pinned_reserved):
            return False
        urgent = job.priority >= max(rules.hold_below, self.job.priority)
        return not urgent and not yields_to(job, self.job, now, rules)


def yields_to(job: Job, waiting: Job, now: float, rules: Rules) -> bool:
    """Say whether `job` could be evicted for `waiting` the moment that one can start."""
    return (
        job.spec.preemptible
        and effective_priority(job, rules) < waiting.priority
        and job.spec.min_runtime_seconds == 0
        and not budget_names(job.spec, rules)
        and not (job.tag is not None and job.tag.budgets)
        and may_evict_at(waiting) <= now
    )


def may_evict_at(job: Job) -> float:
    """Return from when on others may be stopped for a pending job (epoch seconds; 0: at once)."""
    wait = job.spec.wait_before_preempt_seconds
    return (job.ready_at or 0.0) + wait if wait > 0 else 0.0


def held_gpus(job: Job, now: float, rules: Rules) -> int:
    """Return how many GPUs of its target are kept for a pending job if it is the one that is served."""
    if job.ready_at is None or rules.hold_after_seconds <= 0:
        return 0
    begins, wanted, step = (
        job.ready_at + rules.hold_after_seconds,
        job.spec.request.gpus,
        rules.hold_step_seconds,
    )
    if now < begins:
        return 0
    if step <= 0:
        return wanted
    count = 1
    # Counted up, so that it agrees to the last bit with the moments of `next_growth`.
    while count < wanted and begins + count * step <= now:
        count += 1
    return min(count, wanted)


def next_growth(jobs: Mapping[JobId, Job], now: float, rules: Rules) -> float | None:
    """Return when the hold of the job that waits longest begins or grows; None where it does not."""
    job = next(blocked(jobs), None)
    if job is None or job.ready_at is None or rules.hold_after_seconds <= 0:
        return None
    count = held_gpus(job, now, rules)
    if count >= job.spec.request.gpus:
        return None
    return job.ready_at + rules.hold_after_seconds + count * rules.hold_step_seconds


def current_hold(jobs: Mapping[JobId, Job], now: float, rules: Rules) -> Hold | None:
    """Return what is kept now, by what the last pass over the queue wrote down."""
    for job in blocked(jobs):
        count = held_gpus(job, now, rules)
        if not count:
            break  # the others wait for less long
        if job.hold is not None:
            waited = rules.hold_after_seconds + (count - 1) * rules.hold_step_seconds
            cpus = list(job.hold.cpus)
            share = len(cpus) * count // max(len(job.hold.gpus), 1)
            block = Block(
                reason=f"kept for {job.label}, blocked for over {duration_words(waited)}",
                gpus=gpu_mask(job.hold.gpu_indices[:count]),
                cpus=CpuSet.of(cpus[:share]),
            )
            return Hold(job=job, block=block)
    return None


def update_hold(draft: Draft, usage: Usage, arrays: "Counter[int]") -> Hold | None:
    """Give the hold to whom it is due, take it from who had it before, and return it.

    `arrays`: how many of each array hold an allocation.
    """
    chosen = _first_with_target(draft, usage, arrays)
    while (hold := current_hold(draft.jobs, draft.now, draft.rules)) is not None:
        if chosen is not None and hold.job.id == chosen.id:
            return hold
        draft.put(replace(hold.job, hold=None))
    return None


def _first_with_target(draft: Draft, usage: Usage, arrays: "Counter[int]") -> Job | None:
    hopeless: set[ResourceRequest] = set()
    for job in draft.jobs.blocked():
        if not held_gpus(job, draft.now, draft.rules):
            return None  # the others wait for less long
        request = job.spec.request
        room = usage.room(job.spec)
        if request in hopeless or (room is not None and request.gpus > room.gpus):
            continue
        if array_is_full(job, arrays):
            continue
        if job.hold is not None and _possible(draft, job.hold):
            return job
        target = outlasting(draft, job)
        if target is None:
            hopeless.add(request)
            continue
        gpus, mask = draft.tables.topology.gpus, gpu_mask(target.gpus)
        hold = Allocation(
            gpus=tuple(gpus[index].uuid for index in target.gpus),
            gpu_indices=target.gpus,
            cpus=target.cpus,
            memory_nodes=memory_nodes(draft.tables.topology, target.cpus),
        )
        draft.note(
            "job.held",
            job,
            f"{job.label} is blocked for long: {gpu_names(mask)} will be kept for it, one after the other",
            gpus=list(target.gpus),
        )
        return draft.put(replace(job, hold=hold))
    return None


def taken_now(draft: Draft, *kept: Block) -> Occupancy:
    """Return who holds what, with `kept` taken too; looked at once while nothing changes."""
    if draft.taken is None:
        draft.taken = occupancy(draft.tables.topology, draft, draft.now, draft.rules)
    return replace(draft.taken, blocks=(*draft.taken.blocks, *kept)) if kept else draft.taken


def outlasting(draft: Draft, job: Job, *kept: Block) -> Plan | None:
    """Return where a waiting job could go soonest: where the fewest jobs have to be outlasted."""
    now = taken_now(draft, *kept)
    gone = tuple(replace(holder, priority=LOWEST, evictable=True) for holder in now.holders)
    answer = plan(draft.tables, replace(now, holders=gone, budgets=()), job.spec.request)
    return answer if isinstance(answer, Plan) else None


def _possible(draft: Draft, target: Allocation) -> bool:
    mask = gpu_mask(target.gpu_indices)
    return not any(block.gpus & mask or block.cpus & target.cpus for block in taken_now(draft).blocks)


def duration_words(seconds: float) -> str:
    """Return a span of time as sentences say it: `1 h 10 min`, `50 s`."""
    hours, rest = divmod(int(seconds), 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else ""]
    return " ".join(part for part in parts if part) or f"{left} s"
