"""What a rebalance aims at where nobody says, and what holders ask for whose requests are not known."""

from typing import Literal

from topod.errors import UsageError
from topod.flextopo.tables import TopologyTables
from topod.model.links import LinkClass
from topod.model.moves import Goal
from topod.model.occupancy import Holder
from topod.model.request import CPU_LADDER, LADDER, Affinity, CpuAffinity, ResourceRequest
from topod.placement.demand import cpu_need


def closest_affinity(tables: TopologyTables) -> Affinity:
    """Return the closest level that joins any GPUs of the host: NVLink, else PCIe, else NUMA."""
    kinds = {link.kind for row in tables.topology.links for link in row if link is not None}
    if LinkClass.NVLINK in kinds:
        return Affinity.NVLINK
    return Affinity.PCIE if kinds & {LinkClass.PIX, LinkClass.PXB} else Affinity.NUMA


def make_goal(
    tables: TopologyTables,
    *,
    affinity: Affinity | None,
    gpus: int | None,
    cpus: int | Literal["auto"],
    below: int,
    most: int | None,
) -> Goal:
    """Return the goal that a user's words describe. Raises `UsageError` for what cannot be meant."""
    if gpus is not None and not 1 <= gpus <= tables.count:
        raise UsageError(f"gpus must be 1 to {tables.count} on this host: {gpus}")
    if most is not None and most < 1:
        raise UsageError(f"the most restarts must be 1 or more: {most}")
    level = affinity or closest_affinity(tables)
    if cpus == 0:
        return Goal(affinity=level, gpus=gpus, below=below, most=most)
    if gpus is None:
        raise UsageError("cpus goes with gpus: beside how many of them?")
    if isinstance(cpus, int) and cpus < 0:
        raise UsageError(f"cpus must be auto, 0 or more: {cpus}")
    ask = ResourceRequest(gpus=gpus, affinity=level, cpus=cpus)
    return Goal(affinity=level, ask=ask, below=below, most=most)


def what_it_has(tables: TopologyTables, holder: Holder) -> ResourceRequest:
    """Return the request of a job of which only its place is known: no less than it has."""
    gpus = holder.gpus
    request = ResourceRequest(
        gpus=gpus.bit_count(),
        affinity=next(level for level in LADDER if tables.satisfies(level)[gpus]),
        cpus=len(holder.cpus),
        cpu_affinity=CpuAffinity.ANY,
        priority=holder.priority,
    )
    mix = tables.mix_of(gpus)
    for level in CPU_LADDER:
        if gpus and cpu_need(tables, mix, request, level).met_by(holder.cpus.mask):
            return ResourceRequest(
                gpus=request.gpus,
                affinity=request.affinity,
                cpus=request.cpus,
                cpu_affinity=level,
                priority=request.priority,
            )
    return request
