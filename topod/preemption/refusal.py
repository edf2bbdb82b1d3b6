"""Why a request cannot be met now, exactly: which limit, which domain, which job.

Rule: a refusal never guesses. Each sentence counts what the search counted.
"""

import numpy as np

from topod.flextopo.affinity import socket_of
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Holder, Occupancy, Room
from topod.model.plan import Plan, Refusal
from topod.model.request import Affinity, CpuAffinity, Policy, ResourceRequest
from topod.placement.demand import CpuNeed, cpu_levels, cpu_need
from topod.preemption.budgets import broken
from topod.preemption.victims import State

_TOGETHER = {
    Affinity.NVLINK_ALL: "all linked by NVLink",
    Affinity.NVLINK: "in one NVLink ring",
    Affinity.PCIE: "below one PCIe root",
    Affinity.NUMA: "on one NUMA node",
    Affinity.SOCKET: "on one socket",
    Affinity.ANY: "",
}


def impossible(tables: TopologyTables, request: ResourceRequest) -> Refusal | None:
    """Return why the host could not do it even if it were empty and healthy; None where that is not so."""
    asked, has = request.gpus, tables.count
    if asked > has:
        return Refusal(reason=f"{_gpus(asked)} asked for, the host has {has}")
    cpus = request.cpus if isinstance(request.cpus, int) else 0
    if cpus and not tables.cpus:
        return Refusal(reason=f"{_cpus(cpus)} asked for, but nothing is known of this host's CPUs")
    if cpus > tables.cpus.bit_count():
        return Refusal(reason=f"{_cpus(cpus)} asked for, the host has {tables.cpus.bit_count()}")
    level = _level(request)
    if not len(tables.family(asked, level, strict=True).masks):
        best = _largest(tables, level, tables.all_gpus, asked)
        return Refusal(
            reason=f"{_wanted(request)}: this host has no such set, the next smaller has {best.bit_count()}",
            details=(f"largest: {gpu_names(best)}",),
        )
    return None


def refuse(tables: TopologyTables, occupancy: Occupancy, state: State, request: ResourceRequest) -> Refusal:
    """Return the refusal of a request for which the search found no plan."""
    never = impossible(tables, request)
    if never is not None:
        return never
    family = tables.family(request.gpus, _level(request), strict=True)
    usable = family.masks & ~state.usable_gpus == 0
    if usable.any():
        mixes = [family.mixes[mix] for mix in np.unique(family.mix[usable]).tolist()]
        return _cpus_short(tables, occupancy, state, request, mixes=mixes)
    return _gpus_short(tables, occupancy, state, request, wanted=_wanted(request))


def refuse_by_quota(room: Room, request: ResourceRequest) -> Refusal:
    """Return the refusal of a request for more GPUs than a quota leaves."""
    left = f"{room.gpus} {'is' if room.gpus == 1 else 'are'} left" if room.gpus > 0 else "none is left"
    return Refusal(reason=f"{room.reason}: {left}, {request.gpus} asked")


def refuse_by_budgets(occupancy: Occupancy, without: Plan, request: ResourceRequest) -> Refusal:
    """Return the refusal of a request that disruption budgets alone forbid.

    `without` is the plan of least cost that does not look at them.
    """
    stopped = set(without.victims)
    parts = []
    for budget in broken(occupancy, without.victims):
        of = [h.called for h in occupancy.holders if budget.name in h.budgets and h.job in stopped]
        reason = budget.reason or f"budget {budget.name}"
        parts.append(f"{reason}, so only {budget.stops} of jobs {', '.join(of)} may be stopped")
    called = [h.called for h in occupancy.holders if h.job in stopped]
    cheapest = f"stops {'jobs' if len(stopped) > 1 else 'job'} {', '.join(called)}"
    return Refusal(
        reason=f"{_wanted(request)}: every plan stops too many of a service: {'; '.join(parts)}",
        details=(f"the cheapest of them {cheapest}",),
    )


def _level(request: ResourceRequest) -> Affinity:
    """Return the affinity that a plan must have."""
    return request.affinity if request.policy is Policy.GUARANTEED else Affinity.ANY


def _wanted(request: ResourceRequest) -> str:
    return " ".join((_gpus(request.gpus), _TOGETHER[_level(request)])).strip()


def _gpus_short(
    tables: TopologyTables, occupancy: Occupancy, state: State, request: ResourceRequest, *, wanted: str
) -> Refusal:
    level = _level(request)
    places = _places(tables, level)
    blockers = _gpu_blockers(occupancy, request, state.usable_gpus, tables.all_gpus)
    if places is None:
        best = _largest(tables, level, state.usable_gpus, request.gpus)
        count = best.bit_count()
        found = f"the largest such set that can be freed has {count}" if count else "none can be freed"
        details = [f"largest that can be freed: {gpu_names(best)}"] if best else []
    else:
        counts = [(name, (mask & state.usable_gpus).bit_count()) for name, mask in places]
        first, *others = [f"{name} has {count}" for name, count in counts]
        found = ", ".join((f"{first} that can be freed", *others))
        details = []
        for name, mask in places:
            why = _gpu_blockers(occupancy, request, state.usable_gpus, mask)
            free, can = (mask & state.free_gpus).bit_count(), (mask & state.usable_gpus).bit_count()
            details.append("; ".join((f"{name}: {free} free, {can - free} more can be freed", *why)))
    reason = f"{wanted}: {found}"
    return Refusal(reason=f"{reason}: {', '.join(blockers)}" if blockers else reason, details=tuple(details))


def _places(tables: TopologyTables, level: Affinity) -> list[tuple[str, int]] | None:
    """Return the places one of which must hold all GPUs, each with its GPUs; None without such."""
    if level is Affinity.ANY:
        return [("the host", tables.all_gpus)]
    ids: list[int | None]
    if level is Affinity.NUMA:
        ids, word = [gpu.numa_node for gpu in tables.topology.gpus], "node"
    elif level is Affinity.SOCKET:
        ids, word = [socket_of(tables.topology, gpu) for gpu in tables.topology.gpus], "socket"
    else:
        return None
    known = {number for number in ids if number is not None}
    if None in ids:
        return None
    return [
        (f"{word} {number}", sum(1 << i for i, other in enumerate(ids) if other == number))
        for number in sorted(known)
    ]


def _largest(tables: TopologyTables, level: Affinity, within: int, below: int) -> int:
    """Return the largest set of fewer than `below` GPUs inside `within` that satisfies the level."""
    sizes = tables.sizes
    masks = np.flatnonzero(tables.satisfies(level) & (sizes < below))
    masks = masks[masks & ~within == 0]
    masks = masks[sizes[masks] == sizes[masks].max()]
    return int(masks[np.argmax(tables.reversed[masks])])


def _cpus_short(
    tables: TopologyTables,
    occupancy: Occupancy,
    state: State,
    request: ResourceRequest,
    *,
    mixes: list[tuple[int, ...]],
) -> Refusal:
    """Say what is short for the GPU sets that come closest; all sets that spread alike need the same."""
    level = cpu_levels(request)[-1]
    pool = state.pool
    for candidate in state.candidates:
        pool |= candidate.cpus

    def missing(need: CpuNeed) -> list[tuple[int, int, int]]:
        found = [(area, count, (pool & area).bit_count()) for area, count in (*need.fixed, *need.flexible)]
        return [(area, count, can) for area, count, can in found if can < count]

    needs = [cpu_need(tables, mix, request, level) for mix in mixes]
    need = min(needs, key=lambda need: sum(count - can for _, count, can in missing(need)))
    short = missing(need)
    parts = [
        f"{_cpu_area(tables, area)} has {can} of {count} that can be freed" for area, count, can in short
    ]
    every = 0
    for area, _, _ in short:
        every |= area
    blockers = _cpu_blockers(occupancy, request, every)
    beside = "" if not request.gpus or level is CpuAffinity.ANY else f" (CPU affinity {level})"
    reason = f"{_cpus(need.total)}{beside}: {', '.join(parts)}"
    details = tuple(
        f"{domain.name}: {(domain.cpus & state.pool).bit_count()} CPUs free, "
        f"{(domain.cpus & pool & ~state.pool).bit_count()} more can be freed"
        for domain in tables.domains
    )
    return Refusal(reason=f"{reason}: {', '.join(blockers)}" if blockers else reason, details=details)


def _cpu_area(tables: TopologyTables, area: int) -> str:
    if area == tables.cpus:
        return "the host"
    for node in tables.topology.numa_nodes:
        if node.cpus.mask == area:
            return f"NUMA node {node.id}"
    for socket in tables.topology.sockets:
        if socket.cpus.mask == area:
            return f"socket {socket.id}"
    return f"CPUs {CpuSet(area)}"


def _gpu_blockers(occupancy: Occupancy, request: ResourceRequest, usable: int, area: int) -> tuple[str, ...]:
    """Return who keeps GPUs of the area, and why; a GPU that is both blocked and held is told of once."""
    out, told = [], usable
    for block in occupancy.blocks:
        kept = block.gpus & area & ~told
        told |= kept
        if kept:
            out.append(f"{gpu_names(kept)} {block.reason}")
    for holder in occupancy.holders:
        kept = holder.gpus & area & ~told
        if kept and (why := keeps(holder, request)):
            out.append(f"job {holder.called} ({why}) holds {kept.bit_count()}")
    return tuple(out)


def _cpu_blockers(occupancy: Occupancy, request: ResourceRequest, area: int) -> tuple[str, ...]:
    kept_by = [(block.reason, (block.cpus.mask & area).bit_count()) for block in occupancy.blocks]
    out = [f"{_cpus(kept)} {reason}" for reason, kept in kept_by if kept]
    for holder in occupancy.holders:
        kept = holder.cpus.mask & area
        if kept and (why := keeps(holder, request)):
            out.append(f"job {holder.called} ({why}) holds {kept.bit_count()}")
    return tuple(out)


def keeps(holder: Holder, request: ResourceRequest) -> str:
    """Return why a holder may not be a victim of the request, in words; empty where it may."""
    reasons = [f"priority {holder.priority}"] if holder.priority >= request.priority else []
    if not holder.evictable:
        reasons.append(holder.protection or "not preemptible")
    return ", ".join(reasons)


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _cpus(count: int) -> str:
    return "1 CPU" if count == 1 else f"{count} CPUs"


def gpu_names(mask: int) -> str:
    """Return how sentences name GPUs: `GPUs 0-3`, `GPU 2`, `none`."""
    if not mask:
        return "none"
    return f"GPU {CpuSet(mask)}" if mask.bit_count() == 1 else f"GPUs {CpuSet(mask)}"
