"""Which further victims free the CPUs that are short, at the least cost, for many GPU sets at once. Exact.

Each row is a GPU set with what it still lacks in some regions (areas of CPUs). Victims that hold no GPU and
matter to one region only are settled by dynamic programming per region. All others are branched on, every
branch for all rows together; a row leaves a branch when even its lower bound (each region's own optimum) is
worse than the best found. Nothing is cut that could tie, so the last cost keys are exact too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from topod.flextopo.affinity import BoolTable, IntTable
from topod.preemption.sets import GpuSets
from topod.preemption.victims import Candidate

_STEP_BITS = 5  # 6 levels of GPU affinity (3 bits), then 3 of CPU affinity (2 bits)
_PROMISING = 8  # sets whose exact cost is worth knowing first
_KINDS = 96  # up to so many kinds of sets each kind's exact cost is worth knowing
_FITS = 57  # bits of a cost in an int64, so that NEVER and sums of it over 16 regions fit too


class Packing:
    """Cost keys 1 to 4 in one number, key 1 highest: (weight, steps missed, stranded GPUs, work lost)."""

    __slots__ = ("_gpus", "_work", "dtype", "never")

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._work = sum(c.holder.work for c in candidates).bit_length()
        self._gpus = sum(c.gpus.bit_count() for c in candidates).bit_length()
        weight = sum(c.weight for c in candidates).bit_length()
        bits = weight + _STEP_BITS + self._gpus + self._work
        self.dtype = np.dtype(np.int64) if bits <= _FITS else np.dtype(object)
        self.never = 1 << max(_FITS + 1, bits + 1)
        """More than any cost."""

    def price(self, candidate: Candidate) -> int:
        """Return what one further victim adds: all the GPUs it loses are stranded."""
        high = candidate.weight << _STEP_BITS + self._gpus + self._work
        return high + (candidate.gpus.bit_count() << self._work) + candidate.holder.work

    def stranded(self, cost: int) -> int:
        """Return the stranded GPUs of a cost."""
        return cost >> self._work & (1 << self._gpus) - 1

    def steps(self, steps: int) -> int:
        """Return what missing CPU affinity by `steps` adds."""
        return steps << self._gpus + self._work

    def own(self, sets: GpuSets) -> IntTable:
        """Return the cost of each set without further victims, its CPU steps left out."""
        gpus, work = self._gpus, self._work
        cost = sets.sums([self.price(c) for _, c in sets.holders]).astype(self.dtype)
        taken = sum(c.gpus for _, c in sets.holders)
        cost -= sets.tables.sizes[sets.masks & taken].astype(self.dtype) << work
        cost += sets.family.steps[sets.rows].astype(self.dtype) << 2 + gpus + work
        return cost


@dataclass(slots=True, kw_only=True)
class Way:
    """One way to reach the best cost: the branched-on victims, and what the others must still give."""

    part: int
    cover: "Cover"
    missing: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class Best:
    """The best found so far, over all covers of a search."""

    cost: int
    rank: tuple[int, ...] = ()
    """Cost keys 5 to 7, less being better; the last is the row of the GPU set."""
    cpu_steps: int = 0
    ways: list[Way] = field(default_factory=list)


class Cover:
    """The search over rows that lack CPUs of the same regions at one CPU affinity level."""

    __slots__ = ("_best", "_bounds", "_branch", "_cpu_steps", "_gives", "_least", "_own", "_packing", "_rows",
                 "_separate", "_sets", "_settle", "_single", "_tables", "_ties_after")  # fmt: skip

    def __init__(
        self,
        sets: GpuSets,
        packing: Packing,
        own: IntTable,
        settle: "Settle",
        regions: Sequence[int],
        *,
        cpu_steps: int,
    ) -> None:
        """`own` is the cost of each set of `sets` before further victims."""
        self._sets = sets
        self._packing = packing
        self._settle = settle
        self._own = own
        self._cpu_steps = cpu_steps
        self._gives: dict[int, tuple[int, ...]] = {}
        self._single: list[int] = []
        self._branch: list[int] = []
        for i, candidate in enumerate(sets.state.candidates):
            gives = tuple((candidate.cpus & region).bit_count() for region in regions)
            useful = sum(count > 0 for count in gives)
            if useful:
                self._gives[i] = gives
                (self._branch if candidate.gpus or useful > 1 else self._single).append(i)
        # The most attractive first: once they are settled, the bounds of the rest are tight. Of equals the
        # last first: that leaves the sets of low indices, which win ties, to the first branches.
        self._branch.sort(key=lambda i: (self._price(i) // sum(self._gives[i]), -i))
        candidates = sets.state.candidates
        self._separate = all(sum(count > 0 for count in gives) == 1 for gives in self._gives.values())
        self._ties_after = [
            any(not candidates[i].gpus for i in self._branch[at:]) for at in range(len(self._branch))
        ]

    def run(self, rows: IntTable, missing: IntTable, best: Best) -> None:
        """Improve `best` by the sets at `rows`, which lack `missing` (regions by rows) CPUs."""
        price = self._packing.steps(self._cpu_steps)
        hopeful = (self._own[rows] + price <= best.cost).nonzero()[0]
        if not len(hopeful):
            return
        rows, missing = rows[hopeful], missing[:, hopeful]
        self._best = best
        self._rows = rows
        wanted = [int(row.max()) for row in missing]
        self._tables = [_start(count, self._packing) for count in wanted]
        for i in self._single:
            self._add(self._tables, i)
        layer = [table.copy() for table in self._tables]
        self._bounds = [layer]
        for i in reversed(self._branch):
            layer = [table.copy() for table in layer]
            self._add(layer, i)
            self._bounds.append(layer)
        self._bounds.reverse()
        live = np.arange(len(rows))
        self._least = self._own[rows] + price
        if self._separate and self._branch:
            live = self._aim(price, missing)
        if len(live):
            self._visit(0, 0, price, live, missing[:, live])

    def _aim(self, price: int, missing: IntTable) -> IntTable:
        """Lower the best cost to what promising sets are sure to reach; return the sets that may still win.

        Where each victim gives to one region only, dynamic programming over all that a set does not touch is
        exact for that set. Sets that lack the same and touch equally many of each kind of victim have that
        in common, so on a host of jobs that are much alike it tells the cost of every set. The visit then
        finds the plan itself.
        """
        paid = self._own[self._rows] + price
        floor = paid + self._floor(0, missing)
        most = paid + sum(table[wanted] for table, wanted in zip(self._tables, missing, strict=True))
        live = (floor <= min(self._best.cost, int(most.min()), self._packing.never - 1)).nonzero()[0]
        if len(live) <= _PROMISING:
            first, group = np.arange(len(live)), np.arange(len(live))
        else:
            kinds = self._kinds(live, missing)
            _, first, group = np.unique(kinds, return_index=True, return_inverse=True)
        if len(first) > _KINDS:
            for place in live[np.argpartition(floor[live], _PROMISING)[:_PROMISING]].tolist():
                self._reached(int(paid[place]) + self._filled(place, missing))
            return live
        exact = paid[live] + np.array([self._filled(place, missing) for place in live[first].tolist()])[group]
        if len(exact):
            self._reached(int(exact.min()))
        self._least[live] = exact
        winners: IntTable = live[exact <= min(self._best.cost, self._packing.never - 1)]
        return winners

    def _reached(self, cost: int) -> None:
        if cost < self._best.cost:
            self._best.cost, self._best.rank, self._best.ways = cost, (), []

    def _kinds(self, live: IntTable, missing: IntTable) -> IntTable:
        """Return a number for each set that is equal where they lack the same and touch the same kinds."""
        candidates = self._sets.state.candidates
        masks = self._sets.masks[self._rows[live]]
        columns = list(missing[:, live])
        alike: dict[tuple[object, ...], IntTable] = {}
        for i in self._branch:
            kind = (self._gives[i], self._price(i))
            touched = (masks & candidates[i].gpus != 0).astype(np.int64)
            alike[kind] = alike[kind] + touched if kind in alike else touched
        code = np.zeros(len(live), dtype=np.int64)
        size = 1
        for column in (*columns, *alike.values()):
            radix = int(column.max()) + 1
            size *= radix
            if size >= 1 << 62:
                return np.arange(len(live))  # too many to number: all are taken as different
            code = code * radix + column
        return code

    def _filled(self, place: int, missing: IntTable) -> int:
        """Return the least cost of what the set at `place` lacks, all that it does not touch being open."""
        mask = int(self._sets.masks[self._rows[place]])
        tables = [
            table[: int(wanted) + 1].copy()
            for table, wanted in zip(self._tables, missing[:, place], strict=True)
        ]
        for i in self._branch:
            if not self._sets.state.candidates[i].gpus & mask:
                self._add(tables, i)
        return sum(int(table[-1]) for table in tables)

    def _price(self, position: int) -> int:
        return self._packing.price(self._sets.state.candidates[position])

    def _add(self, tables: Sequence[IntTable], position: int) -> None:
        """Let a victim into the regions' tables: table[d] is the least cost of d CPUs or more."""
        price = self._price(position)
        for table, gives in zip(tables, self._gives[position], strict=True):
            if gives and len(table) > 1:
                before = np.concatenate((np.repeat(table[:1], min(gives, len(table))), table[:-gives]))
                np.minimum(table, before + price, out=table)

    def _visit(self, at: int, part: int, price: int, live: IntTable, missing: IntTable) -> None:
        paid = self._own[self._rows[live]] + price
        total = paid.copy()
        for table, wanted in zip(self._tables, missing, strict=True):
            total += table[wanted]
        self._note(part, live, missing, total)
        masks = self._sets.masks[self._rows[live]]
        for place in range(at, len(self._branch)):
            # Those before `place` are passed over now, so the bound rises from place to place.
            floor = np.maximum(paid + self._floor(place, missing), self._least[live])
            keep: BoolTable = floor <= min(self._best.cost, self._packing.never - 1)
            if not self._ties_after[place]:  # a further GPU holder strands GPUs: it must be strictly better
                keep &= floor < total
            if self._best.ways:
                stranded = self._packing.stranded(self._best.cost)
                hopeless = self._settle.worse(self._rows[live], stranded, self._best.rank)
                keep &= (floor < self._best.cost) | ~hopeless
            if not keep.all():
                chosen = keep.nonzero()[0]
                if not len(chosen):
                    return
                live, missing, masks = live[chosen], missing[:, chosen], masks[chosen]
                paid, total = paid[chosen], total[chosen]
            position = self._branch[place]
            here = (masks & self._sets.state.candidates[position].gpus == 0).nonzero()[0]
            if len(here):
                gives = np.array(self._gives[position], dtype=np.int64)[:, None]
                rest = np.maximum(missing[:, here] - gives, 0)
                self._visit(place + 1, part | 1 << position, price + self._price(position), live[here], rest)

    def _floor(self, at: int, missing: IntTable) -> IntTable:
        """Return no more than what filling `missing` costs when branches from `at` on are still open."""
        floors = np.stack([table[wanted] for table, wanted in zip(self._bounds[at], missing, strict=True)])
        # Where each victim gives to one region only, the regions' own optima add up.
        floor: IntTable = floors.sum(axis=0) if self._separate else floors.max(axis=0)
        return floor

    def _note(self, part: int, live: IntTable, missing: IntTable, total: IntTable) -> None:
        best, least = self._best, int(total.min())
        if least > best.cost or least >= self._packing.never:
            return
        tied = (total == least).nonzero()[0]
        place, rank = self._settle.first(self._rows[live[tied]], part)
        if least < best.cost or not best.ways or rank < best.rank:
            best.cost, best.rank, best.cpu_steps, best.ways = least, rank, self._cpu_steps, []
        elif rank > best.rank:
            return
        lacking = tuple(int(count) for count in missing[:, tied[place]])
        best.ways.append(Way(part=part, cover=self, missing=lacking))

    def earliest(self, way: Way) -> int:
        """Return the victims of a way (positions, as a mask), those who come first in the occupancy."""
        victims = way.part
        for region, missing in enumerate(way.missing):
            wanted = missing
            members = [i for i in self._single if self._gives[i][region]]
            after = [_start(wanted, self._packing)]
            for i in reversed(members):
                table = after[-1].copy()
                gives = self._gives[i][region]
                before = np.concatenate((np.repeat(table[:1], min(gives, len(table))), table[:-gives]))
                after.append(np.minimum(table, before + self._price(i)))
            after.reverse()
            for number, i in enumerate(members):
                given = max(wanted - self._gives[i][region], 0)
                if wanted and after[number][wanted] == self._price(i) + after[number + 1][given]:
                    victims |= 1 << i
                    wanted = given
        return victims


def _start(wanted: int, packing: Packing) -> IntTable:
    table = np.full(wanted + 1, packing.never, dtype=packing.dtype)
    table[0] = 0
    return table


class Settle:
    """Chooses among sets that tie up to the work lost, by cost keys 5 to 7; ranks: less is better."""

    __slots__ = ("_freed", "_hope", "_links", "_links_first", "_sets")

    def __init__(self, sets: GpuSets, *, links_first: bool) -> None:
        self._sets = sets
        self._links_first = links_first
        self._links: IntTable = -sets.family.links[sets.rows]
        self._freed: IntTable | None = None
        self._hope: dict[int, IntTable] = {}

    def first(self, rows: IntTable, part: int) -> tuple[int, tuple[int, ...]]:
        """Return the place in `rows` that is best if `part` are victims too, and its rank."""
        sets, state = self._sets, self._sets.state
        if not sets.masks[0]:  # no GPUs: there is but one set
            return 0, (int(sets.rows[0]),)
        if self._freed is None:
            self._freed = sets.sums([c.gpus for _, c in sets.holders]) | state.free_gpus
        extra = sum(c.gpus for i, c in enumerate(state.candidates) if part >> i & 1)
        places = np.arange(len(rows))
        rank = []
        for by_links in (self._links_first, not self._links_first):
            here = rows[places]
            if by_links:
                key = self._links[here]
            else:
                stays = (self._freed[here] | extra) & ~state.blocked_gpus & ~sets.masks[here]
                key = -sets.tables.left[stays]
            least = int(key.min())
            places = places[key == least]
            rank.append(least)
        place = int(places[np.argmin(rows[places])])  # rows are in the order of lowest indices
        return place, (*rank, int(sets.rows[rows[place]]))

    def worse(self, rows: IntTable, stranded: int, rank: tuple[int, ...]) -> BoolTable:
        """Return which rows cannot reach `rank` by any plan that strands that many GPUs."""
        sets = self._sets
        if len(rank) < 3:
            return np.zeros(len(rows), dtype=np.bool_)
        if stranded not in self._hope:
            # Free GPUs that the set does not take stay free, and so do those that are stranded.
            tables, free = sets.tables, sets.state.free_gpus
            stay = free.bit_count() - tables.sizes[sets.masks & free] + stranded
            rest = tables.all_gpus & ~sets.state.blocked_gpus & ~sets.masks
            # Where as many stay as there are, it is known which; else the best of that number is the bound.
            known = (stay >= tables.sizes[rest]) & (sets.state.blocked_gpus == 0)  # blocked ones never stay
            best = tables.left_best[np.minimum(stay, tables.count)]
            self._hope[stranded] = -np.where(known, tables.left[rest], best)
        keys = [self._links[rows], self._hope[stranded][rows]]
        first, second = keys if self._links_first else reversed(keys)
        later = (second > rank[1]) | ((second == rank[1]) & (sets.rows[rows] > rank[2]))
        worse: BoolTable = (first > rank[0]) | ((first == rank[0]) & later)
        return worse
