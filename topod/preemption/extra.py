"""When CPUs are short: what each GPU set still lacks, and the further victims that make it up."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from topod.flextopo.affinity import IntTable
from topod.flextopo.tables import Family
from topod.model.request import CpuAffinity, ResourceRequest
from topod.placement.demand import CpuNeed, Demand, cpu_levels, cpu_need, demands
from topod.preemption.cover import Best, Cover
from topod.preemption.packing import Packing
from topod.preemption.regions import Offers
from topod.preemption.sets import FEW, GpuSets

_REMEMBERED = 64  # kinds of requests whose demands a family of sets keeps
_FEWER_BITS = 16  # more areas than a host has


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
        for missed in _present(steps):
            group = sets.only((steps == missed).nonzero()[0])
            for cpu_steps in range(len(self.levels)):
                met = self._met(group, cpu_steps)
                if len(met):
                    return group.only(met), cpu_steps
        return None

    def _met(self, sets: GpuSets, steps: int) -> IntTable:
        """Return which sets (by place) have their CPUs at a level when their own holders are the victims."""
        if len(sets) > FEW:
            met = np.zeros(len(sets), dtype=np.bool_)
            for _, rows, missing in self.lacking(sets, steps):
                met[rows[~missing.any(axis=0)]] = True
            return met.nonzero()[0]
        places = []
        mixes = sets.family.mix[sets.rows].tolist()
        for place, (mask, mix) in enumerate(zip(sets.masks.tolist(), mixes, strict=True)):
            freed = self.state.pool
            for _, candidate in sets.holders:
                if candidate.gpus & mask:
                    freed |= candidate.cpus
            if self.need(sets.family.mixes[mix], steps).met_by(freed):
                places.append(place)
        return np.array(places, dtype=np.int64)

    def least_extra(self, *, links_first: bool) -> tuple[int, int, int] | None:
        """Return (GPUs, CPU steps, victims) of the least cost; None where no set can be had."""
        search = _Search(self)
        last = len(self.levels) - 1
        loosest = list(search.covers(np.arange(len(self.sets)), last))
        bound = search.own.copy()
        for rows, cover in loosest:
            cover.promise(search.best)
            if self.levels[last] is CpuAffinity.ANY:  # no level asks for less
                bound[rows] = cover.floor - search.packing.steps(last)
        for steps in range(last):
            hopeful = (bound + search.packing.steps(steps) <= search.best.cost).nonzero()[0]
            if len(hopeful):
                for _, cover in search.covers(hopeful, steps):
                    cover.run(search.best, cpu_steps=steps, links_first=links_first)
        for _, cover in loosest:
            cover.run(search.best, cpu_steps=last, links_first=links_first)
        best = search.best
        if not best.ways:
            return None
        touched = self.sets.touched(best.mask)
        victims = min(
            (touched | way.part | way.offers.earliest(way.missing) for way in best.ways), key=_positions
        )
        return best.mask, best.cpu_steps, victims

    def lacking(self, sets: GpuSets, steps: int) -> Iterator[tuple[tuple[int, ...], IntTable, IntTable]]:
        """Yield (regions, sets by place, CPUs missing: regions by sets), the sets' own holders being victims.

        A set comes once for each way to choose the areas that may give one CPU fewer and that help.
        """
        mixes = sets.family.mix[sets.rows]
        for demand in self._demands(sets.family, steps):
            rows = demand.here[mixes].nonzero()[0]
            if not len(rows):
                continue
            missing = demand.wanted[:, mixes[rows]]
            freed = sets.counts(
                [[(c.cpus & region).bit_count() for _, c in sets.holders] for region in demand.regions]
            )
            missing -= freed if len(rows) == len(sets) else freed[:, rows]
            free = [(self.state.pool & region).bit_count() for region in demand.regions]
            missing -= np.array(free, dtype=np.int64)[:, None]
            np.maximum(missing, 0, out=missing)
            if demand.any_fewer:
                rows, missing = _give_fewer(demand, mixes[rows], rows, missing)
            yield demand.regions, rows, missing

    def _demands(self, family: Family, steps: int) -> tuple[Demand, ...]:
        key = (self.request.cpus, self.levels[steps])
        if key not in family.demands:
            if len(family.demands) >= _REMEMBERED:
                family.demands.clear()
            domains = tuple(domain.cpus for domain in self.sets.tables.domains)
            family.demands[key] = demands([self.need(mix, steps) for mix in family.mixes], domains)
        found: tuple[Demand, ...] = family.demands[key]
        return found


class _Search:
    """What the covers of one search share."""

    __slots__ = ("_cheapest", "_most", "_offers", "best", "own", "packing", "shortage")

    def __init__(self, shortage: Shortage) -> None:
        candidates = shortage.state.candidates
        self.shortage = shortage
        self.packing = Packing(candidates, shortage.state.spoils)
        self.own = self.packing.own(shortage.sets)
        """What each set costs without further victims, but for the CPU steps."""
        self.best = Best(cost=self.packing.never)
        self._cheapest = min(self.packing.prices, default=0)
        self._most = max((c.cpus.bit_count() for c in candidates), default=0)
        self._offers: dict[tuple[int, ...], Offers] = {}

    def covers(self, rows: IntTable, steps: int) -> Iterator[tuple[IntTable, Cover]]:
        """Yield the covers of the sets at `rows` that may win at one level, each with the rows in it."""
        sets, packing = self.shortage.sets.only(rows), self.packing
        for regions, places, lacking in self.shortage.lacking(sets, steps):
            paid = self.own[rows[places]] + packing.steps(steps)
            hopeful = self._hopeful(paid, lacking)
            if len(hopeful):
                missing = lacking[:, hopeful]
                wanted = missing.max(axis=1)
                offers = self._offers_of(dict(zip(regions, wanted.tolist(), strict=True)))
                here = places[hopeful]
                cover = Cover(sets.only(here), packing, offers, paid[hopeful], missing[wanted > 0])
                yield rows[here], cover

    def _hopeful(self, paid: IntTable, missing: IntTable) -> IntTable:
        """Return who may still win, by what the cheapest victims would cost if each gave all that one can."""
        if self.best.cost >= self.packing.never:
            return np.arange(len(paid))
        fewest = -(-missing.max(axis=0, initial=0) // max(self._most, 1))
        fewest = np.minimum(fewest, len(self.packing.prices)).astype(self.packing.dtype)
        hopeful: IntTable = (paid + fewest * self._cheapest <= self.best.cost).nonzero()[0]
        return hopeful

    def _offers_of(self, wanted: dict[int, int]) -> Offers:
        """Return who can give to the areas of which CPUs may be missing; `wanted` says how many."""
        areas = {area: count for area, count in wanted.items() if count}
        found = self._offers.get(tuple(areas))
        if found is None or any(found.wanted[area] < count for area, count in areas.items()):
            found = self._offers[tuple(areas)] = Offers(self.shortage.state.candidates, self.packing, areas)
        return found


def _give_fewer(
    demand: Demand, mixes: IntTable, rows: IntTable, missing: IntTable
) -> tuple[IntTable, IntTable]:
    """Return rows and what they miss again, once for each choice of the areas that give one CPU fewer."""
    bits = 1 << np.arange(len(missing), dtype=np.int64)
    helped = bits @ (missing > 0) & demand.flexible[mixes]
    chosen, less = [], []
    for code in np.unique(helped << _FEWER_BITS | demand.fewer[mixes]).tolist():
        areas, fewer = code >> _FEWER_BITS, code & (1 << _FEWER_BITS) - 1
        here = ((helped == areas) & (demand.fewer[mixes] == fewer)).nonzero()[0]
        lacking = [at for at in range(len(missing)) if areas >> at & 1]
        for given in combinations(lacking, min(fewer, len(lacking))):
            changed = missing[:, here]
            changed[list(given)] -= 1
            chosen.append(rows[here])
            less.append(changed)
    return np.concatenate(chosen), np.concatenate(less, axis=1)


def _positions(mask: int) -> tuple[int, ...]:
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)


def _present(numbers: IntTable) -> list[int]:
    found: list[int] = np.bincount(numbers).nonzero()[0].tolist()
    return found
