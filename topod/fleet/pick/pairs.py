"""Pairs of a host and a GPU set whose holders are the victims: what each costs."""

from typing import Final

import numpy as np

from topod.fleet.pick.cost import STEP
from topod.fleet.pick.keys import Column, least_each, tail
from topod.fleet.pick.levels import Levels
from topod.fleet.pick.reserve import Givers, Reserve, givers
from topod.fleet.pick.rows import FloatTable, KindRows
from topod.fleet.pick.shape import Shape
from topod.flextopo.affinity import BoolTable, IntTable

_BLOCK: Final = 256
KEYS: Final = 7
"""Columns beside those of cost key 1, and of the share with `spread`."""


class Pairs:
    """Some pairs, host by host. `rank`, `gpus` and `work` are of the eligible holders, hosts by slots."""

    def __init__(
        self,
        kind: KindRows,
        shape: Shape,
        levels: Levels,
        *,
        rows: IntTable,
        rank: IntTable,
        gpus: IntTable,
        stops: IntTable,
        work: FloatTable,
        places: IntTable,
        sets: IntTable,
    ) -> None:
        self._kind = kind
        self._shape = shape
        self._levels = levels
        self._rows = rows
        self._rank = rank
        self._places = places
        """The host of each pair, within `rows`."""
        self._sets = sets
        """The GPU set of each pair, by its place in the family."""
        slots = np.broadcast_to(1 << np.arange(gpus.shape[1]), gpus.shape)
        lost = kind.elsewhere[rows, : gpus.shape[1]]
        weights = levels.weights[rank] * stops[:, :, None]
        parts = [weights, np.stack([gpus, work, slots, lost], axis=2)]
        if shape.levels:
            parts.append(kind.cpus[rows, : gpus.shape[1]])
        sums = _sums(shape.family.masks, gpus, np.concatenate(parts, axis=2))[places, sets]
        words = levels.words
        self._own: FloatTable = sums[:, :words]
        """Cost key 1, as words of `Levels`, of the set's own holders."""
        self._words: FloatTable = self._own
        """The same with what further victims add."""
        self._freed: IntTable = sums[:, words].astype(np.int64)
        """GPUs that the victims lose, as masks: no two hold the same one."""
        self._work: FloatTable = sums[:, words + 1]
        self._victims: IntTable = sums[:, words + 2].astype(np.int64)
        self._elsewhere: IntTable = sums[:, words + 3].astype(np.int64)
        """GPUs that the victims lose on other hosts."""
        self._cpus: IntTable = sums[:, words + 4 :].astype(np.int64)
        self._cpu_steps: IntTable = np.zeros(len(places), dtype=np.int64)

    def within_budgets(self) -> IntTable:
        """Return the pairs whose victims keep the disruption budgets."""
        at = np.arange(len(self._places))
        for number in range(self._kind.members.shape[1]):
            members = self._kind.members[self._rows, number]
            stops = self._kind.stops[self._rows, number]
            counted = self._kind.tables.sizes[self._victims[at] & members[self._places[at]]]
            at = at[counted <= stops[self._places[at]]]
        return at

    def settle_cpus(self, at: IntTable, small_rank: IntTable) -> IntTable:
        """Return which of the pairs at `at` may have their CPUs, with what that adds to their costs.

        Of a host whose cheapest pairs have enough, only those come back.
        """
        _, cheap = least_each(self._word_columns(), self._places, at)
        met = cheap[self._settle_own(cheap)]
        served = np.zeros(len(self._rows), dtype=np.bool_)
        served[self._places[met]] = True
        rest = at[~served[self._places[at]]]
        if not len(rest):
            return met
        enough = self._settle_own(rest)
        possible = self._settle_further(rest[~enough], rest[enough], small_rank)
        return np.sort(np.concatenate([met, possible]))

    def _settle_further(self, short: IntTable, enough: IntTable, small_rank: IntTable) -> IntTable:
        """Note what further victims cost the pairs `short` at least; return `enough` and those that find any.

        First as if a pair's own victims could give their CPUs once more, which is told for all pairs of a
        host at once. Where such a pair is its host's cheapest, it is looked at with the others only.
        """
        self._words = self._own.copy()
        hosts = np.unique(self._places[short])
        within = np.zeros(len(self._rows), dtype=np.int64)
        within[hosts] = np.arange(len(hosts))
        found = givers(self._kind, self._rows[hosts], self._rank[hosts], self._levels, small_rank)
        short = self._note(short, within[self._places[short]], found, len(hosts))
        possible = np.sort(np.concatenate([enough, short]))
        if not len(short):
            return possible
        _, lowest = least_each(self._word_columns(), self._places, possible)
        again = lowest[np.isin(lowest, short)]
        hosts, slots = self._places[again], np.arange(self._rank.shape[1])
        own = self._victims[again][:, None] >> slots & 1
        others = np.where(own == 1, self._levels.count, self._rank[hosts])
        found = givers(self._kind, self._rows[hosts], others, self._levels, small_rank)
        kept = self._note(again, np.arange(len(again)), found, len(again))
        return possible[~np.isin(possible, again) | np.isin(possible, kept)]

    def _note(self, pairs: IntTable, of: IntTable, found: Givers, hosts: int) -> IntTable:
        """Note what further victims add; return the pairs for which there are enough.

        `of` tells which of the hosts that `found` counts is each pair's.
        """
        reserve = Reserve(self._shape, found, hosts, self._levels)
        words, steps, can = reserve.further(of, self._free(pairs), self._mixes(pairs))
        pairs = pairs[can]
        self._words[pairs] = self._own[pairs] + words[can]
        self._cpu_steps[pairs] = steps[can]
        return pairs

    def _settle_own(self, at: IntTable) -> BoolTable:
        """Note the CPU steps of pairs whose own victims give enough; return which do."""
        steps = self._shape.cpu_steps(self._free(at), self._mixes(at))
        enough: BoolTable = steps < len(self._shape.levels)
        self._cpu_steps[at[enough]] = steps[enough]
        return enough

    def _free(self, at: IntTable) -> IntTable:
        """Return the CPUs (by atoms) that are free once the victims are gone."""
        free: IntTable = self._kind.pool[self._rows[self._places[at]]] + self._cpus[at]
        return free

    def _mixes(self, at: IntTable) -> IntTable:
        return self._shape.family.mix[self._sets[at]]

    def _word_columns(self) -> list[Column]:
        return [_take(self._words[:, number]) for number in range(self._levels.words)]

    def columns(self, share: FloatTable | None) -> list[Column]:
        """Return the cost keys from victims to links; `share` as for `keys.tail`, by host."""
        family, sets, places = self._shape.family, self._sets, self._places
        masks = family.masks[sets]
        before = self._kind.free[self._rows][places]
        after = before
        if self._shape.gpus:
            after = (before | self._freed) & ~self._kind.blocked[self._rows][places] & ~masks
        return [
            *self._word_columns(),
            _take(family.steps[sets] * STEP + self._cpu_steps),
            _take(self._kind.tables.sizes[self._freed & ~masks] + self._elsewhere),
            _take(self._work),
            *tail(
                self._kind,
                self._shape,
                sets=sets,
                before=before,
                after=after,
                share=None if share is None else share[places],
            ),
        ]


def _sums(masks: IntTable, gpus: IntTable, amounts: FloatTable) -> FloatTable:
    """Return the sums of `amounts` (hosts by slots by columns) over the slots that each set touches.

    Hosts by sets by columns. The products are made in blocks that are too small to be worth the threads of a
    BLAS: on a busy machine waiting for each other costs those fifty times the work.
    """
    blocks = -(-len(masks) // _BLOCK)
    size = -(-len(masks) // blocks)
    padded = np.zeros(blocks * size, dtype=np.int32)
    padded[: len(masks)] = masks
    touched = padded.reshape(blocks, size, 1) & gpus.astype(np.int32)[:, None, None, :] != 0
    sums: FloatTable = touched.astype(np.float64) @ amounts[:, None]
    return sums.reshape(len(gpus), blocks * size, amounts.shape[2])


def _take(values: IntTable | FloatTable) -> Column:
    return lambda at: values[at]
