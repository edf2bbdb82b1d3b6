"""The fleet's decision by brute force: every host's own planner is asked, and whole keys are compared.

Written from `docs/adr/0008-fleet-decision.md`; knows nothing of arrays, bounds or caches.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from operator import neg, sub

from topod.fleet.hosts import HostSnapshot, occupancy_at
from topod.fleet.picking import Room
from topod.flextopo.tables import TopologyTables
from topod.model.occupancy import Budget
from topod.model.plan import Plan, Refusal
from topod.model.request import Affinity, ResourceRequest
from topod.preemption.search import plan

LARGEST = 20


@dataclass(frozen=True)
class Best:
    host: str
    plan: Plan
    key: tuple[object, ...]


def groups(sizes: tuple[int, ...]) -> list[int]:
    """Return how many groups there are of each size, the largest size first."""
    return [sizes.count(size) for size in range(LARGEST, 0, -1)]


def key(
    tables: TopologyTables, snapshot: HostSnapshot, request: ResourceRequest, found: Plan, *, spread: bool
) -> tuple[object, ...]:
    cost = found.cost
    taken_gpus = taken_cpus = blocked = 0
    for holder in snapshot.holders:
        taken_gpus |= holder.gpus
        taken_cpus |= holder.cpus.mask
    for block in snapshot.blocks:
        blocked |= block.gpus
        taken_cpus |= block.cpus.mask
    taken_gpus |= blocked
    free = tables.all_gpus & ~taken_gpus
    free_cpus = (tables.cpus & ~taken_cpus).bit_count()
    after = free
    for holder in snapshot.holders:
        if holder.job in found.victims:
            after |= holder.gpus & ~blocked
    for gpu in found.gpus:
        after &= ~(1 << gpu)
    left: tuple[object, ...] = ()
    if request.gpus:
        before, then = tables.left_profiles(free), tables.left_profiles(after)
        left = tuple(
            tuple(map(neg, map(sub, groups(later), groups(sooner))))
            for sooner, later in zip(before, then, strict=True)
        )
    share: tuple[object, ...] = ()
    if spread and request.gpus:
        share = (-Fraction(free.bit_count(), tables.count),)
    elif spread:
        share = (-Fraction(free_cpus, tables.cpus.bit_count() or 1),)
    links: tuple[object, ...] = ((-cost.weakest_link, -cost.link_sum),)
    whole = share + left
    sign = -1 if spread else 1
    return (
        cost.victims,
        (cost.affinity_steps, cost.cpu_affinity_steps),
        cost.stranded_gpus,
        cost.work_lost,
        *(whole + links if request.affinity is Affinity.ANY or request.gpus <= 1 else links + whole),
        sign * free.bit_count(),
        sign * free_cpus,
        snapshot.host,
    )


def room(hosts: list[tuple[HostSnapshot, TopologyTables]], request: ResourceRequest, now: float) -> Room:
    """Return how many of the hosts need no victim."""
    answers = [
        plan(tables, replace(occupancy_at(snapshot, now), may_evict=False), request)
        for snapshot, tables in hosts
    ]
    return Room(looked=len(hosts), room=sum(isinstance(answer, Plan) for answer in answers))


def best(
    hosts: list[tuple[HostSnapshot, TopologyTables]],
    request: ResourceRequest,
    now: float,
    *,
    spread: bool,
    may_evict: bool = True,
) -> Best | None:
    """Return the best of the hosts, all of which may be chosen."""
    answers = []
    for snapshot, tables in hosts:
        occupancy = replace(occupancy_at(snapshot, now), may_evict=may_evict)
        found = plan(tables, occupancy, request)
        if not isinstance(found, Refusal):
            answers.append(Best(snapshot.host, found, key(tables, snapshot, request, found, spread=spread)))
    return min(answers, key=lambda answer: answer.key, default=None)


def within_budgets(
    hosts: list[tuple[HostSnapshot, TopologyTables]],
    services: dict[tuple[str, str], str],
    least: dict[str, int],
) -> list[tuple[HostSnapshot, TopologyTables]]:
    """Return the hosts with the fleet's disruption budgets, counted by hand.

    `services`: what a holder (host and name) is a running part of; `least` how many of each must run on.
    """
    running = list(services.values())
    spare = {name: max(0, running.count(name) - least[name]) for name in least}
    budgets = tuple(Budget(name=name, stops=stops) for name, stops in spare.items())
    shown = []
    for snapshot, tables in hosts:
        holders = tuple(
            replace(held, budgets=(services[snapshot.host, held.job],))
            if (snapshot.host, held.job) in services
            else held
            for held in snapshot.holders
        )
        shown.append((replace(snapshot, holders=holders, budgets=budgets), tables))
    return shown
