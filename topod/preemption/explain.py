"""Why a plan is the way it is: its victims, its cost key by key, and the best plan it was preferred to."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Occupancy
from topod.model.plan import Plan
from topod.model.request import ResourceRequest
from topod.preemption.budgets import breaks
from topod.preemption.costs import CostLine, cost_key, cost_lines, difference
from topod.preemption.search import plan as find_plan
from topod.preemption.search import plan_without


@dataclass(frozen=True, slots=True, kw_only=True)
class VictimReason:
    """One victim and why it is one."""

    job: str
    priority: int
    why: str
    """For example `holds GPUs 0,1, which the plan takes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A plan's reasons."""

    victims: tuple[VictimReason, ...]
    cost: tuple[CostLine, ...]
    alternative: Plan | None
    """The best rejected plan: without one of the victims; where that cannot be, with other GPUs."""
    decided_by: str
    """The cost key by which the alternative lost, with both values; empty without an alternative."""
    ruled_out: Plan | None = None
    """The cheaper plan that a disruption budget forbids; None where there is none."""
    ruled_out_by: str = ""
    """The budgets that it breaks, in words."""


def explain(
    tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest, plan: Plan
) -> Explanation:
    """Return the reasons of `plan`, which must be the plan for this occupancy and request."""
    alternative = _alternative(tables, occupancy, request, plan)
    ruled_out, why = _ruled_out(tables, occupancy, request, plan)
    return Explanation(
        victims=tuple(_victims(occupancy, plan)),
        cost=cost_lines(plan.cost, request),
        alternative=alternative,
        decided_by=difference(plan, alternative, request) if alternative is not None else "",
        ruled_out=ruled_out,
        ruled_out_by=why,
    )


def _victims(occupancy: Occupancy, plan: Plan) -> Iterator[VictimReason]:
    taken = sum(1 << i for i in plan.gpus)
    for holder in occupancy.holders:
        if holder.job not in plan.victims:
            continue
        gpus, cpus = holder.gpus & taken, CpuSet(holder.cpus.mask & plan.cpus.mask)
        if gpus:
            why = f"holds {_gpu_names(gpus)}, which the plan takes"
        elif cpus:
            why = f"holds CPUs {cpus}, which the plan takes"
        elif holder.stops > 1 and holder.gpus:
            why = "ends with its member on another host, which the job takes"
        else:
            why = f"holds CPUs {holder.cpus}, without which CPUs are short"
        if holder.stops > 1:
            why += f"; in all {holder.stops} containers of it stop"
        yield VictimReason(job=holder.job, priority=holder.priority, why=why)


def _alternative(
    tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest, plan: Plan
) -> Plan | None:
    others = []
    for victim in plan.victims:
        holders = tuple(
            replace(holder, evictable=False) if holder.job == victim else holder
            for holder in occupancy.holders
        )
        others.append(find_plan(tables, replace(occupancy, holders=holders), request))
    found = [other for other in others if isinstance(other, Plan)]
    if not found and plan.gpus:
        other = plan_without(tables, occupancy, request, plan.gpus)
        found = [other] if other is not None else []
    return min(found, key=lambda other: cost_key(other.cost, request), default=None)


def _ruled_out(
    tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest, plan: Plan
) -> tuple[Plan | None, str]:
    """Return the plan that would have been made without disruption budgets, and what it breaks."""
    if not occupancy.budgets:
        return None, ""
    other = find_plan(tables, replace(occupancy, budgets=()), request)
    why = breaks(occupancy, other.victims) if isinstance(other, Plan) else ""
    if not isinstance(other, Plan) or (other.gpus, other.victims) == (plan.gpus, plan.victims):
        return None, ""
    return other, why


def _gpu_names(mask: int) -> str:
    return f"GPU {CpuSet(mask)}" if mask.bit_count() == 1 else f"GPUs {CpuSet(mask)}"
