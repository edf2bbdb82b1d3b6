"""Why a plan is the way it is: its victims, its cost key by key, and the best plan it was preferred to."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from topod.flextopo.tables import MAX_GPUS, TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Occupancy
from topod.model.plan import Cost, Plan
from topod.model.request import Affinity, ResourceRequest
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
class CostLine:
    """One cost key in words, in the order in which keys are compared."""

    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A plan's reasons."""

    victims: tuple[VictimReason, ...]
    cost: tuple[CostLine, ...]
    alternative: Plan | None
    """The best rejected plan: without one of the victims; where that cannot be, with other GPUs."""
    decided_by: str
    """The cost key by which the alternative lost, with both values; empty without an alternative."""


def explain(
    tables: TopologyTables, occupancy: Occupancy, request: ResourceRequest, plan: Plan
) -> Explanation:
    """Return the reasons of `plan`, which must be the plan for this occupancy and request."""
    alternative = _alternative(tables, occupancy, request, plan)
    return Explanation(
        victims=tuple(_victims(occupancy, plan)),
        cost=cost_lines(plan.cost, request),
        alternative=alternative,
        decided_by=_difference(plan, alternative, request) if alternative is not None else "",
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
        else:
            why = f"holds CPUs {holder.cpus}, without which CPUs are short"
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


def cost_key(cost: Cost, request: ResourceRequest) -> tuple[object, ...]:
    """Return a key by which costs of plans for one request compare as the contract says: less is better."""
    return tuple(value for _, value in _keys(cost, request))


def _keys(cost: Cost, request: ResourceRequest) -> list[tuple[str, tuple[tuple[int, ...], ...]]]:
    left = tuple(tuple(-size for size in (*sizes, *(0,) * (MAX_GPUS - len(sizes)))) for sizes in cost.left)
    last = [("links", ((-cost.weakest_link, -cost.link_sum),)), ("left", left)]
    if request.affinity is Affinity.ANY or request.gpus == 1:
        last.reverse()
    return [
        ("victims", cost.victims),
        ("affinity", ((cost.affinity_steps, cost.cpu_affinity_steps),)),
        ("stranded GPUs", ((cost.stranded_gpus,),)),
        ("work lost", ((cost.work_lost,),)),
        *last,
        ("indices", (cost.gpus,)),
    ]


def cost_lines(cost: Cost, request: ResourceRequest) -> tuple[CostLine, ...]:
    """Return the cost key by key in words."""
    return tuple(CostLine(key=key, value=_words(cost, key)) for key, _ in _keys(cost, request))


def _words(cost: Cost, key: str) -> str:
    levels = [f"{count} of priority {priority}" for priority, count in cost.victims]
    gpus, cpus = cost.affinity_steps, cost.cpu_affinity_steps
    groups = [
        f"{name} {'+'.join(map(str, sizes)) or '0'}"
        for name, sizes in zip(("NVLink", "PCIe", "NUMA"), cost.left, strict=True)
    ]
    pairs = f"weakest pair {cost.weakest_link}, sum {cost.link_sum}" if len(cost.gpus) > 1 else "no pair"
    return {
        "victims": ", ".join(levels) or "none",
        "affinity": f"GPUs {gpus}, CPUs {cpus} steps below what was asked" if gpus or cpus else "as asked",
        "stranded GPUs": f"{cost.stranded_gpus} that victims lose and nobody takes",
        "work lost": f"{cost.work_lost / 1000:.0f} GPU-seconds",
        "links": pairs,
        "left": f"groups that stay whole: {', '.join(groups)}",
        "indices": f"GPUs {','.join(map(str, cost.gpus))}" if cost.gpus else "no GPUs",
    }[key]


def _difference(plan: Plan, other: Plan, request: ResourceRequest) -> str:
    for (key, mine), (_, theirs) in zip(_keys(plan.cost, request), _keys(other.cost, request), strict=True):
        if mine != theirs:
            return f"{key}: {_words(plan.cost, key)}, instead of {_words(other.cost, key)}"
    return "order of the victims: those named first are stopped"


def _gpu_names(mask: int) -> str:
    return f"GPU {CpuSet(mask)}" if mask.bit_count() == 1 else f"GPUs {CpuSet(mask)}"
