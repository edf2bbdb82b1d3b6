"""The GPU sets still in the running, as arrays, and the cost keys that can be told from a set alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from topod.flextopo.affinity import BoolTable, IntTable
from topod.flextopo.tables import Family, TopologyTables
from topod.preemption.victims import Candidate, State

FEW = 24
"""Up to this many sets a plain loop is quicker than arrays."""
_WIDE = 1 << 62
"""Sums from here on do not fit 64 bits; arrays then hold Python's own numbers."""
_SMALL = 256
"""Up to this many sets a matrix of who touches whom is quicker than tables."""
_CHUNK = 8
"""Sums over holders are looked up in tables of 2 ** 8 entries, for 8 GPUs or holders at a time."""
_CHUNK_MASK = (1 << _CHUNK) - 1


class GpuSets:
    """Some sets of one family, in the family's order (that is, by lowest indices)."""

    __slots__ = ("_codes", "_matrix", "_touch", "family", "holders", "masks", "rows", "state", "tables")

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
        self._matrix: IntTable | None = None

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
        if len(keep) == len(self) and bool((keep[1:] > keep[:-1]).all()):
            return self  # nothing is left out
        return GpuSets(self.tables, self.state, self.family, self.rows[keep], self._touch)

    def least(self, values: IntTable) -> "GpuSets":
        """Return the sets with the least value."""
        return self.only((values == values.min()).nonzero()[0])

    def within(self, limits: Sequence[tuple[int, int]]) -> "GpuSets":
        """Return the sets that touch no more candidates of each mask (by position) than its limit says."""
        counts = self.counts([[members >> i & 1 for i, _ in self.holders] for members, _ in limits])
        most = np.array([limit for _, limit in limits], dtype=np.int64)[:, None]
        kept: BoolTable = np.all(counts <= most, axis=0)
        return self.only(kept.nonzero()[0])

    def sums(self, amounts: Sequence[int]) -> IntTable:
        """Return for each set the sum of `amounts` (one per entry of `holders`) over those it touches."""
        dtype = np.dtype(object) if sum(amounts) >= _WIDE else np.dtype(np.int64)
        if len(self) <= _SMALL:
            sums: IntTable = self._touched() @ np.array(amounts, dtype=dtype)
            return sums
        total = np.zeros(len(self), dtype=dtype)
        for number, codes in enumerate(self._touched_codes()):
            chunk = amounts[number * _CHUNK : (number + 1) * _CHUNK]
            total += _subset_sums(chunk, dtype)[codes]
        return total

    def counts(self, amounts: Sequence[Sequence[int]]) -> IntTable:
        """Return the same for several rows of small amounts at once: amounts by sets."""
        if len(self) <= _SMALL:
            shape = (len(amounts), len(self.holders))
            return np.array(amounts, dtype=np.int64).reshape(shape) @ self._touched().T
        return np.array([self.sums(row) for row in amounts], dtype=np.int64).reshape(-1, len(self))

    def _touched(self) -> IntTable:
        """Return 1 for each set and holder where the set touches the holder, else 0."""
        if self._matrix is None:
            self._matrix = ((self.masks[:, None] & self._touch.gpus) != 0).astype(np.int64)
        return self._matrix

    def _touched_codes(self) -> list[IntTable]:
        """Return for each set which of `holders` it touches: bit i of entry k is for holder 8 * k + i."""
        if self._codes is None:
            low, *high = self._touch.tables
            codes: IntTable = low[self.masks & _CHUNK_MASK]
            for number, table in enumerate(high, start=1):
                codes = codes | table[self.masks >> number * _CHUNK & _CHUNK_MASK]
            self._codes = [codes >> at & _CHUNK_MASK for at in range(0, len(self.holders), _CHUNK)]
        return self._codes

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
            if victims or sets.state.spoils:
                freed = sets.sums([c.gpus.bit_count() + c.holder.elsewhere for _, c in sets.holders])
                taken = sum(c.gpus for _, c in sets.holders) | sets.state.spoils
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
        free, open_gpus, spoils = self.state.free_gpus, ~self.state.blocked_gpus, self.state.spoils
        all_links, all_left = self.tables.links, self.tables.left
        best: tuple[int, int, int, int] | None = None
        best_mask = 0
        for mask in self.masks.tolist():
            freed = work = elsewhere = 0
            for _, candidate in self.holders:
                if candidate.gpus & mask:
                    freed |= candidate.gpus
                    work += candidate.holder.work
                    elsewhere += candidate.holder.elsewhere
            links = -int(all_links[mask])
            left = -int(all_left[(freed | free) & open_gpus & ~mask])
            first, second = (links, left) if links_first else (left, links)
            stranded = ((freed | spoils) & ~mask).bit_count() + elsewhere
            key = (stranded, work, first, second)
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

    __slots__ = ("_count", "_tables", "gpus", "holders")

    def __init__(self, holders: Sequence[tuple[int, Candidate]], count: int) -> None:
        self.holders = holders
        self.gpus: IntTable = np.array([c.gpus for _, c in holders], dtype=np.int64)
        self._count = count
        self._tables: list[IntTable] | None = None

    @property
    def tables(self) -> list[IntTable]:
        """For each 8 GPUs a table by mask: the holders (bit i for `holders[i]`) that such GPUs touch."""
        if self._tables is None:
            bits = [0] * self._count
            for number, (_, candidate) in enumerate(self.holders):
                gpus = candidate.gpus
                while gpus:
                    bits[(gpus & -gpus).bit_length() - 1] = 1 << number
                    gpus &= gpus - 1
            self._tables = []
            for at in range(0, max(self._count, 1), _CHUNK):
                chunk = bits[at : at + _CHUNK]
                table = np.zeros(1 << len(chunk), dtype=np.int64)
                for i, bit in enumerate(chunk):
                    np.bitwise_or(table[: 1 << i], bit, out=table[1 << i : 2 << i])
                self._tables.append(table)
        return self._tables


def _subset_sums(amounts: Sequence[int], dtype: np.dtype[Any]) -> IntTable:
    """Return a table by mask: the sum of the amounts whose bits are set."""
    table = np.zeros(1 << len(amounts), dtype=dtype)
    for i, amount in enumerate(amounts):
        np.add(table[: 1 << i], amount, out=table[1 << i : 2 << i])
    return table
