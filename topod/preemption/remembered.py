"""Answers of the planner that are asked for again and again while nothing they follow from has changed.

Rule: remembered is only what the planner would say again to the letter. A plan is not: its cost grows with
the work that its victims do. A refusal follows from who holds what under which protection, never from that
work; what is left aside are refusals that name the cheapest plan which is not allowed (budgets, patience).
"""

from dataclasses import dataclass, field, replace
from typing import Final

from topod.flextopo.tables import TopologyTables
from topod.model.occupancy import Occupancy
from topod.model.plan import Plan, Refusal
from topod.model.request import ResourceRequest
from topod.preemption.search import plan

OCCUPANCIES_MAX: Final = 16
REQUESTS_MAX: Final = 4096
_EMPTY: Final = Occupancy()


@dataclass(slots=True)
class _Answers:
    """What is known of one host."""

    empty: dict[ResourceRequest, Refusal | None] = field(default_factory=dict)
    """Why a host of nobody refuses a request; None: it does not."""
    refused: dict[Occupancy, dict[ResourceRequest, Refusal]] = field(default_factory=dict)
    """By who holds what, all of them without the work that they would lose."""
    last: tuple[Occupancy, dict[ResourceRequest, Refusal]] | None = None
    """The occupancy that was asked about last, as it came, and its part of `refused`."""


def never(tables: TopologyTables, request: ResourceRequest) -> Refusal | None:
    """Return why the host could not do it even if it were empty and healthy; None where it could."""
    known = _of(tables).empty
    if request not in known:
        answer = plan(tables, _EMPTY, request)
        if len(known) >= REQUESTS_MAX:
            known.clear()
        known[request] = answer if isinstance(answer, Refusal) else None
    return known[request]


def plan_again(tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest) -> Plan | Refusal:
    """Return what `plan` returns; quickly, where it refused the same request by the same occupancy."""
    if occupancy.budgets or not occupancy.may_evict:
        return plan(tables, occupancy, request)
    known = _refused(_of(tables), occupancy)
    found = known.get(request)
    if found is not None:
        return found
    answer = plan(tables, occupancy, request)
    if isinstance(answer, Refusal):
        if len(known) >= REQUESTS_MAX:
            known.clear()
        known[request] = answer
    return answer


def _refused(answers: _Answers, occupancy: Occupancy) -> dict[ResourceRequest, Refusal]:
    last = answers.last
    if last is not None and last[0] is occupancy:
        return last[1]
    holders = tuple(replace(holder, work=0) if holder.work else holder for holder in occupancy.holders)
    shape = replace(occupancy, holders=holders)
    known = answers.refused.get(shape)
    if known is None:
        if len(answers.refused) >= OCCUPANCIES_MAX:
            answers.refused.clear()
        known = answers.refused.setdefault(shape, {})
    answers.last = occupancy, known
    return known


def _of(tables: TopologyTables) -> _Answers:
    found = tables.answers
    if not isinstance(found, _Answers):
        found = tables.answers = _Answers()
    return found
