"""The GPU sets still in the running, as arrays, and the cost keys that can be told from a set alone."""

from collections.abc import Sequence

import numpy as np

from topod.flextopo.affinity import IntTable
from topod.flextopo.tables import Family, TopologyTables
from topod.preemption.victims import Candidate, State

FEW = 24
"""Up to this many sets a plain loop is quicker than arrays."""
_WIDE = 1 << 62
"""Sums from here on do not fit 64 bits; arrays then hold Python's own numbers."""


class GpuSets:
    """Some sets of one family, in the family's order (that is, by lowest indices)."""

    __slots__ = ("family", "holders", "masks", "rows", "state", "tables")

    def __init__(
        self,
        tables: TopologyTables,
        state: State,
        family: Family,
        rows: IntTable,
        holders: Sequence[tuple[int, Candidate]],
    ) -> None:
        self.tables = tables
        self.state = state
        self.family = family
        self.rows = rows
        """Positions in the family."""
        self.masks: IntTable = family.masks[rows]
        self.holders = holders
        """(position among the candidates, candidate) of the eligible holders of GPUs."""

    @classmethod
    def usable(cls, tables: TopologyTables, state: State, family: Family) -> "GpuSets":
        """Return the sets of the family whose GPUs are all free or can be freed."""
        holders = [(i, c) for i, c in enumerate(state.candidates) if c.gpus & state.usable_gpus]
        if state.usable_gpus == tables.all_gpus:
            return cls(tables, state, family, np.arange(len(family.masks)), holders)
        rows = (family.masks & ~state.usable_gpus == 0).nonzero()[0]
        return cls(tables, state, family, rows, holders)

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, keep: IntTable) -> "GpuSets":
        """Return the sets at these places (counted within this object)."""
        return GpuSets(self.tables, self.state, self.family, self.rows[keep], self.holders)

    def least(self, values: IntTable) -> "GpuSets":
        """Return the sets with the least value."""
        return self.only((values == values.min()).nonzero()[0])

    def sums(self, amounts: Sequence[int]) -> IntTable:
        """Return for each set the sum of `amounts` (one per entry of `holders`) over those it touches."""
        wide = sum(amounts) >= _WIDE
        total = np.zeros(len(self.masks), dtype=object if wide else np.int64)
        for (_, candidate), amount in zip(self.holders, amounts, strict=True):
            if amount:
                total += (self.masks & candidate.gpus != 0) * (amount if wide else np.int64(amount))
        return total

    def weights(self) -> IntTable:
        """Return cost key 1 of each set, as the sum of the weights of the victims it needs."""
        return self.sums([c.weight for _, c in self.holders])

    def touched(self, mask: int) -> int:
        """Return the positions (as a mask) of the candidates that hold GPUs of the set."""
        return sum(1 << i for i, c in self.holders if c.gpus & mask)

    def best(self, *, victims: bool, links_first: bool) -> int:
        """Return the mask that is best by cost keys 3 to 7, its holders being the only victims."""
        sets = self
        if len(sets) > FEW:
            if victims:
                freed = sets.sums([c.gpus.bit_count() for _, c in sets.holders])
                taken = sum(c.gpus for _, c in sets.holders)
                sets = sets.least(freed - sets.tables.sizes[sets.masks & taken])
                sets = sets.least(sets.sums([c.holder.work for _, c in sets.holders]))
            if links_first and len(sets) > FEW:
                sets = sets.least(-sets.family.links[sets.rows])
            if len(sets) > FEW:
                sets = sets.least(-sets.left())
            if not links_first and len(sets) > FEW:
                sets = sets.least(-sets.family.links[sets.rows])
            if len(sets) > FEW:  # all keys tie, so the first is best
                return int(sets.masks[0])
        return sets.first(links_first=links_first) if len(sets) > 1 else int(sets.masks[0])

    def first(self, *, links_first: bool) -> int:
        """Return the mask that is best by cost keys 3 to 7, looking at one set after the other."""
        free, open_gpus = self.state.free_gpus, ~self.state.blocked_gpus
        all_links, all_left = self.tables.links, self.tables.left
        best: tuple[int, int, int, int] | None = None
        best_mask = 0
        for mask in self.masks.tolist():
            freed = work = 0
            for _, candidate in self.holders:
                if candidate.gpus & mask:
                    freed |= candidate.gpus
                    work += candidate.holder.work
            links = -int(all_links[mask])
            left = -int(all_left[(freed | free) & open_gpus & ~mask])
            first, second = (links, left) if links_first else (left, links)
            key = ((freed & ~mask).bit_count(), work, first, second)
            if best is None or key < best:
                best, best_mask = key, mask
        return best_mask

    def left(self) -> IntTable:
        """Return for each set how good the GPUs are that stay free, its holders being the only victims."""
        freed = self.sums([c.gpus for _, c in self.holders])
        state = self.state
        ranks: IntTable = self.tables.left[(freed | state.free_gpus) & ~state.blocked_gpus & ~self.masks]
        return ranks
