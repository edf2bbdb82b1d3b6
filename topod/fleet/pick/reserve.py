"""How many CPUs victims can give, level by level: a bound for GPU sets whose own holders give too few."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from topod.fleet.pick.levels import MOST_EXTRA, Levels
from topod.fleet.pick.rows import FloatTable, KindRows
from topod.fleet.pick.shape import Need, Shape, lacks
from topod.flextopo.affinity import BoolTable, IntTable

_SUM_BITS: Final = 20  # more than CPUs of a host


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Givers:
    """Eligible victims of some hosts: whose they are, their level, the CPUs that each gives (by atoms)."""

    host: IntTable
    rank: IntTable
    cpus: IntTable


def givers(kind: KindRows, rows: IntTable, rank: IntTable, levels: Levels, small_rank: IntTable) -> Givers:
    """Return the eligible victims of the hosts in `rows`, in which a host may come several times.

    `rank` has the levels of those with GPUs (rows by slots), `small_rank` those of the others; the rank
    `levels.count` is for those who may not be victims. `host` counts within `rows`.
    """
    large = rank.ravel() < levels.count
    small, of = kind.small.of_rows(rows, small_rank < levels.count)
    width = rank.shape[1]
    cpus = kind.cpus[rows, :width].reshape(len(rows) * width, len(kind.atoms))
    return Givers(
        host=np.concatenate([np.repeat(np.arange(len(rows)), width)[large], of]),
        rank=np.concatenate([rank.ravel()[large], small_rank[small]]),
        cpus=np.concatenate([cpus[large], kind.small.cpus[small]]).astype(np.int64),
    )


class Reserve:
    """What the victims of some hosts can give to the areas of the needs of one shape."""

    def __init__(self, shape: Shape, found: Givers, hosts: int, levels: Levels) -> None:
        self._shape = shape
        self._found = found
        self._hosts = hosts
        self._levels = levels

    def further(
        self, hosts: IntTable, free: IntTable, mixes: IntTable
    ) -> tuple[FloatTable, IntTable, BoolTable]:
        """Return what further victims add to cost key 1 of each row at least, the CPU steps missed, who can.

        `free` has the CPUs (rows by atoms) that are free once the row's own victims are gone; the row lacks
        some at every CPU level. The first is rows by words of `Levels`; the last says for which rows there
        are enough victims.
        """
        best = np.full((len(hosts), self._levels.words), np.inf)
        steps = np.zeros(len(hosts), dtype=np.int64)
        for step, needs in enumerate(self._shape.levels if self._levels.count else ()):
            for need in needs:
                at = need.demand.here[mixes].nonzero()[0]
                if len(at):
                    missing = lacks(need, free[at], mixes[at]) - need.slack[:, mixes[at]].T
                    words = self._least(need, hosts[at], missing)
                    better = _less(words, best[at])
                    best[at[better]], steps[at[better]] = words[better], step
        can: BoolTable = np.all(best < np.inf, axis=1)
        return best, steps, can if self._levels.count else np.zeros_like(can)

    def _least(self, need: Need, hosts: IntTable, missing: IntTable) -> FloatTable:
        """Return the words of victims who give what is missing (rows by areas); infinite where none do.

        Where each victim gives to one area only, the areas' victims add up; else the dearest area counts.
        """
        gives = self._found.cpus @ need.atoms
        alone = np.ones(self._hosts, dtype=np.bool_)
        alone[self._found.host[(gives > 0).sum(axis=1) > 1]] = False
        adds = alone[hosts]
        words = np.zeros((len(hosts), self._levels.words))
        spare = np.full(len(hosts), MOST_EXTRA, dtype=np.int64)
        for area in range(missing.shape[1]):
            at = (missing[:, area] > 0).nonzero()[0]
            if not len(at):
                continue
            rank, count = self._count(gives[:, area], hosts[at], missing[at, area])
            count = np.minimum(count, spare[at])
            here = self._levels.weights[rank] * count[:, None]
            here[rank == self._levels.count] = np.inf
            spare[at] -= np.where(adds[at], count, 0)
            dearest = np.where(_less(words[at], here)[:, None], here, words[at])
            words[at] = np.where(adds[at][:, None], words[at] + here, dearest)
        # A row lacks something even if no area tells what: one victim of the lowest level at least.
        words[(words == 0).all(axis=1)] = self._levels.weights[0]
        return words

    def _count(self, gives: IntTable, hosts: IntTable, wanted: IntTable) -> tuple[IntTable, IntTable]:
        """Return the lowest rank that victims must reach to give the CPUs wanted, and how many of it.

        All victims of lower ranks are taken to give theirs. `gives` is what each of the givers gives. Where
        all together do not suffice, the rank is the number of levels.
        """
        levels = self._levels.count
        group = self._found.host * levels + self._found.rank
        total = np.zeros(self._hosts * levels, dtype=np.int64)
        np.add.at(total, group, gives)
        reached = np.cumsum(total.reshape(self._hosts, levels), axis=1)
        rank = (reached[hosts] < wanted[:, None]).sum(axis=1)
        top = np.minimum(rank, levels - 1)
        rest = wanted - reached[hosts, top] + total.reshape(self._hosts, levels)[hosts, top]
        # Within a group those who give most come first: the sums of the first one, two, three... rise.
        order = np.lexsort((-gives, group))
        group, gives = group[order], gives[order]
        start = np.searchsorted(group, np.arange(len(total)))
        sums = np.cumsum(gives)
        sums -= (np.concatenate([[0], sums])[start])[group]
        asked = hosts * levels + top
        first = np.searchsorted(group << _SUM_BITS | sums, asked << _SUM_BITS | rest)
        return rank, np.where(rank < levels, first - start[asked] + 1, 0)


def _less(a: FloatTable, b: FloatTable) -> BoolTable:
    """Return which rows of `a` come before those of `b`, the first word counting most."""
    less = np.zeros(len(a), dtype=np.bool_)
    equal = np.ones(len(a), dtype=np.bool_)
    for mine, other in zip(a.T, b.T, strict=True):
        less |= equal & (mine < other)
        equal &= mine == other
    return less
