"""Plans as plain data and as sentences, for the record of a job and for people."""

from collections.abc import Iterable, Mapping
from typing import Any

from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Occupancy
from topod.model.plan import Cost, Plan
from topod.model.request import ResourceRequest
from topod.preemption.costs import CostLine, cost_lines
from topod.preemption.explain import explain


def cost_data(cost: Cost) -> dict[str, Any]:
    """Return the cost keys by name, in the order in which they are compared."""
    return {
        "victims": [list(level) for level in cost.victims],
        "affinity_steps": cost.affinity_steps,
        "cpu_affinity_steps": cost.cpu_affinity_steps,
        "stranded_gpus": cost.stranded_gpus,
        "work_lost_gpu_seconds": cost.work_lost / 1000,
        "weakest_link": cost.weakest_link,
        "link_sum": cost.link_sum,
        "left": [list(groups) for groups in cost.left],
        "gpus": list(cost.gpus),
    }


def job_name(name: str) -> int | str:
    """Return a job as its number where it has one; host documents may name jobs otherwise."""
    return int(name) if name.isdecimal() else name


def _core_data(plan: Plan) -> dict[str, Any]:
    return {
        "gpus": list(plan.gpus),
        "cpus": str(plan.cpus),
        "victims": [job_name(name) for name in plan.victims],
        "affinity": plan.affinity.value,
        "cpu_affinity": plan.cpu_affinity.value,
        "satisfied": plan.satisfied,
        "cost": cost_data(plan.cost),
    }


def plan_data(
    tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest, plan: Plan
) -> dict[str, Any]:
    """Return a plan with its reasons as plain JSON values.

    `victim_reasons`: why each victim is one; `cost_text`: each cost key in words, in the order compared;
    `alternative`: the best rejected plan, alike, with `cost_text` and `decided_by`; None where there is none;
    `ruled_out`: the cheaper plan that disruption budgets forbid, with `ruled_out_by`; absent without one;
    `idents`: how people name those jobs of the plans that belong to an array; absent without one.
    """
    reasons = explain(tables, occupancy, request, plan)
    data = _core_data(plan)
    data["victim_reasons"] = [
        {"job": job_name(victim.job), "priority": victim.priority, "why": victim.why}
        for victim in reasons.victims
    ]
    data["cost_text"] = _cost_text(reasons.cost)
    data["alternative"] = None
    if reasons.alternative is not None:
        costs = _cost_text(cost_lines(reasons.alternative.cost, request))
        data["alternative"] = {
            **_core_data(reasons.alternative),
            "cost_text": costs,
            "decided_by": reasons.decided_by,
        }
    if reasons.ruled_out is not None:
        data["ruled_out"] = {**_core_data(reasons.ruled_out), "ruled_out_by": reasons.ruled_out_by}
    plans = [found for found in (plan, reasons.alternative, reasons.ruled_out) if found is not None]
    named = {victim for found in plans for victim in found.victims}
    if idents := {
        holder.job: holder.ident for holder in occupancy.holders if holder.ident and holder.job in named
    }:
        data["idents"] = idents
    return data


def _cost_text(lines: Iterable[CostLine]) -> list[dict[str, str]]:
    return [{"key": line.key, "value": line.value} for line in lines]


def plan_text(data: Mapping[str, Any]) -> str:
    """Say in one sentence what a plan does."""
    where = f"GPUs {CpuSet.of(data['gpus'])}" if data["gpus"] else "no GPUs"
    if data["cpus"]:
        where += f", CPUs {data['cpus']}"
    met = "" if data["satisfied"] else " (affinity missed)"
    idents = data.get("idents", {})
    victims = ", ".join(f"job {idents.get(str(victim), victim)}" for victim in data["victims"])
    stops = f", stopping {victims}" if victims else ""
    return f"{where}, affinity {data['affinity']}{met}{stops}"
