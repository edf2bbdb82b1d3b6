"""The reference of rebalance: tries every subset of movable jobs with every way to place them again.

It shares nothing with the search but the model's values and the reference of the planner.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from tests.oracles.brute_force import CPU_LADDER, Host
from topod.model.moves import Goal
from topod.model.occupancy import Holder, Occupancy
from topod.model.request import ResourceRequest


@dataclass(frozen=True)
class Best:
    missed: int
    restarts: tuple[tuple[int, int], ...]
    lost: tuple[int, int]
    work: int
    links: int
    left: tuple[tuple[int, ...], ...]
    places: tuple[tuple[str, tuple[int, ...]], ...]
    """Where the moved jobs go."""
    ask: tuple[int, ...]


def indices(mask: int) -> tuple[int, ...]:
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)


def links(host: Host, gpus: tuple[int, ...]) -> int:
    return sum(host.score(a, b) for a, b in combinations(gpus, 2))


def levels(request: ResourceRequest) -> list[str]:
    found = CPU_LADDER[CPU_LADDER.index(request.cpu_affinity.value) :]
    return found[:1] if request.policy.value == "guaranteed" or request.gpus == 0 else found


def cpu_step(host: Host, holder: Holder, request: ResourceRequest) -> int:
    names = levels(request)
    gpus = indices(holder.gpus)
    fits = (i for i, name in enumerate(names) if host.cpus_fit(gpus, set(holder.cpus), request, name))
    return next(fits, len(names) - 1)


def ways_to_take(classes: Sequence[list[int]], count: int) -> Iterator[set[int]]:
    """Yield sets of `count` CPUs, one for each way to share them out over classes of equal CPUs."""
    if not classes:
        if count == 0:
            yield set()
        return
    first, rest = classes[0], classes[1:]
    for n in range(min(count, len(first)) + 1):
        for others in ways_to_take(rest, count - n):
            yield set(first[:n]) | others


def cpus_together(
    host: Host, jobs: Sequence[tuple[tuple[int, ...], ResourceRequest, str]], pool: set[int]
) -> bool:
    """Say whether all jobs find their CPUs at once."""
    if not jobs:
        return True
    gpus, request, level = jobs[0]
    count = sum(host.share(i) for i in gpus) if request.cpus == "auto" else int(request.cpus)
    areas = [area for area in {*host.domain, *host.socket} if area]
    classes: dict[tuple[bool, ...], list[int]] = {}
    for cpu in sorted(pool):
        classes.setdefault(tuple(cpu in area for area in areas), []).append(cpu)
    return any(
        host.cpus_fit(gpus, taken, request, level) and cpus_together(host, jobs[1:], pool - taken)
        for taken in ways_to_take(list(classes.values()), count)
    )


def place(
    host: Host, jobs: Sequence[tuple[int, ResourceRequest]], free: frozenset[int]
) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Yield every way to give the jobs GPUs of `free` that will do for each."""
    if not jobs:
        yield ()
        return
    _, request = jobs[0]
    for gpus in combinations(sorted(free), request.gpus):
        if request.policy.value == "guaranteed" and host.missed(gpus, request.affinity.value):
            continue
        for others in place(host, jobs[1:], free - set(gpus)):
            yield (gpus, *others)


def largest(host: Host, free: tuple[int, ...], level: str) -> int:
    return max(
        size
        for size in range(len(free) + 1)
        if any(host.satisfies(s, level) for s in combinations(free, size))
    )


def best(  # noqa: C901 - one plain nest of loops is easier to trust than helpers
    host: Host, occupancy: Occupancy, requests: Mapping[str, ResourceRequest], goal: Goal
) -> Best | None:
    """Return the moves of least cost; None where there is no room for `goal.ask` whatever moves."""
    holders = occupancy.holders
    blocked = {i for block in occupancy.blocks for i in indices(block.gpus)}
    no_cpus = {c for block in occupancy.blocks for c in block.cpus}
    movable = [
        i
        for i, h in enumerate(holders)
        if h.evictable
        and h.priority < goal.below
        and h.job in requests
        and requests[h.job].gpus == h.gpus.bit_count()
        and not set(indices(h.gpus)) & blocked
    ]
    prios = sorted({h.priority for h in holders}, reverse=True)
    stops = {budget.name: budget.stops for budget in occupancy.budgets}
    found: tuple[tuple[object, ...], Best] | None = None
    for size in range(len(movable) + 1 if goal.most is None else min(goal.most, len(movable)) + 1):
        for moved in combinations(movable, size):
            named = Counter(name for i in moved for name in holders[i].budgets)
            if any(named[name] > stops.get(name, named[name]) for name in named):
                continue
            kept = [h for i, h in enumerate(holders) if i not in moved]
            held = {g for h in kept for g in indices(h.gpus)}
            free = frozenset(range(host.n)) - blocked - held
            pool = host.cpus - no_cpus - {c for h in kept for c in h.cpus}
            jobs = [(i, requests[holders[i].job]) for i in moved]
            if goal.ask is not None:
                jobs.append((-1, goal.ask))
            key1 = tuple(sum(holders[i].priority == p for i in moved) for p in prios)
            work = sum(holders[i].work for i in moved)
            for places in place(host, jobs, free):
                rest = tuple(sorted(free - {g for gpus in places for g in gpus}))
                missed = 0
                if goal.ask is None:
                    wanted = host.n if goal.gpus is None else goal.gpus
                    missed = max(0, wanted - largest(host, rest, goal.affinity.value))
                affinity = sum(
                    max(
                        0,
                        host.missed(gpus, r.affinity.value)
                        - (host.missed(indices(holders[i].gpus), r.affinity.value) if i >= 0 else 0),
                    )
                    for (i, r), gpus in zip(jobs, places, strict=True)
                )
                if found is not None and (missed, key1, affinity) > found[0][:3]:
                    continue
                cpu_lost = None
                had = [cpu_step(host, holders[i], r) if i >= 0 else 0 for i, r in jobs]
                choices = product(*(range(len(levels(r))) for _, r in jobs))
                priced = sorted(
                    (sum(max(0, step - h) for step, h in zip(steps, had, strict=True)), steps)
                    for steps in choices
                )
                for lost, steps in priced:
                    asked = [
                        (gpus, r, levels(r)[step])
                        for (_, r), gpus, step in zip(jobs, places, steps, strict=True)
                    ]
                    if cpus_together(host, asked, pool):
                        cpu_lost = lost
                        break
                if cpu_lost is None:
                    continue
                lost_links = sum(
                    (links(host, indices(holders[i].gpus)) if i >= 0 else 0) - links(host, gpus)
                    for (i, _), gpus in zip(jobs, places, strict=True)
                )
                left = tuple(host.profile(rest, relation) for relation in ("nvlink", "pcie", "numa"))
                left_key = tuple(-x for sizes in left for x in sizes + (0,) * (host.n - len(sizes)))
                now = dict(zip([i for i, _ in jobs], places, strict=True))
                order = tuple(now.get(i, indices(holders[i].gpus)) for i in movable if holders[i].gpus)
                ask = now.get(-1, ())
                flags = tuple(i in moved for i in sorted(movable, key=lambda i: (holders[i].gpus != 0, i)))
                key = (missed, key1, affinity, cpu_lost, work, lost_links, left_key, ask, order, flags)
                if found is None or key < found[0]:
                    found = (
                        key,
                        Best(
                            missed=missed,
                            restarts=tuple((p, n) for p, n in zip(prios, key1, strict=True) if n),
                            lost=(affinity, cpu_lost),
                            work=work,
                            links=lost_links,
                            left=left,
                            places=tuple((holders[i].job, now[i]) for i in moved),
                            ask=ask,
                        ),
                    )
    return None if found is None else found[1]
