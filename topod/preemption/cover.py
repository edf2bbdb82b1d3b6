"""Which further victims free the CPUs that are still short, at the least cost: an exact cover.

Regions are areas of CPUs, each with a deficit (CPUs still missing). Victims whose CPUs matter to one region
only are settled per region by dynamic programming; the others by branch and bound, with each region's own
optimum as the lower bound. Costs are whole numbers that add up; see `Cover.cost`.
"""

from collections.abc import Sequence
from typing import Final

from topod.preemption.victims import Candidate

Deficits = tuple[tuple[int, int], ...]
"""(mask of the region's CPUs, CPUs still missing there, more than 0) each."""
NEVER: Final = 1 << 4096
"""More than any cost."""


class Cover:
    """Finds cheapest extra victims among the eligible candidates of one state."""

    __slots__ = ("_bits", "_cost", "_gives", "_memo", "_twins", "candidates", "holders")

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = candidates
        self.holders = sum(1 << i for i, c in enumerate(candidates) if c.cpus)
        """Which candidates (by position, as a mask) hold CPUs at all."""
        work = sum(c.holder.work for c in candidates).bit_length()
        gpus = sum(c.gpus.bit_count() for c in candidates).bit_length()
        self._bits = (work, gpus)
        self._cost = [((c.weight << gpus | c.gpus.bit_count()) << work) + c.holder.work for c in candidates]
        self._gives: dict[int, list[int]] = {}
        self._memo: dict[tuple[Deficits, tuple[int, ...]], int] = {}
        self._twins: dict[tuple[int, ...], list[int]] = {}

    def cost(self, weight: int, gpus: int, work: int) -> int:
        """Return cost keys 1, 3 and 4 (key 1 as a weight) in one number; costs add up key by key."""
        bits_work, bits_gpus = self._bits
        return ((weight << bits_gpus | gpus) << bits_work) + work

    def split(self, cost: int) -> tuple[int, int, int]:
        """Return (weight, GPUs, work) of a cost."""
        bits_work, bits_gpus = self._bits
        rest = cost >> bits_work
        return rest >> bits_gpus, rest & ((1 << bits_gpus) - 1), cost & ((1 << bits_work) - 1)

    def price(self, position: int) -> int:
        """Return the cost of one candidate as a victim."""
        return self._cost[position]

    def after(self, deficits: Deficits, position: int) -> Deficits:
        """Return what is still missing once the candidate at `position` has given its CPUs."""
        left = ((region, count - self.gives(region)[position]) for region, count in deficits)
        return tuple((region, count) for region, count in left if count > 0)

    def gives(self, region: int) -> list[int]:
        """Return how many CPUs of the region each candidate holds."""
        if region not in self._gives:
            self._gives[region] = [(c.cpus & region).bit_count() for c in self.candidates]
        return self._gives[region]

    def cheapest(self, deficits: Deficits, allowed: int) -> int:
        """Return the least cost of victims out of `allowed` (positions, as a mask) that fill the deficits.

        `NEVER` where all of them do not suffice.
        """
        if not deficits:
            return 0
        regions = tuple(region for region, _ in deficits)
        twins = self._twins_of(regions)
        # Candidates that give the same and cost the same are alike: only their number counts.
        key = (deficits, tuple((allowed & members).bit_count() for members in twins))
        if key not in self._memo:
            self._memo[key] = self._solve(deficits, allowed)
        return self._memo[key]

    def _twins_of(self, regions: tuple[int, ...]) -> list[int]:
        if regions not in self._twins:
            kinds: dict[tuple[int, ...], int] = {}
            gives = [self.gives(region) for region in regions]
            for i in range(len(self.candidates)):
                given = tuple(give[i] for give in gives)
                if any(given):
                    kind = (*given, self._cost[i])
                    kinds[kind] = kinds.get(kind, 0) | 1 << i
            self._twins[regions] = list(kinds.values())
        return self._twins[regions]

    def _solve(self, deficits: Deficits, allowed: int) -> int:
        gives = [self.gives(region) for region, _ in deficits]
        wanted = tuple(count for _, count in deficits)
        tables = [[0] + [NEVER] * count for count in wanted]
        several: list[tuple[tuple[int, ...], int]] = []
        for i, cost in enumerate(self._cost):
            if allowed >> i & 1:
                given = tuple(give[i] for give in gives)
                useful = [r for r, count in enumerate(given) if count]
                if len(useful) == 1:
                    _add(tables[useful[0]], given[useful[0]], cost)
                elif useful:
                    several.append((given, cost))
        if not several:
            return min(sum(table[-1] for table in tables), NEVER)
        several.sort(key=lambda item: item[1] // sum(item[0]))
        return _branch(tables, several, wanted)


def _add(table: list[int], gives: int, cost: int) -> None:
    """Let one more victim into a region's table: table[d] is the least cost of d CPUs or more."""
    for missing in range(len(table) - 1, 0, -1):
        total = table[max(missing - gives, 0)] + cost
        table[missing] = min(table[missing], total)


def _branch(
    tables: list[list[int]], several: list[tuple[tuple[int, ...], int]], wanted: tuple[int, ...]
) -> int:
    """Return the least cost when victims that matter to several regions may be taken too."""
    # bounds[i][r][d]: the least cost of d CPUs in region r alone, from the single ones and several[i:].
    bounds = [tables]
    for given, cost in reversed(several):
        layer = [list(table) for table in bounds[-1]]
        for table, gives in zip(layer, given, strict=True):
            if gives:
                _add(table, gives, cost)
        bounds.append(layer)
    bounds.reverse()
    seen: dict[tuple[int, tuple[int, ...]], int] = {}
    best = NEVER

    def visit(i: int, missing: tuple[int, ...], spent: int) -> None:
        nonlocal best
        if spent + max(table[d] for table, d in zip(bounds[i], missing, strict=True)) >= best:
            return
        if i == len(several) or not any(missing):
            best = min(best, spent + sum(table[d] for table, d in zip(tables, missing, strict=True)))
            return
        if seen.get((i, missing), NEVER) <= spent:
            return
        seen[i, missing] = spent
        given, cost = several[i]
        visit(i + 1, tuple(max(d - gives, 0) for d, gives in zip(missing, given, strict=True)), spent + cost)
        visit(i + 1, missing, spent)

    visit(0, wanted, 0)
    return best
