"""How costs of plans compare, and what each cost key says in words."""

from dataclasses import dataclass

from topod.flextopo.tables import MAX_GPUS
from topod.model.plan import Cost, Plan
from topod.model.request import Affinity, ResourceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """One cost key in words, in the order in which keys are compared."""

    key: str
    value: str


def cost_key(cost: Cost, request: ResourceRequest) -> tuple[object, ...]:
    """Return a key by which costs of plans for one request compare as the contract says: less is better."""
    return tuple(value for _, value in cost_values(cost, request))


def cost_values(cost: Cost, request: ResourceRequest) -> list[tuple[str, tuple[tuple[int, ...], ...]]]:
    """Return the cost keys with their names, in the order in which they are compared."""
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
    return tuple(CostLine(key=key, value=_words(cost, key)) for key, _ in cost_values(cost, request))


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


def difference(plan: Plan, other: Plan, request: ResourceRequest) -> str:
    """Say by which key `plan` is better than `other`, with both values."""
    for (key, mine), (_, theirs) in zip(
        cost_values(plan.cost, request), cost_values(other.cost, request), strict=True
    ):
        if mine != theirs:
            here, there = _words(plan.cost, key), _words(other.cost, key)
            if here == there:  # rounded away
                return f"{key}: less by {other.cost.work_lost - plan.cost.work_lost} GPU-milliseconds"
            return f"{key}: {here}, instead of {there}"
    return "order of the victims: those named first are stopped"
