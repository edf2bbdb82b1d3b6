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

from topod.model.occupancy import Budget, Occupancy
from topod.model.plan import Plan
from topod.model.request import ResourceRequest
from topod.preemption.costs import cost_key

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


@dataclass(frozen=True, slots=True, order=True)
class _Node:
    """A search already made: ordered by the cost of its plan, then by the order of its victims."""

    key: tuple[object, ...]
    out: frozenset[int] = field(compare=False)
    """Holders (by place) ruled out as victims."""
    taken: frozenset[int] = field(compare=False)
    """Holders that the plans looked for all stop: what is left of their budgets follows from it."""
    plan: Plan = field(compare=False)


def keep_budgets(occupancy: Occupancy, request: ResourceRequest, search: Search) -> Plan | None:
    """Return the plan of least cost that keeps every budget; None where there is none."""
    places = {holder.job: place for place, holder in enumerate(occupancy.holders)}
    members = {
        budget.name: frozenset(i for i, h in enumerate(occupancy.holders) if budget.name in h.budgets)
        for budget in occupancy.budgets
    }
    heap: list[_Node] = []
    answers: dict[frozenset[int], Plan | None] = {}
    seen: set[tuple[frozenset[int], frozenset[int]]] = set()

    def look(out: frozenset[int], taken: frozenset[int]) -> None:
        if (out, taken) in seen:
            return
        seen.add((out, taken))
        if out not in answers:
            answers[out] = search(_without(occupancy, out))
        if (found := answers[out]) is not None:
            order = tuple(places[name] for name in found.victims)
            heappush(heap, _Node((cost_key(found.cost, request), order), out, taken, found))

    look(frozenset(), frozenset())
    while heap:
        node = heappop(heap)
        over = broken(occupancy, node.plan.victims)
        if not over:
            return node.plan
        stopped = [places[name] for name in node.plan.victims]
        for out, taken in _branches(occupancy.budgets, members, over[0], stopped, node):
            look(out, taken)
    return None


def _branches(
    budgets: Sequence[Budget],
    members: dict[str, frozenset[int]],
    over: Budget,
    stopped: Sequence[int],
    node: _Node,
) -> Iterator[tuple[frozenset[int], frozenset[int]]]:
    """Yield (ruled out, taken) of searches that together look at every plan of the node that keeps `over`."""
    out, taken = node.out, node.taken
    for place in stopped:
        if place not in members[over.name] or place in taken:
            continue
        yield out | {place}, taken
        if place in out:  # a budget is full without it: it cannot be taken
            return
        taken |= {place}
        for budget in budgets:
            mine = members[budget.name]
            if len(mine & taken) >= budget.stops:
                out |= mine - taken
        if len(members[over.name] & taken) >= over.stops:
            yield out, taken
            return


def _without(occupancy: Occupancy, out: frozenset[int]) -> Occupancy:
    if not out:
        return occupancy
    return replace(
        occupancy,
        holders=tuple(
            replace(holder, evictable=False) if place in out else holder
            for place, holder in enumerate(occupancy.holders)
        ),
    )
