"""When CPUs are short: what each GPU set still lacks, and the further victims that make it up."""

from collections.abc import Iterator

import numpy as np

from topod.flextopo.affinity import IntTable
from topod.model.request import ResourceRequest
from topod.placement.demand import CpuNeed, cpu_levels, cpu_need
from topod.preemption.cover import Best, Cover, Packing, Settle
from topod.preemption.sets import GpuSets


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

    def missed_steps(self, sets: GpuSets) -> IntTable:
        """Return for each set how far CPU affinity is missed when only the holders of its GPUs are victims.

        The number of levels that will do where even the last is out of reach.
        """
        worst = len(self.levels)
        by_mix = np.full(len(sets.family.mixes), worst, dtype=np.int64)
        mixes = sets.family.mix[sets.rows]
        for mix in _present(mixes):
            spread = sets.family.mixes[mix]
            by_mix[mix] = next(
                (steps for steps in range(worst) if self.need(spread, steps).met_by(self.state.pool)), worst
            )
        missed: IntTable = by_mix[mixes]
        if any(c.cpus for _, c in sets.holders):
            for steps in reversed(range(worst)):
                above = np.flatnonzero(missed > steps)
                for _, rows, missing in self._lacking(sets.only(above), steps) if len(above) else ():
                    missed[above[rows[~missing.any(axis=0)]]] = steps
        return missed

    def least_extra(self, *, links_first: bool) -> tuple[int, int, int] | None:
        """Return (GPUs, CPU steps, victims) of the least cost; None where no set can be had."""
        packing = Packing(self.state.candidates)
        own = packing.own(self.sets)
        settle = Settle(self.sets, links_first=links_first)
        best = Best(cost=packing.never)
        for steps in range(len(self.levels)):
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
            # A need without areas (no CPUs at all) has no region to be short of.
            rows = np.flatnonzero(np.isin(mixes, list(needs)))
            missing = np.zeros((len(regions), len(rows)), dtype=np.int64)
            for place, region in enumerate(regions):
                missing[place] = np.maximum(wanted[mixes[rows], place] - have[region][rows], 0)
            yield regions, rows, missing


def _present(mixes: IntTable) -> list[int]:
    found: list[int] = np.flatnonzero(np.bincount(mixes)).tolist()
    return found


def _positions(mask: int) -> tuple[int, ...]:
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)
