"""When CPUs are short: what each GPU set still lacks, and the further victims that make it up."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from topod.flextopo.affinity import IntTable
from topod.model.request import ResourceRequest
from topod.placement.demand import CpuNeed, cpu_levels, cpu_need
from topod.preemption.cover import NEVER, Cover, Deficits
from topod.preemption.sets import GpuSets

Tie = tuple[int, int, int]
"""(mask of GPUs, steps by which CPU affinity is missed, cost of the extra victims)."""


class Shortage:
    """The CPU side of one search over GPU sets."""

    __slots__ = ("_needs", "cover", "levels", "request", "sets", "state")

    def __init__(self, sets: GpuSets, request: ResourceRequest) -> None:
        self.sets = sets
        self.state = sets.state
        self.request = request
        self.levels = cpu_levels(request)
        self.cover = Cover(self.state.candidates)
        self._needs: dict[tuple[tuple[int, ...], int], CpuNeed] = {}

    def need(self, mix: tuple[int, ...], steps: int) -> CpuNeed:
        """Return what GPUs that spread as `mix` need, `steps` below the requested CPU level."""
        return cpu_need(self.sets.tables, mix, self.request, self.levels[steps])

    def missed_steps(self, sets: GpuSets) -> IntTable:
        """Return for each set how far CPU affinity is missed when only the holders of its GPUs are victims.

        The number of levels that will do where even the last is out of reach.
        """
        mixes = sets.family.mix[sets.rows]
        worst = len(self.levels)
        by_mix = np.full(len(sets.family.mixes), worst, dtype=np.int64)
        present = np.unique(mixes).tolist()
        for mix in present:
            spread = sets.family.mixes[mix]
            by_mix[mix] = next(
                (steps for steps in range(worst) if self.need(spread, steps).met_by(self.state.pool)), worst
            )
        missed: IntTable = by_mix[mixes]
        if not any(c.cpus for _, c in sets.holders):
            return missed
        for row in np.flatnonzero(missed).tolist():
            spread = sets.family.mixes[mixes[row]]
            pool = self._pool(sets.touched(int(sets.masks[row])))
            for steps in range(int(missed[row])):
                if self.need(spread, steps).met_by(pool):
                    missed[row] = steps
                    break
        return missed

    def _pool(self, victims: int) -> int:
        pool = self.state.pool
        for i, candidate in enumerate(self.state.candidates):
            if victims >> i & 1:
                pool |= candidate.cpus
        return pool

    def least_extra(self, *, links_first: bool) -> tuple[int, int, int] | None:
        """Return (GPUs, CPU steps, extra victims) of the least cost over all sets; None where none suffices."""
        sets, cover = self.sets, self.cover
        best: tuple[int, int, int, int, int] | None = None
        ties: list[Tie] = []
        weights = sets.weights()
        for row in np.argsort(weights, kind="stable").tolist():
            if best is not None and weights[row] > best[0]:
                break
            mask = int(sets.masks[row])
            steps = int(sets.family.steps[sets.rows[row]])
            stranded, work, _, _ = sets.later_keys(mask, links_first=links_first)
            own = cover.cost(int(weights[row]), stranded, work)
            for cpu_steps in range(len(self.levels)):
                extra = min(
                    (cover.cheapest(d, self._allowed(mask)) for d in self._lacks(mask, cpu_steps)),
                    default=NEVER,
                )
                if extra >= NEVER:
                    continue
                weight, gpus, lost = cover.split(own + extra)
                key = (weight, steps, cpu_steps, gpus, lost)
                if best is None or key < best:
                    best, ties = key, []
                if key == best:
                    ties.append((mask, cpu_steps, extra))
        return self._settle(ties, links_first=links_first) if ties else None

    def _allowed(self, mask: int) -> int:
        return self.cover.holders & ~self.sets.touched(mask)

    def _lacks(self, mask: int, steps: int) -> Iterator[Deficits]:
        """Yield what is missing, once for each choice of the areas that may give one CPU fewer."""
        need = self.need(self.sets.tables.mix_of(mask), steps)
        pool = self._pool(self.sets.touched(mask))
        fixed = _deficits(need.fixed, pool)
        for chosen in combinations(range(len(need.flexible)), min(need.fewer, len(need.flexible))):
            flexible = [(area, n - (i in chosen)) for i, (area, n) in enumerate(need.flexible)]
            yield fixed + _deficits(flexible, pool)

    def _settle(self, ties: list[Tie], *, links_first: bool) -> tuple[int, int, int]:
        """Return the best of plans that tie up to the work lost: links, what is left, indices, early victims."""
        order = {int(mask): place for place, mask in enumerate(self.sets.masks)}
        best: tuple[tuple[int, ...], tuple[int, int, int]] | None = None
        for mask, steps, extra in ties:
            touched = self.sets.touched(mask)
            for deficits in self._lacks(mask, steps):
                for part in self._gpu_parts(deficits, self._allowed(mask), extra):
                    rank: tuple[int, ...] = ()
                    if self.request.gpus:
                        freed = sum(c.gpus for i, c in enumerate(self.state.candidates) if part >> i & 1)
                        rank = self.sets.later_keys(mask, links_first=links_first, extra=freed)[2:]
                    rank = (*rank, order[mask])
                    if best is not None and rank > best[0][: len(rank)]:
                        continue
                    victims = self._earliest(deficits, self._allowed(mask), part, extra)
                    positions = (i for i in range(len(self.state.candidates)) if (victims | touched) >> i & 1)
                    rank = (*rank, *positions)
                    if best is None or rank < best[0]:
                        best = rank, (mask, steps, victims)
        assert best is not None, "a tie has at least one way to be reached"
        return best[1]

    def _gpu_parts(self, deficits: Deficits, allowed: int, cost: int) -> Iterator[int]:
        """Yield each set of GPU-holding extra victims that belongs to some solution of the least cost."""
        cover = self.cover
        if cover.cheapest(deficits, allowed) != cost:
            return
        holders = [i for i, c in enumerate(self.state.candidates) if c.gpus and allowed >> i & 1]

        def visit(at: int, taken: int, missing: Deficits, open_: int, left: int) -> Iterator[int]:
            if cover.cheapest(missing, open_) != left:
                return
            if at == len(holders) or not left:
                yield taken
                return
            i = holders[at]
            open_ &= ~(1 << i)
            price = cover.price(i)
            if price <= left:
                yield from visit(at + 1, taken | 1 << i, cover.after(missing, i), open_, left - price)
            yield from visit(at + 1, taken, missing, open_, left)

        yield from visit(0, 0, deficits, allowed, cost)

    def _earliest(self, deficits: Deficits, allowed: int, part: int, cost: int) -> int:
        """Return the least-cost victims whose GPU holders are `part` and who come first in the occupancy."""
        cover, victims = self.cover, part
        for i, candidate in enumerate(self.state.candidates):
            if part >> i & 1:
                deficits = cover.after(deficits, i)
                cost -= cover.price(i)
            if candidate.gpus:
                allowed &= ~(1 << i)
        for i in range(len(self.state.candidates)):
            if not cost:
                break
            if allowed >> i & 1:
                allowed &= ~(1 << i)
                price, missing = cover.price(i), cover.after(deficits, i)
                if price <= cost and cover.cheapest(missing, allowed) == cost - price:
                    victims |= 1 << i
                    deficits, cost = missing, cost - price
        return victims


def _deficits(areas: tuple[tuple[int, int], ...] | list[tuple[int, int]], pool: int) -> Deficits:
    lacking = ((area, count - (pool & area).bit_count()) for area, count in areas)
    return tuple((area, count) for area, count in lacking if count > 0)
