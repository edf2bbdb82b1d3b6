"""When CPUs are short: what each GPU set still lacks, and the further victims that make it up."""

from collections.abc import Iterator

import numpy as np

from topod.flextopo.affinity import IntTable
from topod.model.request import ResourceRequest
from topod.placement.demand import CpuNeed, cpu_levels, cpu_need
from topod.preemption.cover import Best, Cover, Packing, Settle
from topod.preemption.sets import FEW, GpuSets


class Shortage:
    """The CPU side of one search over GPU sets."""

    __slots__ = ("levels", "request", "sets", "state")

    def __init__(self, sets: GpuSets, request: ResourceRequest) -> None:
        self.sets = sets
        self.state = sets.state
        self.request = request
        self.levels = cpu_levels(request)

    def need(self, mix: tuple[int, ...], steps: int) -> CpuNeed:
        """Return what GPUs that spread as `mix` need, `steps` below the requested CPU level."""
        return cpu_need(self.sets.tables, mix, self.request, self.levels[steps])

    def enough(self, sets: GpuSets) -> tuple[GpuSets, int] | None:
        """Return the sets best by cost key 2 that need no further victims, and the CPU steps they miss.

        None where every set lacks CPUs even at the last level that will do.
        """
        steps = sets.family.steps[sets.rows]
        for missed in sorted(set(steps.tolist())):
            group = sets.only((steps == missed).nonzero()[0])
            for cpu_steps in range(len(self.levels)):
                met = self._met(group, cpu_steps)
                if len(met):
                    return group.only(met), cpu_steps
        return None

    def _met(self, sets: GpuSets, steps: int) -> IntTable:
        """Return which sets (by place) have their CPUs at a level when their own holders are the victims."""
        mixes = sets.family.mix[sets.rows]
        pool = self.state.pool
        needs = {mix: self.need(sets.family.mixes[mix], steps) for mix in _present(mixes)}
        if all(need.met_by(pool) for need in needs.values()):
            return np.arange(len(sets))
        if len(sets) > FEW:
            met = np.zeros(len(sets), dtype=np.bool_)
            for _, rows, missing in self._lacking(sets, steps):
                met[rows[~missing.any(axis=0)]] = True
            return met.nonzero()[0]
        places = []
        for place, (mask, mix) in enumerate(zip(sets.masks.tolist(), mixes.tolist(), strict=True)):
            freed = pool
            for _, candidate in sets.holders:
                if candidate.gpus & mask:
                    freed |= candidate.cpus
            if needs[mix].met_by(freed):
                places.append(place)
        return np.array(places, dtype=np.int64)

    def least_extra(self, *, links_first: bool) -> tuple[int, int, int] | None:
        """Return (GPUs, CPU steps, victims) of the least cost; None where no set can be had."""
        packing = Packing(self.state.candidates)
        own = packing.own(self.sets)
        settle = Settle(self.sets, links_first=links_first)
        best = Best(cost=packing.never)
        for steps in reversed(range(len(self.levels))):  # the loosest level soon shows how few can do
            for regions, rows, missing in self._lacking(self.sets, steps):
                cover = Cover(self.sets, packing, own, settle, regions, cpu_steps=steps)
                cover.run(rows, missing, best)
        if not best.ways:
            return None
        mask = int(self.sets.family.masks[best.rank[-1]])
        touched = self.sets.touched(mask)
        victims = min((touched | way.cover.earliest(way) for way in best.ways), key=_positions)
        return mask, best.cpu_steps, victims

    def _lacking(self, sets: GpuSets, steps: int) -> Iterator[tuple[tuple[int, ...], IntTable, IntTable]]:
        """Yield (regions, sets by place, CPUs missing: regions by sets), the sets' own holders being victims.

        A set comes once for each way to choose the areas that may give one CPU fewer.
        """
        tables, mixes = sets.tables, sets.family.mix[sets.rows]
        domains = tuple(domain.cpus for domain in tables.domains)
        shapes: dict[tuple[tuple[int, ...], int], dict[int, list[int]]] = {}
        for mix in _present(mixes):
            for number, areas in enumerate(self.need(sets.family.mixes[mix], steps).options()):
                regions = domains if areas.keys() <= set(domains) else tuple(areas)
                counts = [areas.get(region, 0) for region in regions]
                shapes.setdefault((regions, number), {})[mix] = counts
        have: dict[int, IntTable] = {}
        for (regions, _), needs in shapes.items():
            for region in regions:
                if region not in have:
                    freed = sets.sums([(c.cpus & region).bit_count() for _, c in sets.holders])
                    have[region] = freed + (self.state.pool & region).bit_count()
            wanted = np.full((len(sets.family.mixes), len(regions)), -1, dtype=np.int64)
            for mix, counts in needs.items():
                wanted[mix] = counts
            here = np.zeros(len(wanted), dtype=np.bool_)
            here[list(needs)] = True
            rows = here[mixes].nonzero()[0]
            missing = np.zeros((len(regions), len(rows)), dtype=np.int64)
            for place, region in enumerate(regions):
                missing[place] = np.maximum(wanted[mixes[rows], place] - have[region][rows], 0)
            yield regions, rows, missing


def _present(mixes: IntTable) -> list[int]:
    found: list[int] = np.bincount(mixes).nonzero()[0].tolist()
    return found


def _positions(mask: int) -> tuple[int, ...]:
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)
