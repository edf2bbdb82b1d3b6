"""The best hosts together by brute force: every choice of hosts with every choice of GPU sets on them.

Written from `docs/adr/0008-fleet-decision.md`. For requests without CPUs, whose victims are exactly those
whose GPUs are taken; a job over several hosts counts once, as a whole.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, product

from tests.oracles.brute_force import Host as Oracle
from topod.fleet.hosts import HeldBy, HostSnapshot, occupancy_at
from topod.model.request import Policy, ResourceRequest

Placed = tuple[HostSnapshot, Oracle, tuple[int, ...]]
"""A host and the GPUs taken there."""
Price = tuple[tuple[tuple[int, int], ...], tuple[int, int], int, int]


def price(placed: Sequence[Placed], request: ResourceRequest, now: float) -> Price:
    """Return cost keys 1 to 4 of a choice: victims by level, steps missed, stranded GPUs, work lost."""
    victims, stranded, work, gangs = Counter[int](), 0, 0, set[int]()
    stopped: list[tuple[HeldBy, int, int]] = []
    for snapshot, _, gpus in placed:
        holders = occupancy_at(snapshot, now).holders
        for held, holder in zip(snapshot.holders, holders, strict=True):
            if any(held.gpus >> i & 1 for i in gpus):
                stopped.append((held, holder.priority, holder.work))
    for held, priority, lost in stopped:
        if held.gang and held.gang in gangs:
            continue
        gangs.add(held.gang)
        victims[priority] += held.stops
        stranded += held.gpus.bit_count() + held.elsewhere
        work += lost
    for snapshot, _, gpus in placed:
        mine = [h for h in snapshot.holders if any(h.gpus >> i & 1 for i in gpus) or h.gang in gangs - {0}]
        stranded -= sum(any(h.gpus >> i & 1 for h in mine) for i in gpus)
    steps = sum(oracle.missed(gpus, request.affinity.value) for _, oracle, gpus in placed)
    return tuple(sorted(victims.items(), reverse=True)), (steps, 0), stranded, work


def sets(
    snapshot: HostSnapshot, oracle: Oracle, request: ResourceRequest, now: float
) -> Iterator[tuple[int, ...]]:
    """Yield the GPU sets that a host could give."""
    fixed = sum(block.gpus for block in snapshot.blocks)
    for holder in occupancy_at(snapshot, now).holders:
        if not holder.evictable or holder.priority >= request.priority:
            fixed |= holder.gpus
    for gpus in combinations(range(oracle.n), request.gpus):
        if any(fixed >> i & 1 for i in gpus):
            continue
        if request.policy is Policy.GUARANTEED and oracle.missed(gpus, request.affinity.value):
            continue
        yield gpus


def best(
    hosts: Sequence[tuple[HostSnapshot, Oracle]], request: ResourceRequest, now: float, wanted: int
) -> Price | None:
    """Return what the best choice costs; None where there is none."""
    found: Price | None = None
    for chosen in combinations(hosts, wanted):
        ways = [[*sets(snapshot, oracle, request, now)] for snapshot, oracle in chosen]
        for way in product(*ways):
            placed = [(s, o, gpus) for (s, o), gpus in zip(chosen, way, strict=True)]
            cost = price(placed, request, now)
            if found is None or cost < found:
                found = cost
    return found
