"""The GPU sets still in the running, as arrays, and the cost keys that can be told from a set alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from topod.flextopo.affinity import IntTable
from topod.flextopo.tables import Family, TopologyTables
from topod.preemption.victims import Candidate, State

FEW = 24
"""Up to this many sets a plain loop is quicker than arrays."""
_WIDE = 1 << 62
"""Sums from here on do not fit 64 bits; arrays then hold Python's own numbers."""
_CHUNK = 8
"""Sums over holders are looked up in tables of 2 ** 8 entries, for 8 GPUs or holders at a time."""
_CHUNK_MASK = (1 << _CHUNK) - 1


class GpuSets:
    """Some sets of one family, in the family's order (that is, by lowest indices)."""

    __slots__ = ("_codes", "_touch", "family", "holders", "masks", "rows", "state", "tables")

    def __init__(
        self,
        tables: TopologyTables,
        state: State,
        family: Family,
        rows: IntTable,
        touch: "Touch",
    ) -> None:
        self.tables = tables
        self.state = state
        self.family = family
        self.rows = rows
        """Positions in the family."""
        self.masks: IntTable = family.masks[rows]
        self.holders = touch.holders
        """(position among the candidates, candidate) of the eligible holders of GPUs."""
        self._touch = touch
        self._codes: list[IntTable] | None = None

    @classmethod
    def usable(cls, tables: TopologyTables, state: State, family: Family) -> "GpuSets":
        """Return the sets of the family whose GPUs are all free or can be freed."""
        holders = [(i, c) for i, c in enumerate(state.candidates) if c.gpus & state.usable_gpus]
        if state.usable_gpus == tables.all_gpus:
            rows = np.arange(len(family.masks))
        else:
            rows = (family.masks & ~state.usable_gpus == 0).nonzero()[0]
        return cls(tables, state, family, rows, Touch(holders, tables.count))

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, keep: IntTable) -> "GpuSets":
        """Return the sets at these places (counted within this object)."""
        return GpuSets(self.tables, self.state, self.family, self.rows[keep], self._touch)

    def least(self, values: IntTable) -> "GpuSets":
        """Return the sets with the least value."""
        return self.only((values == values.min()).nonzero()[0])

    @property
    def touched_codes(self) -> list[IntTable]:
        """For each set which of `holders` it touches: bit i of entry k stands for holder 8 * k + i."""
        if self._codes is None:
            low, *high = self._touch.tables
            codes: IntTable = low[self.masks & _CHUNK_MASK]
            for number, table in enumerate(high, start=1):
                codes = codes | table[self.masks >> number * _CHUNK & _CHUNK_MASK]
            if len(self.holders) <= _CHUNK:
                self._codes = [codes]
            else:
                chunks = range(0, len(self.holders), _CHUNK)
                self._codes = [codes >> at & _CHUNK_MASK for at in chunks]
        return self._codes

    def sums(self, amounts: Sequence[int]) -> IntTable:
        """Return for each set the sum of `amounts` (one per entry of `holders`) over those it touches."""
        dtype = np.dtype(object) if sum(amounts) >= _WIDE else np.dtype(np.int64)
        total: IntTable | None = None
        for number, codes in enumerate(self.touched_codes):
            chunk = amounts[number * _CHUNK : (number + 1) * _CHUNK]
            part: IntTable = _subset_sums(chunk, dtype)[codes]
            total = part if total is None else total + part
        return np.zeros(len(self), dtype=dtype) if total is None else total

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


class Touch:
    """The holders of GPUs, and which of them a set of GPUs touches."""

    __slots__ = ("_count", "_tables", "holders")

    def __init__(self, holders: Sequence[tuple[int, Candidate]], count: int) -> None:
        self.holders = holders
        self._count = count
        self._tables: list[IntTable] | None = None

    @property
    def tables(self) -> list[IntTable]:
        """For each 8 GPUs a table by mask: the holders (bit i for `holders[i]`) that such GPUs touch."""
        if self._tables is None:
            bits = [0] * self._count
            for number, (_, candidate) in enumerate(self.holders):
                for i in range(self._count):
                    if candidate.gpus >> i & 1:
                        bits[i] = 1 << number
            self._tables = []
            for at in range(0, max(self._count, 1), _CHUNK):
                table = [0]
                for bit in bits[at : at + _CHUNK]:
                    table += [touched | bit for touched in table]
                self._tables.append(np.array(table, dtype=np.int64))
        return self._tables


def _subset_sums(amounts: Sequence[int], dtype: np.dtype[Any]) -> IntTable:
    """Return a table by mask: the sum of the amounts whose bits are set."""
    table = np.zeros(1 << len(amounts), dtype=dtype)
    for i, amount in enumerate(amounts):
        np.add(table[: 1 << i], amount, out=table[1 << i : 2 << i])
    return table
