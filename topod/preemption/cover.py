"""Which further victims free the CPUs that are short, at the least cost, for many GPU sets at once. Exact.

Each row is a GPU set with what it still lacks in some regions (areas of CPUs). Tables tell a lower bound of
what filling that costs (`regions`); where each victim gives to one region only, it is the very cost. That
leaves few rows to look at. For these, victims that the tables do not settle are branched on, each branch
for all rows together while they are many. Nothing is cut that could tie, so the last cost keys are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from topod.flextopo.affinity import BoolTable, IntTable
from topod.preemption.packing import Packing
from topod.preemption.regions import Offers
from topod.preemption.sets import GpuSets
from topod.preemption.settle import Settle

_FEW = 12  # up to so many rows a plain loop is quicker than arrays
_DIVES = 3  # rows looked at alone, the most promising first: often the others cannot win then


@dataclass(slots=True, kw_only=True)
class Way:
    """One way to reach the best cost: the branched-on victims, and what the others must still give."""

    part: int
    offers: Offers
    missing: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class Best:
    """The best found so far, over all covers of a search."""

    cost: int
    rank: tuple[int, ...] = ()
    """Cost keys 5 to 7, less being better; the last is the row of the GPU set in its family."""
    mask: int = 0
    """The GPU set."""
    cpu_steps: int = 0
    ways: list[Way] = field(default_factory=list)


class Cover:
    """The rows of one CPU affinity level that lack CPUs of the same regions."""

    __slots__ = ("_best", "_cpu_steps", "_missing", "_offers", "_packing", "_paid", "_patterns", "_sets",
                 "_settle", "floor")  # fmt: skip

    def __init__(
        self, sets: GpuSets, packing: Packing, offers: Offers, paid: IntTable, missing: IntTable
    ) -> None:
        """Prepare for the rows `sets` (a set may come twice).

        `paid` is what each costs without further victims, `missing` (regions by rows) the CPUs that it lacks.
        """
        self._sets = sets
        self._packing = packing
        self._offers = offers
        self._paid = paid
        self._missing = missing
        # Whom a set touches is a victim anyway: the others with GPUs are open to it, and all without.
        touched = sets.counts([[region.bits.get(i, 0) for i, _ in sets.holders] for region in offers.regions])
        self._patterns = [
            sum(region.bits.values()) - bits for region, bits in zip(offers.regions, touched, strict=True)
        ]
        self.floor = paid + self._fill(0, np.arange(len(sets)), self._missing)
        """No more than what each row costs; the very cost where the offers are exact."""

    def promise(self, best: Best) -> None:
        """Lower the best cost to what these rows are sure to reach. A later `run` finds how to get there."""
        least = int(self.floor.min())
        if self._offers.exact and least < best.cost:
            best.cost, best.rank, best.ways = least, (), []

    def run(self, best: Best, *, cpu_steps: int, links_first: bool) -> None:
        """Improve `best` by these rows."""
        self.promise(best)
        hopeful = (self.floor <= min(best.cost, self._packing.never - 1)).nonzero()[0]
        if not len(hopeful):
            return
        if len(hopeful) < len(self.floor):
            self._only(hopeful)
        self._best, self._cpu_steps = best, cpu_steps
        self._settle = Settle(self._sets, links_first=links_first)
        stranded = self._packing.stranded(int(self.floor.min()))
        live = np.arange(len(hopeful))
        if len(live) > _FEW and (strands := self._strands()) is not None:
            self._settle.expect(strands)
        for _ in range(_DIVES):
            if len(live) <= _FEW:
                break
            lowest = live[self.floor[live] == self.floor[live].min()]
            first = self._settle.most_promising(lowest, stranded)
            self._visit_one(0, 0, int(self._paid[first]), first, self._missing[:, first].tolist())
            live = self._hopeful(live[live != first])
        self._visit(0, 0, 0, live, self._missing[:, live])

    def _only(self, rows: IntTable) -> None:
        self._sets = self._sets.only(rows)
        self._paid, self.floor, self._missing = self._paid[rows], self.floor[rows], self._missing[:, rows]
        self._patterns = [patterns[rows] for patterns in self._patterns]

    def _hopeful(self, live: IntTable) -> IntTable:
        """Return which of `live` may still win."""
        keep = self._may_win(live, self.floor[live])
        return live if keep.all() else live[keep]

    def _may_win(self, live: IntTable, floor: IntTable) -> BoolTable:
        """Return which rows may still win, `floor` being a lower bound of what each comes to."""
        best = self._best
        keep: BoolTable = floor <= min(best.cost, self._packing.never - 1)
        if best.ways:
            worse = self._settle.worse(live, self._packing.stranded(best.cost), best.rank)
            keep &= (floor < best.cost) | ~worse
        return keep

    def _strands(self) -> IntTable | None:
        """Return how many GPUs of each kind further victims strand at the best cost, as a code for each row.

        Where the offers are exact, each region has a best cost of its own, and that tells how many GPUs its
        victims hold. None where that does not tell the kinds.
        """
        state, tables = self._sets.state, self._sets.tables
        if not self._offers.exact or state.blocked_gpus or state.spoils:
            return None
        if any(candidate.holder.elsewhere for candidate in state.candidates):
            return None  # a cost then tells of GPUs of other hosts too
        codes = np.zeros(len(self._sets), dtype=np.int64)
        for at, region in enumerate(self._offers.regions):
            gpus = sum(state.candidates[i].gpus for i in self._offers.branch if self._offers.gives[i][at])
            kinds = {kind for i, kind in enumerate(tables.kind_of) if gpus >> i & 1}
            if len(kinds) > 1:
                return None
            costs = region.floors(self._patterns[at], self._missing[at])
            for kind in kinds:
                codes += self._packing.stranded_of(costs) * tables.kind_radix[kind]
        return codes

    def _after(self, position: int, missing: IntTable) -> IntTable:
        """Return what rows still miss once they have a further victim."""
        gives = np.array(self._offers.gives[position], dtype=np.int64)[:, None]
        rest: IntTable = np.maximum(missing - gives, 0)
        return rest

    def _fill(self, at: int, live: IntTable, missing: IntTable) -> IntTable:
        """Return no more than what filling `missing` costs when branches from `at` on are still open."""
        floor = np.zeros(len(live), dtype=self._packing.dtype)
        offers = self._offers
        for region, patterns, closed, wanted in zip(
            offers.regions, self._patterns, offers.closed[at], missing, strict=True
        ):
            floor += region.floors(patterns[live] & ~closed, wanted)
        return floor

    def _visit(self, at: int, part: int, price: int, live: IntTable, missing: IntTable) -> None:
        """Look at what the rows `live` may become by the branches from `at` on, `part` being victims already.

        `price` is what `part` costs and `missing` what the rows miss with it.
        """
        if len(live) <= _FEW:
            for row, wanted in zip(live.tolist(), missing.T.tolist(), strict=True):
                self._visit_one(at, part, int(self._paid[row]) + price, row, wanted)
            return
        offers, paid = self._offers, self._paid[live] + price
        total = paid.copy()
        for region, wanted in zip(offers.regions, missing, strict=True):
            total += region.filled[wanted]
        self._note(part, live, missing, total)
        for number in range(at, len(offers.branch)):
            # Those before `number` are passed over now, so the bound rises from one to the next.
            floor = paid + self._fill(number, live, missing)
            keep = self._may_win(live, floor)
            if not offers.ties_after[number]:  # a further GPU holder strands GPUs: it must be strictly better
                keep &= floor < total
            if not keep.all():
                chosen = keep.nonzero()[0]
                if not len(chosen):
                    return
                live, missing, paid, total = live[chosen], missing[:, chosen], paid[chosen], total[chosen]
            i = offers.branch[number]
            gpus = self._sets.state.candidates[i].gpus
            here = (self._sets.masks[live] & gpus == 0).nonzero()[0]
            if len(here):
                rest = self._after(i, missing[:, here])
                self._visit(number + 1, part | 1 << i, price + self._packing.prices[i], live[here], rest)

    def _note(self, part: int, live: IntTable, missing: IntTable, total: IntTable) -> None:
        """Take note of the best of the plans in which the singles give all that is missing."""
        least = int(total.min())
        if least <= self._best.cost and least < self._packing.never:
            tied = (total == least).nonzero()[0]
            row = self._settle.first(live[tied], part)
            for place in tied[self._sets.rows[live[tied]] == self._sets.rows[row]].tolist():
                self._take(least, part, row, missing[:, place].tolist())

    def _take(self, cost: int, part: int, row: int, missing: Sequence[int]) -> None:
        """Take note of a plan that costs no more than the best."""
        best, rank = self._best, self._settle.rank(row, part)
        if cost < best.cost or not best.ways or rank < best.rank:
            best.cost, best.rank, best.ways = cost, rank, []
            best.mask, best.cpu_steps = self._sets.masks.item(row), self._cpu_steps
        if rank == best.rank:
            best.ways.append(Way(part=part, offers=self._offers, missing=tuple(missing)))

    def _visit_one(self, at: int, part: int, paid: int, row: int, missing: Sequence[int]) -> None:
        """Do for one row what `_visit` does for many; `paid` is its cost so far."""
        best, offers, never = self._best, self._offers, self._packing.never
        total = paid
        for region, wanted in zip(offers.regions, missing, strict=True):
            total += region.filled.item(wanted)
        if total <= best.cost and total < never:
            self._take(total, part, row, missing)
        mask = self._sets.masks.item(row)
        open_to = [patterns.item(row) for patterns in self._patterns]
        for number in range(at, len(offers.branch)):
            i = offers.branch[number]
            if self._sets.state.candidates[i].gpus & mask:
                continue
            floor = paid
            for region, pattern, closed, wanted in zip(
                offers.regions, open_to, offers.closed[number], missing, strict=True
            ):
                floor += region.floor(pattern & ~closed, wanted)
            if floor > best.cost or floor >= never or (floor >= total and not offers.ties_after[number]):
                return
            stranded = self._packing.stranded(floor)
            if floor == best.cost and best.ways and self._settle.is_worse(row, stranded, best.rank):
                return
            rest = [max(wanted - gives, 0) for wanted, gives in zip(missing, offers.gives[i], strict=True)]
            self._visit_one(number + 1, part | 1 << i, paid + self._packing.prices[i], row, rest)
