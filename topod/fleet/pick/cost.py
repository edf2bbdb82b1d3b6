"""What a choice costs the fleet, and the order in which choices compare: docs/adr/0008-fleet-decision.md."""

from dataclasses import dataclass

from topod.fleet.pick.groups import Change, change, rank
from topod.fleet.pick.rows import KindRows
from topod.model.plan import Cost, Plan
from topod.model.request import Affinity, ResourceRequest
from topod.preemption.costs import cost_lines

STEP = 4
"""A step of GPU affinity weighs more than all steps of CPU affinity."""
_LINK_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCost:
    """What a plan on one host costs, beside what it costs there: in comparable terms for the whole fleet."""

    cost: Cost
    left: tuple[Change, Change, Change]
    """How the free NVLink, PCIe and NUMA groups of the host change."""
    free_share: float | None
    """With `spread`: the share of the host's GPUs (without GPUs in the request: of its CPUs) free before."""
    free_gpus: int
    """Free on the host before."""
    free_cpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The host and the plan of least cost over the fleet."""

    host: str
    generation: int
    """Of the snapshot that the plan was made on: on a newer one it must be made anew."""
    plan: Plan
    cost: FleetCost


FleetKey = tuple[object, ...]


def free_share(kind: KindRows, row: int, request: ResourceRequest) -> float:
    """Return the share of the host's GPUs, or of its CPUs where none are asked for, that is free."""
    if request.gpus:
        return int(kind.free[row]).bit_count() / kind.tables.count
    return int(kind.free_cpus[row]) / max(kind.tables.cpus.bit_count(), 1)


def choice(kind: KindRows, row: int, plan: Plan, request: ResourceRequest, *, spread: bool) -> Chosen:
    """Return a host's plan with what it costs the fleet."""
    snapshot, free, blocked = kind.snapshots[row], int(kind.free[row]), int(kind.blocked[row])
    stopped = set(plan.victims)
    freed = sum(held.gpus for held in snapshot.holders if held.job in stopped)
    after = (free | freed) & ~blocked & ~sum(1 << i for i in plan.gpus)
    return Chosen(
        host=snapshot.host,
        generation=snapshot.generation,
        plan=plan,
        cost=FleetCost(
            cost=plan.cost,
            left=change(kind.tables, free, after) if plan.gpus else ((), (), ()),
            free_share=free_share(kind, row, request) if spread else None,
            free_gpus=free.bit_count(),
            free_cpus=int(kind.free_cpus[row]),
        ),
    )


def fleet_key(chosen: Chosen, request: ResourceRequest) -> FleetKey:
    """Return a key by which choices for one request compare: less is better, no two hosts tie."""
    fleet, cost = chosen.cost, chosen.cost.cost
    links: tuple[float, ...] = (-(cost.weakest_link << _LINK_BITS | cost.link_sum),)
    share: tuple[float, ...] = () if fleet.free_share is None else (-fleet.free_share,)
    left = share + rank(fleet.left)
    links_first = request.gpus > 1 and request.affinity is not Affinity.ANY
    sign = 1 if fleet.free_share is None else -1
    return (
        cost.victims,
        cost.affinity_steps * STEP + cost.cpu_affinity_steps,
        cost.stranded_gpus,
        cost.work_lost,
        *(links + left if links_first else left + links),
        sign * fleet.free_gpus,
        sign * fleet.free_cpus,
        chosen.host,
    )


def why_better(best: Chosen, other: Chosen, request: ResourceRequest) -> str:
    """Say by which key a choice is better than one on another host, with both values."""
    pairs = zip(_key_names(best, request), fleet_key(best, request), fleet_key(other, request), strict=True)
    key = next(name for name, mine, theirs in pairs if mine != theirs)
    here, there = best.cost, other.cost
    match key:
        case "spread":
            return f"spread: {here.free_gpus} GPUs are free on {best.host}, {there.free_gpus} on {other.host}"
        case "free":
            way = "fuller hosts first" if here.free_share is None else "emptier hosts first"
            mine, theirs = (f"{c.free_gpus} GPUs and {c.free_cpus} CPUs" for c in (here, there))
            return f"{way}: {mine} are free on {best.host}, {theirs} on {other.host}"
        case "left":
            return f"left: {best.host} loses fewer, or smaller, free groups of GPUs by it than {other.host}"
        case "host":
            return "names in their order: as good in all else"
        case _:
            mine, theirs = (
                next(line.value for line in cost_lines(c.cost, request) if line.key == key)
                for c in (here, there)
            )
            return f"{key}: {mine}, instead of {theirs}"


def _key_names(chosen: Chosen, request: ResourceRequest) -> list[str]:
    """Return the name of each value of `fleet_key`."""
    left = ["spread"] * (chosen.cost.free_share is not None) + ["left"] * len(rank(chosen.cost.left))
    links_first = request.gpus > 1 and request.affinity is not Affinity.ANY
    return [
        *("victims", "affinity", "stranded GPUs", "work lost"),
        *(["links", *left] if links_first else [*left, "links"]),
        *("free", "free", "host"),
    ]
