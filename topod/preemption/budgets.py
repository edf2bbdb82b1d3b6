"""Disruption budgets: the plan of least cost that stops no more of each service than it can spare. Exact.

A budget that can spare nobody makes its holders no victims at all. For the others the search runs as if there
were none, and only an answer that breaks one leads to further searches: best first, each with some holders
ruled out.

Why the first answer that keeps all budgets is the best: an answer to fewer rules costs no more than one to
all of them. Say it stops `a, b, c` of a budget that can spare two. A plan that keeps the budget spares `a`,
or stops `a` and spares `b`, or stops both and spares everyone else of it: one search for each looks at all
such plans and maybe at more. So the cheapest answer at hand never costs more than any plan still to be found.
Costs compare by all their keys, then by the order of the victims: ties end as they would without budgets.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from operator import ge
from typing import Final

from topod.flextopo.tables import TopologyTables
from topod.model.occupancy import Budget, Holder, Occupancy
from topod.model.plan import Plan
from topod.model.request import ResourceRequest
from topod.preemption.costs import cost_key
from topod.preemption.victims import State, read_state

SEARCHES: Final = 200
"""After so many searches it is given up. Only where many jobs without GPUs are counted are there several."""

Search = Callable[[Occupancy], Plan | None]
"""The plan of least cost for an occupancy, further victims chosen as if it had no budgets."""


def spare_nobody(occupancy: Occupancy) -> Occupancy:
    """Return the occupancy with nobody evictable who counts in a budget that cannot spare one."""
    full = {budget.name: budget.reason or budget.name for budget in occupancy.budgets if budget.stops <= 0}
    if not full:
        return occupancy
    holders = []
    for holder in occupancy.holders:
        why = ", ".join(full[name] for name in holder.budgets if name in full)
        if why and holder.evictable:
            holders.append(replace(holder, evictable=False, protection=why))
        elif why:
            holders.append(replace(holder, protection=f"{holder.protection or 'not preemptible'}, {why}"))
        else:
            holders.append(holder)
    left = tuple(budget for budget in occupancy.budgets if budget.stops > 0)
    return replace(occupancy, holders=tuple(holders), budgets=left)


def protect_all(occupancy: Occupancy) -> Occupancy:
    """Return the occupancy with nobody evictable."""
    return replace(
        occupancy,
        holders=tuple(replace(holder, evictable=False) for holder in occupancy.holders),
        budgets=(),
    )


def broken(occupancy: Occupancy, victims: Iterable[str]) -> list[Budget]:
    """Return the budgets that a plan with these victims breaks."""
    stopped = set(victims)
    counts = {budget.name: 0 for budget in occupancy.budgets}
    for holder in occupancy.holders:
        if holder.job in stopped:
            for name in holder.budgets:
                if name in counts:
                    counts[name] += 1
    return [budget for budget in occupancy.budgets if counts[budget.name] > budget.stops]


def breaks(occupancy: Occupancy, victims: Iterable[str]) -> str:
    """Say which budgets a plan with these victims breaks; empty for none."""
    return "; ".join(budget.reason or f"budget {budget.name}" for budget in broken(occupancy, victims))


class Order:
    """Who must be a victim before whom, in any plan of least cost. All by place in the occupancy.

    `a` comes before `b` when neither holds GPUs, `a` frees as many CPUs everywhere, counts in no further
    budget and is cheaper (of equals: comes first). A plan that stops `b` and not `a` is not the best, for it
    could stop `a` instead. Without this, many small replicas would be tried in all combinations.
    """

    __slots__ = ("after", "before")

    def __init__(self, tables: TopologyTables, state: State) -> None:
        atoms = [tables.cpus]
        for area in (*(domain.cpus for domain in tables.domains), *(socket for _, socket in tables.kinds)):
            atoms = [part for atom in atoms for part in (atom & area, atom & ~area) if part]
        small = [
            (
                candidate.index,
                tuple([(candidate.cpus & atom).bit_count() for atom in atoms]),
                frozenset(candidate.holder.budgets),
                (candidate.holder.priority, *_lesser_keys(candidate.holder), candidate.index),
            )
            for candidate in state.candidates
            if not candidate.holder.gpus
        ]
        self.before: dict[int, int] = {}
        self.after: dict[int, int] = {}
        for a, a_gives, a_budgets, a_rank in small:
            for b, b_gives, b_budgets, b_rank in small:
                if a_rank < b_rank and a_budgets <= b_budgets and all(map(ge, a_gives, b_gives)):
                    self.before[b] = self.before.get(b, 0) | 1 << a
                    self.after[a] = self.after.get(a, 0) | 1 << b

    def with_before(self, place: int) -> int:
        """Return (as a mask) `place` and who is a victim if it is."""
        return 1 << place | self.before.get(place, 0)

    def with_after(self, place: int) -> int:
        """Return (as a mask) `place` and who is no victim if it is none."""
        return 1 << place | self.after.get(place, 0)


@dataclass(frozen=True, slots=True, order=True)
class _Node:
    """A search already made: ordered by the cost of its plan, then by the order of its victims."""

    key: tuple[object, ...]
    out: int = field(compare=False)
    """Holders (a mask by place) ruled out as victims."""
    taken: int = field(compare=False)
    """Holders that the plans looked for all stop: what is left of their budgets follows from it."""
    plan: Plan = field(compare=False)


def _lesser_keys(holder: Holder) -> tuple[int, int, int]:
    """Return what a holder without GPUs adds to the cost keys within its level."""
    return holder.stops, holder.elsewhere, holder.work


class TooManyError(Exception):
    """The search was given up: the budgets can be kept in too many ways."""


class _Keeper:
    """One search for a plan that keeps all budgets. Sets of holders are masks by place."""

    def __init__(self, tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest) -> None:
        state = read_state(tables, occupancy, request.priority)
        self._occupancy = occupancy
        self._order = Order(tables, state)
        self._stops = [
            (sum(1 << i for i, h in enumerate(occupancy.holders) if budget.name in h.budgets), budget.stops)
            for budget in occupancy.budgets
        ]
        self._members = dict(zip((budget.name for budget in occupancy.budgets), self._stops, strict=True))
        self._lacking = (request.cpus if isinstance(request.cpus, int) else 0) - state.pool.bit_count()
        gives = [(candidate.cpus.bit_count(), 1 << candidate.index) for candidate in state.candidates]
        self._gives = sorted(gives, reverse=True)

    def hopeless(self, out: int) -> bool:
        """Say whether the CPUs are short even if each budget spares those who give the most."""
        lacking = self._lacking
        if lacking <= 0:
            return False
        left = [stops for _, stops in self._stops]
        for gives, bit in self._gives:
            if out & bit:
                continue
            # Who counts in several budgets is counted in the first only: that promises no less.
            at = next((at for at, (members, _) in enumerate(self._stops) if members & bit), None)
            if at is not None:
                if not left[at]:
                    continue
                left[at] -= 1
            lacking -= gives
            if lacking <= 0:
                return False
        return True

    def branches(self, node: _Node, over: Budget, stopped: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield (ruled out, taken) of searches that look at every plan of the node that keeps `over`.

        Left out are only plans that cannot be the best: see `Order`.
        """
        members, stops = self._members[over.name]
        out, taken = node.out, node.taken
        for place in stopped:
            if not members >> place & 1 or taken >> place & 1:
                continue
            without = out | self._order.with_after(place)
            if not without & taken:
                yield without, taken
            taken |= self._order.with_before(place)
            for mine, most in self._stops:
                if (mine & taken).bit_count() > most:
                    return  # it cannot be a victim
                if (mine & taken).bit_count() == most:
                    out |= mine & ~taken
            if out & taken:
                return
            if (members & taken).bit_count() == stops:
                yield out, taken
                return


def keep_budgets(
    tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest, search: Search
) -> Plan | None:
    """Return the plan of least cost that keeps every budget; None where there is none.

    Raises `TooManyError` after `SEARCHES` searches.
    """
    keeper = _Keeper(tables, occupancy, request)
    places = {holder.job: place for place, holder in enumerate(occupancy.holders)}
    heap: list[_Node] = []
    answers: dict[int, Plan | None] = {}
    seen: set[tuple[int, int]] = set()

    def look(out: int, taken: int) -> None:
        if (out, taken) in seen:
            return
        seen.add((out, taken))
        if out not in answers:
            if len(answers) >= SEARCHES:
                raise TooManyError
            answers[out] = None if keeper.hopeless(out) else search(_without(occupancy, out))
        if (found := answers[out]) is not None:
            victims = tuple(places[name] for name in found.victims)
            heappush(heap, _Node((cost_key(found.cost, request), victims), out, taken, found))

    look(0, 0)
    while heap:
        node = heappop(heap)
        over = broken(occupancy, node.plan.victims)
        if not over:
            return node.plan
        for out, taken in keeper.branches(node, over[0], [places[name] for name in node.plan.victims]):
            look(out, taken)
    return None


def _without(occupancy: Occupancy, out: int) -> Occupancy:
    if not out:
        return occupancy
    return replace(
        occupancy,
        holders=tuple(
            replace(holder, evictable=False) if out >> place & 1 else holder
            for place, holder in enumerate(occupancy.holders)
        ),
    )
