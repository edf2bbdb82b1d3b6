"""Which of several plans that tie up to the work lost is best: cost keys 5 to 7."""

import numpy as np

from topod.flextopo.affinity import BoolTable, IntTable
from topod.preemption.sets import GpuSets


class Settle:
    """Ranks plans by their GPU sets (by place in `sets`) and further victims; less is better.

    A rank is (links, what is left, row in the family), for some requests what is left first. Without GPUs
    all plans are of one rank.
    """

    __slots__ = ("_freed", "_hope", "_links", "_links_first", "_sets", "_strands")

    def __init__(self, sets: GpuSets, *, links_first: bool) -> None:
        self._sets = sets
        self._links_first = links_first
        self._links: IntTable = -sets.family.links[sets.rows]
        state = sets.state
        self._freed = sets.sums([c.gpus for _, c in sets.holders]) | state.free_gpus
        self._strands: IntTable | None = None
        self._hope: dict[int, IntTable] = {}

    def expect(self, strands: IntTable) -> None:
        """Take it as known how many GPUs of each kind the further victims strand (a code per set)."""
        self._strands = strands
        self._hope.clear()

    def first(self, places: IntTable, part: int) -> int:
        """Return which of `places` is best if `part` are victims too."""
        links = self._links[places]
        state = self._sets.state
        extra = sum(c.gpus for i, c in enumerate(state.candidates) if part >> i & 1)
        stays = (self._freed[places] | extra) & ~state.blocked_gpus & ~self._sets.masks[places]
        left = -self._sets.tables.left[stays]
        return self._least(places, links, left)

    def rank(self, place: int, part: int) -> tuple[int, ...]:
        """Return the rank of a set if `part` are victims too."""
        state, mask = self._sets.state, self._sets.masks.item(place)
        if not mask:
            return ()
        freed = self._freed.item(place)
        for i, candidate in enumerate(state.candidates):
            if part >> i & 1:
                freed |= candidate.gpus
        left = -self._sets.tables.left.item(freed & ~state.blocked_gpus & ~mask)
        return self._in_order(place, left)

    def most_promising(self, places: IntTable, stranded: int) -> int:
        """Return which of `places` may become best by a plan that strands that many GPUs."""
        return self._least(places, self._links[places], self._hopes(stranded)[places])

    def worse(self, places: IntTable, stranded: int, rank: tuple[int, ...]) -> BoolTable:
        """Return which sets cannot reach `rank` by any plan that strands that many GPUs."""
        if not rank:
            return np.zeros(len(places), dtype=np.bool_)
        first, second = self._links[places], self._hopes(stranded)[places]
        if not self._links_first:
            first, second = second, first
        later = (second > rank[1]) | ((second == rank[1]) & (self._sets.rows[places] > rank[2]))
        worse: BoolTable = (first > rank[0]) | ((first == rank[0]) & later)
        return worse

    def is_worse(self, place: int, stranded: int, rank: tuple[int, ...]) -> bool:
        """Return the same for one set."""
        return bool(rank) and self._in_order(place, self._hopes(stranded).item(place)) > rank

    def _in_order(self, place: int, left: int) -> tuple[int, int, int]:
        links, row = self._links.item(place), self._sets.rows.item(place)
        return (links, left, row) if self._links_first else (left, links, row)

    def _least(self, places: IntTable, links: IntTable, left: IntTable) -> int:
        rows = self._sets.rows[places]  # in the order of lowest indices
        return int(places[np.lexsort((rows, left, links) if self._links_first else (rows, links, left))[0]])

    def _hopes(self, stranded: int) -> IntTable:
        """Return for each set a bound of what is left by plans that strand that many GPUs."""
        if stranded not in self._hope:
            # Free GPUs that the set does not take stay free, and so do those that are stranded.
            sets, tables = self._sets, self._sets.tables
            free, blocked = sets.state.free_gpus, sets.state.blocked_gpus
            stay = free.bit_count() - tables.sizes[sets.masks & free] + stranded
            rest = tables.all_gpus & ~blocked & ~sets.masks
            # Where as many stay as there are, it is known which; else the best of that number is the bound.
            known = (stay >= tables.sizes[rest]) & (blocked == 0)  # blocked ones never stay
            if self._strands is None:
                best = tables.left_best[np.minimum(stay, tables.count)]
            else:
                stays = self._freed & ~blocked & ~sets.masks
                best = tables.left_best_of_kinds[tables.kind_codes[stays] + self._strands]
            self._hope[stranded] = -np.where(known, tables.left[rest], best)
        return self._hope[stranded]
