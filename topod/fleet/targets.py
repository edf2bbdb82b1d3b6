"""What is kept for jobs that wait for room, so that those behind them do not put them off for ever.

Two jobs at most have a target kept: the first in the queue that must wait, against those behind it; and the
one that has waited longest, once that is longer than `hold_after`, against everybody below `hold_below`. A
target stays as it was chosen, while it can be had: were it chosen anew with every job that ends, waiting
could start over. Who can be evicted for the waiting job at once may use it meanwhile. Only the fleet's jobs
are kept off: what a host's own users start there, they start.
"""

from collections.abc import Hashable, Iterable
from dataclasses import replace
from heapq import nsmallest
from typing import Final, NamedTuple

from topod.fleet.board import Kept
from topod.fleet.depending import held_back
from topod.fleet.draft import Draft
from topod.fleet.hosts import HostSnapshot, occupancy_at
from topod.fleet.jobtable import effective_priority
from topod.fleet.promised import free_of, gpu_mask
from topod.fleet.states import FleetJob, Target
from topod.flextopo.tables import TopologyTables
from topod.model.plan import Plan
from topod.model.quotas import Ledger
from topod.model.rules import Rules
from topod.preemption.costs import cost_key
from topod.preemption.search import plan

LOWEST: Final = -(1 << 62)
LOOKED_AT: Final = 16
"""For a target so many hosts are planned on in earnest, those with the most free GPUs. Any one is sound."""


class Keeping(NamedTuple):
    """A job that something is kept for, and that."""

    job: FleetJob
    kept: tuple[Kept, ...]
    from_all: bool
    """Also from those who come before it in the queue."""

    def binds(self, job: FleetJob, now: float, rules: Rules) -> bool:
        """Say whether a job must leave alone what is kept; one in front is not asked unless `from_all`."""
        if job.id == self.job.id or yields_to(job, self.job, now, rules):
            return False
        return not self.from_all or job.priority < max(rules.hold_below, self.job.priority)


def yields_to(job: FleetJob, waiting: FleetJob, now: float, rules: Rules) -> bool:
    """Say whether `job` could be evicted for `waiting` the moment that one can start."""
    return (
        job.spec.preemptible
        and effective_priority(job, rules) < waiting.priority
        and job.spec.min_runtime_seconds == 0
        and not any(budget.label in job.spec.labels for budget in rules.budgets)
        and may_evict_at(waiting) <= now
    )


def may_evict_at(job: FleetJob) -> float:
    """Return from when on others may be stopped for a pending job (epoch seconds; 0: at once)."""
    wait = job.spec.wait_before_preempt_seconds
    return (job.ready_at or 0.0) + wait if wait > 0 else 0.0


def longest(draft: Draft, usage: Ledger) -> Keeping | None:
    """Return what is kept from all for the job that has waited longest, if that is long enough.

    Whom a quota leaves no room waits for that.
    """
    after = draft.rules.hold_after_seconds
    if after <= 0:
        return None
    hopeless: set[Hashable] = set()
    for job in draft.jobs.waits_longest():
        if job.ready_at is None or job.ready_at + after > draft.now:
            return None  # the others wait for less long
        alike = _alike(job)
        room = usage.room(job.spec)
        if held_back(draft, job) is not None:
            continue
        if alike in hopeless or (room is not None and room.gpus < gpus_asked(job)):
            continue
        if (found := keeping(draft, job, from_all=True)) is not None:
            return found
        hopeless.add(alike)
    return None


def gpus_asked(job: FleetJob) -> int:
    """Return how many GPUs a job asks for, on all its hosts together."""
    return job.spec.request.gpus * job.request.hosts


def _alike(job: FleetJob) -> Hashable:
    asked = job.request
    return (asked.spec.request, asked.hosts, asked.select, asked.gpu_model)


def keeping(
    draft: Draft, job: FleetJob, *, from_all: bool = False, other: Keeping | None = None
) -> Keeping | None:
    """Return what is kept for a job, choosing it where that was not done yet; None: nothing can be.

    Nothing of what is kept for `other` is.
    """
    if not _stands(draft, job):
        target = _choose(draft, job)
        if target is None:
            return None
        job = draft.put(replace(job, target=target))
    others = () if other is None or other.job.id == job.id else other.kept
    left = (_less(target, others) for target in job.target)
    reason = f"kept for {job.label}"
    kept = tuple(Kept(target, reason) for target in left if target.gpus or target.cpus)
    return Keeping(job=job, kept=kept, from_all=from_all)


def _less(target: Target, others: Iterable[Kept]) -> Target:
    for entry in others:
        if entry.target.host == target.host:
            gpus, cpus = target.gpus & ~entry.target.gpus, target.cpus - entry.target.cpus
            target = replace(target, gpus=gpus, cpus=cpus)
    return target


def _stands(draft: Draft, job: FleetJob) -> bool:
    """Say whether a job has a target that it could still have."""
    board = draft.show()
    for target in job.target:
        record, host = draft.records.get(target.host), board.host(target.host)
        if record is None or record.closed is not None:
            return False
        if host is None and draft.now - draft.heard_at(target.host) >= draft.terms.lease_seconds:
            return False  # until then it may just have been started anew, or this coordinator was
        if host is not None and any(b.gpus & target.gpus or b.cpus & target.cpus for b in host.blocks):
            return False
    return len(job.target) == job.request.hosts


def _choose(draft: Draft, job: FleetJob) -> tuple[Target, ...] | None:
    """Return where a job could go soonest: where the fewest others have to be outlasted."""
    wanted = job.request.hosts
    found = []
    for host, tables in nsmallest(LOOKED_AT + wanted, _fitting(draft, job), key=lambda h: _hope(job, *h)):
        now = occupancy_at(host, draft.now)
        gone = tuple(replace(holder, priority=LOWEST, evictable=True) for holder in now.holders)
        answer = plan(tables, replace(now, holders=gone, budgets=()), job.spec.request)
        if isinstance(answer, Plan):
            cost = cost_key(answer.cost, job.spec.request)
            found.append(
                (cost, host.host, Target(host=host.host, gpus=gpu_mask(answer.gpus), cpus=answer.cpus))
            )
    if len(found) < wanted:
        return None
    return tuple(target for _, _, target in sorted(found, key=lambda f: f[:2])[:wanted])


def _fitting(draft: Draft, job: FleetJob) -> Iterable[tuple[HostSnapshot, TopologyTables]]:
    board, selector = draft.show(), job.request.selector
    for name in sorted(board.known()):
        host, seen = board.host(name), draft.seen[name]
        if (
            host is not None
            and host.closed is None
            and seen.tables.count >= job.spec.request.gpus
            and selector.takes_kind(seen.tables.topology)
            and selector.takes_host(name, host.labels)
        ):
            yield host, seen.tables


def _hope(job: FleetJob, host: HostSnapshot, tables: TopologyTables) -> tuple[int, int, str]:
    missing = job.spec.request.gpus - free_of(host, tables.all_gpus).bit_count()
    return (max(0, missing), len(host.holders), host.host)
