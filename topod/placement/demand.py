"""How many CPUs a GPU set needs, and where they must lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from topod.flextopo.affinity import BoolTable, IntTable
from topod.flextopo.tables import TopologyTables
from topod.model.request import AUTO, CPU_LADDER, CpuAffinity, Policy, ResourceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuNeed:
    """CPUs that a job needs from areas of the host: (mask of the area's CPUs, number needed) each.

    Of the `flexible` areas, at most `fewer` may give one CPU less. Flexible areas never overlap.
    """

    total: int
    fixed: tuple[tuple[int, int], ...] = ()
    flexible: tuple[tuple[int, int], ...] = ()
    fewer: int = 0

    def met_by(self, pool: int) -> bool:
        """Return whether the free CPUs of `pool` (a mask) suffice."""
        for area, count in self.fixed:
            if (pool & area).bit_count() < count:
                return False
        short = 0
        for area, count in self.flexible:
            lacking = count - (pool & area).bit_count()
            if lacking > 1:
                return False
            short += lacking == 1
        return short <= self.fewer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demand:
    """The needs of the mixes that concern the same areas, as arrays; `wanted` is areas by mixes."""

    regions: tuple[int, ...]
    here: BoolTable
    """Which mixes these are; the others' entries mean nothing."""
    wanted: IntTable
    flexible: IntTable
    """By mix, as bits: which of `regions` may give one CPU fewer."""
    fewer: IntTable
    """By mix: how many of them may."""
    any_fewer: bool


def demands(needs: Sequence[CpuNeed], domains: tuple[int, ...]) -> tuple[Demand, ...]:
    """Return the needs, one per mix, as arrays; what concerns only `domains` is kept together."""
    found: dict[tuple[int, ...], dict[int, tuple[dict[int, int], set[int], int]]] = {}
    for mix, need in enumerate(needs):
        areas: dict[int, int] = {}
        for area, count in need.fixed:
            areas[area] = max(count, areas.get(area, 0))
        flexible = {area: count for area, count in need.flexible if count > areas.get(area, 0)}
        areas |= flexible
        regions = domains if areas.keys() <= set(domains) else tuple(areas)
        found.setdefault(regions, {})[mix] = (areas, set(flexible), need.fewer)
    return tuple(_demand(regions, mixes, len(needs)) for regions, mixes in found.items())


def _demand(
    regions: tuple[int, ...], mixes: dict[int, tuple[dict[int, int], set[int], int]], count: int
) -> Demand:
    here = np.zeros(count, dtype=np.bool_)
    wanted = np.zeros((len(regions), count), dtype=np.int64)
    flexible, fewer = np.zeros((2, count), dtype=np.int64)
    for mix, (areas, may_give_fewer, number) in mixes.items():
        here[mix] = True
        wanted[:, mix] = [areas.get(region, 0) for region in regions]
        flexible[mix] = sum(1 << at for at, region in enumerate(regions) if region in may_give_fewer)
        fewer[mix] = number
    return Demand(
        regions=regions,
        here=here,
        wanted=wanted,
        flexible=flexible,
        fewer=fewer,
        any_fewer=bool(fewer.any()),
    )


NO_NEED = CpuNeed(total=0)


def cpu_levels(request: ResourceRequest) -> tuple[CpuAffinity, ...]:
    """Return the CPU levels that will do, the requested one first."""
    at = CPU_LADDER.index(request.cpu_affinity)
    # With no GPU there is nothing to be near to, so the requested level always holds.
    if request.policy is Policy.GUARANTEED or request.gpus == 0:
        return (request.cpu_affinity,)
    return CPU_LADDER[at:]


def cpu_need(
    tables: TopologyTables, mix: tuple[int, ...], request: ResourceRequest, level: CpuAffinity
) -> CpuNeed:
    """Return what a set of GPUs needs whose GPUs spread over the kinds of places as `mix` says."""
    key = (mix, request.cpus, level)
    found = tables.needs.get(key)
    if not isinstance(found, CpuNeed):
        if len(tables.needs) > 1 << 16:
            tables.needs.clear()
        found = tables.needs[key] = _cpu_need(tables, mix, request, level)
    return found


def _cpu_need(
    tables: TopologyTables, mix: tuple[int, ...], request: ResourceRequest, level: CpuAffinity
) -> CpuNeed:
    gpus = sum(mix)
    per_domain = [0] * len(tables.domains)
    area = 0
    for (domain, socket), count in zip(tables.kinds, mix, strict=True):
        if count:
            area |= socket
            if domain is not None:
                per_domain[domain] += count
    if request.cpus == AUTO:
        shares = [count * domain.share for count, domain in zip(per_domain, tables.domains, strict=True)]
        total = sum(shares)
    else:
        total = request.cpus
        shares = [-(-total * count // gpus) for count in per_domain] if gpus else []
    if not total:
        return NO_NEED
    if not gpus or level is CpuAffinity.ANY:
        return CpuNeed(total=total, fixed=((tables.cpus, total),))
    if level is CpuAffinity.SOCKET:
        return CpuNeed(total=total, fixed=((area, total),))
    parts = tuple((domain.cpus, share) for domain, share in zip(tables.domains, shares, strict=True) if share)
    if request.cpus == AUTO:
        return CpuNeed(total=total, fixed=parts)
    homeless = gpus - sum(per_domain)  # GPUs without a domain take their part from anywhere
    fewer = sum(shares) + -(-total * homeless // gpus) - total
    everywhere = ((tables.cpus, total),) if homeless else ()
    if fewer:
        return CpuNeed(total=total, fixed=everywhere, flexible=parts, fewer=fewer)
    return CpuNeed(total=total, fixed=parts + everywhere)
