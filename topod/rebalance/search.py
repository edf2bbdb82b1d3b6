"""The exact search for moves: which jobs restart where so that the goal is reached at the least cost.

What is compared, left to right: how far the goal is missed (the size of the largest group of free GPUs, or
room for the request); restarts at each priority level, the highest first; steps of affinity that best-effort
jobs lose; work lost; links lost; what stays free; the lowest indices, job by job. The outlook tells for GPUs
alone the least cost of going on from every point, so the search goes straight to the best arrangement unless
CPUs or disruption budgets forbid it. Proven by `tests/property/test_rebalance.py` against brute force.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from typing import Final

from topod.flextopo.affinity import steps_below
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.moves import FreeGpus, Goal, Move, MoveCost, Rebalance
from topod.model.occupancy import Holder, Occupancy
from topod.model.request import ResourceRequest
from topod.placement.demand import NO_NEED, CpuNeed, cpu_levels
from topod.rebalance.cpus import CpuParts, Wanted
from topod.rebalance.movers import (
    STEPS,
    Mover,
    Scene,
    cpu_needs,
    cpu_step_of,
    group_relation,
    read_scene,
    restart_cost,
)
from topod.rebalance.outlook import Outlook, TooManyError

POINTS_MOST: Final = 4_000
"""So many points are looked at before the search is cut off; only CPUs and budgets make it look around."""
FEWER: Final = (2, 1)
"""Where arrangements are too many, only so many restarts are looked at."""

Cost = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What one mover does: `gpus` None where a job with GPUs stays, or one without any."""

    gpus: int | None
    moves: bool
    need: CpuNeed = NO_NEED
    cpu_step: int = 0
    """Which of the CPU levels that will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """An arrangement of the first movers."""

    state: int
    paid: Cost
    choices: tuple[_Choice, ...] = ()


_Entry = tuple[Cost, tuple[int, ...], tuple[int, ...], _Point]
"""The least cost of a point, its ranks among those of equal cost, and the point."""
_Key = tuple[int, int, int, tuple[CpuNeed, ...], tuple[tuple[str, int], ...]]
"""Movers settled, state, CPUs left, CPUs needed, stops by budget."""


def rebalance(
    tables: TopologyTables, occupancy: Occupancy, requests: Mapping[str, ResourceRequest], goal: Goal
) -> Rebalance:
    """Return the moves of least cost towards `goal`.

    `requests` gives what each job that may be restarted asks for; a holder without one stays where it is.
    """
    scene = read_scene(tables, occupancy, requests, goal)
    before = _free_gpus(scene, scene.free)
    if _cannot_be_bettered(scene, before):
        return Rebalance(moves=(), before=before, after=before, reached=_reached(goal, before))
    found, proven = _search(scene, occupancy)
    if not proven and found is None and scene.goal.ask is None:
        found = [_Choice(gpus=None, moves=False)] * (len(scene.movers) + len(scene.cpu_movers))
    if found is None:
        return Rebalance(moves=(), before=before, after=before, reached=False, proven=proven)
    return _answer(scene, found, before, proven=proven)


def _search(scene: Scene, occupancy: Occupancy) -> tuple[list[_Choice] | None, bool]:
    """Return what every mover does (None: no way), and whether that is proven to be the best."""
    try:
        return _Search(scene, occupancy, Outlook(scene)).run()
    except TooManyError:
        pass
    for most in FEWER:
        if scene.goal.most is None or most < scene.goal.most:
            bounded = replace(scene, goal=replace(scene.goal, most=most))
            try:
                return _Search(bounded, occupancy, Outlook(bounded)).run()[0], False
            except TooManyError:
                continue
    return None, False


def _cannot_be_bettered(scene: Scene, before: FreeGpus) -> bool:
    if scene.goal.ask is not None:
        return False
    enough = scene.goal.gpus is not None and len(before.group) >= scene.goal.gpus
    return enough or len(before.group) == scene.free.bit_count()


def _reached(goal: Goal, after: FreeGpus) -> bool:
    return goal.gpus is None or len(after.group) >= goal.gpus


class _Search:
    """Best first: the point whose best continuation is cheapest, then the one of lowest indices."""

    def __init__(self, scene: Scene, occupancy: Occupancy, outlook: Outlook) -> None:
        self._scene = scene
        self._outlook = outlook
        self._movers = (*scene.movers, *scene.cpu_movers)
        self._stops = {budget.name: budget.stops for budget in occupancy.budgets}
        self._parts = CpuParts(scene.tables)
        self._sufficient: dict[tuple[int, tuple[CpuNeed, ...], int], bool] = {}
        self._later = [
            sum(_fewest_cpus(scene, mover) for mover in self._movers[depth:])
            for depth in range(len(self._movers) + 1)
        ]
        """By the number of movers settled: the least CPUs that the others hold afterwards."""

    def run(self) -> tuple[list[_Choice] | None, bool]:
        """Return what every mover does (None: no way), and whether that is proven to be the best."""
        start = _Point(state=0, paid=(0, 0, 0))
        heap: list[_Entry] = [((0, 0, 0), (), (), start)]
        seen: set[_Key] = set()
        for _ in range(POINTS_MOST):
            if not heap:
                return None, True
            *_, point = heappop(heap)
            key = self._key(point)
            # What can follow a point depends on its key alone, so the first one of a key is the best.
            if key in seen or not self._allowed(key):
                continue
            seen.add(key)
            if len(point.choices) == len(self._movers):
                return list(point.choices), True
            for floor, after in self._onwards(point):
                heappush(heap, (floor, *_ranks(self._scene, after), after))
        return self._dive(heap), False

    def _dive(self, heap: "list[_Entry]") -> list[_Choice] | None:
        """Return the first way to the end that is found when the points that have come furthest go first."""
        deep = [((-len(point.choices), *floor), gpus, cpus, point) for floor, gpus, cpus, point in heap]
        heapify(deep)
        for _ in range(POINTS_MOST):
            if not deep:
                break
            *_, point = heappop(deep)
            if self._allowed(self._key(point)):
                if len(point.choices) == len(self._movers):
                    return list(point.choices)
                for floor, after in self._onwards(point):
                    key = (-len(after.choices), *floor)
                    heappush(deep, (key, *_ranks(self._scene, after), after))
        return None

    def _onwards(self, point: _Point) -> Iterator[tuple[Cost, _Point]]:
        """Yield what the next mover may do: the least cost by it, and the point after."""
        at = len(point.choices)
        if at >= len(self._scene.movers):
            yield from self._without_gpus(point)
            return
        mover, ways = self._scene.movers[at], self._outlook.ways[at]
        rows, states, least = self._outlook.onwards(at, point.state)
        for row, state, *floor in zip(rows.tolist(), states.tolist(), *least.tolist(), strict=True):
            mask, moves = ways.masks.item(row), bool(ways.moves[row])
            cost = ways.costs[:, row].tolist()
            if not moves and mover.holder is not None:
                choice = _Choice(gpus=mask, moves=False)
                after = _Point(state=state, paid=_sum(point.paid, cost), choices=(*point.choices, choice))
                yield _sum(point.paid, floor), after
                continue
            needs = cpu_needs(self._scene.tables, mover, mask)
            for step, need in needs:
                lost = step - needs[0][0]
                choice = _Choice(gpus=mask, moves=moves, need=need, cpu_step=step)
                paid = _sum(point.paid, (cost[0] + lost, cost[1], cost[2]))
                after = _Point(state=state, paid=paid, choices=(*point.choices, choice))
                yield _sum(point.paid, (floor[0] + lost, floor[1], floor[2])), after

    def _without_gpus(self, point: _Point) -> Iterator[tuple[Cost, _Point]]:
        mover = self._movers[len(point.choices)]
        ends = self._outlook.layers[-1]
        last = tuple(ends.least[:, ends.states.searchsorted(point.state)].tolist())
        stays = replace(point, choices=(*point.choices, _Choice(gpus=None, moves=False)))
        yield _sum(point.paid, last), stays
        if self._scene.goal.most is not None and self._restarts(point) >= self._scene.goal.most:
            return
        paid = _sum(point.paid, restart_cost(mover))
        # Without a GPU there is one level only.
        step, need = cpu_needs(self._scene.tables, mover, 0)[0]
        choice = _Choice(gpus=None, moves=True, need=need, cpu_step=step)
        after = _Point(state=point.state, paid=paid, choices=(*point.choices, choice))
        yield _sum(paid, last), after

    @staticmethod
    def _restarts(point: _Point) -> int:
        return sum(choice.moves for choice in point.choices)

    def _key(self, point: _Point) -> "_Key":
        """Return what decides how a point can go on: GPUs taken, CPUs left, CPUs needed, stops by budget."""
        pool, needs, stops = self._scene.pool, [], Counter[str]()
        for mover, choice in zip(self._movers, point.choices, strict=False):
            if choice.moves or mover.holder is None:
                if choice.need.total:
                    needs.append(choice.need)
                stops.update(mover.holder.budgets if mover.holder is not None else ())
            else:
                pool &= ~mover.holder.cpus.mask
        depth = len(point.choices)
        return depth, point.state, pool, tuple(sorted(needs, key=repr)), tuple(sorted(stops.items()))

    def _allowed(self, key: "_Key") -> bool:
        """Say whether budgets and CPUs allow what has been settled so far."""
        depth, _, pool, needs, stops = key
        if any(count > self._stops.get(name, count) for name, count in stops):
            return False
        # Those not settled yet need CPUs too, wherever they will be.
        asked = (pool, needs, self._later[depth])
        if asked not in self._sufficient:
            later = CpuNeed(total=asked[2], fixed=((self._scene.tables.cpus, asked[2]),))
            self._sufficient[asked] = self._parts.suffice(pool, (*needs, later))
        return self._sufficient[asked]


def _fewest_cpus(scene: Scene, mover: Mover) -> int:
    """Return how many CPUs a mover holds afterwards at least."""
    counts = []
    if mover.holder is not None:
        counts.append(len(mover.holder.cpus))
    if isinstance(mover.request.cpus, int):
        counts.append(mover.request.cpus)
    else:
        shares = [domain.share for domain in scene.tables.domains] or [0]
        homeless = any(place.domain is None for place in scene.tables.places)
        counts.append(0 if homeless else min(shares) * mover.request.gpus)
    return min(counts)


def _ranks(scene: Scene, point: _Point) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return how points of equal cost are ordered: lowest GPUs first, job by job; then what they do."""
    gpus = (
        int(choice.moves) if choice.gpus is None else -int(scene.tables.reversed[choice.gpus])
        for choice in point.choices
    )
    return tuple(gpus), tuple(choice.moves * STEPS + choice.cpu_step for choice in point.choices)


def _sum(left: Cost, right: "tuple[int, ...] | list[int]") -> Cost:
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]


# --- the answer -------------------------------------------------------------------------------------------


def _answer(scene: Scene, choices: list[_Choice], before: FreeGpus, *, proven: bool) -> Rebalance:
    tables, goal = scene.tables, scene.goal
    movers = (*scene.movers, *scene.cpu_movers)
    pool, free = scene.pool, scene.usable
    active: list[tuple[Mover, _Choice]] = []
    for mover, choice in zip(movers, choices, strict=True):
        if choice.moves or mover.holder is None:
            active.append((mover, choice))
            free &= ~(choice.gpus or 0)
        else:
            pool &= ~mover.holder.cpus.mask
            free &= ~mover.gpus
    cpus = CpuParts(tables).assign(pool, [_wanted(mover, choice) for mover, choice in active])
    moves: list[Move] = []
    ask_gpus: tuple[int, ...] = ()
    ask_cpus = CpuSet()
    for (mover, choice), mask in zip(active, cpus, strict=True):
        if mover.holder is None:
            ask_gpus, ask_cpus = _indices(choice.gpus or 0), CpuSet(mask)
        else:
            moves.append(_move(tables, mover, mover.holder, choice, mask))
    after = _free_gpus(scene, free)
    return Rebalance(
        moves=tuple(moves),
        before=before,
        after=after,
        cost=_cost(scene, active),
        reached=True if goal.ask is not None else _reached(goal, after),
        proven=proven,
        ask_gpus=ask_gpus,
        ask_cpus=ask_cpus,
    )


def _wanted(mover: Mover, choice: _Choice) -> Wanted:
    level = cpu_levels(mover.request)[choice.cpu_step]
    return Wanted(gpus=choice.gpus or 0, need=choice.need, level=level)


def _move(tables: TopologyTables, mover: Mover, holder: Holder, choice: _Choice, cpus: int) -> Move:
    request, gpus = mover.request, choice.gpus or 0
    return Move(
        job=holder.job,
        priority=holder.priority,
        gpus_before=_indices(holder.gpus),
        gpus=_indices(gpus),
        cpus_before=holder.cpus,
        cpus=CpuSet(cpus),
        affinity=steps_below(request.affinity)[int(tables.steps(request.affinity)[gpus])],
        cpu_affinity=cpu_levels(request)[cpu_step_of(tables, request, gpus, cpus)],
        work=holder.work,
    )


def _cost(scene: Scene, active: list[tuple[Mover, _Choice]]) -> MoveCost:
    tables = scene.tables
    restarts: Counter[int] = Counter()
    affinity = cpu_affinity = work = links = 0
    for mover, choice in active:
        if mover.holder is not None:
            restarts[mover.holder.priority] += 1
            work += mover.holder.work
        steps, gpus = tables.steps(mover.request.affinity), choice.gpus or 0
        affinity += max(0, int(steps[gpus]) - int(steps[mover.gpus]))
        cpu_affinity += max(0, choice.cpu_step - mover.cpu_step)
        links += tables.link_quality(mover.gpus)[1] - tables.link_quality(gpus)[1]
    return MoveCost(
        restarts=tuple(sorted(restarts.items(), reverse=True)),
        affinity_lost=affinity,
        cpu_affinity_lost=cpu_affinity,
        work_lost=work,
        links_lost=links,
    )


def _free_gpus(scene: Scene, free: int) -> FreeGpus:
    tables = scene.tables
    group = int(tables.parts(group_relation(scene.goal))[free])
    return FreeGpus(gpus=_indices(free), group=_indices(group), left=tables.left_profiles(free))


def _indices(mask: int) -> tuple[int, ...]:
    return tuple(CpuSet(mask))
