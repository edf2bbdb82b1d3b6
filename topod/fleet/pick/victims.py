"""Bounds for hosts on which someone must be stopped: no plan on a host costs less than its bound.

Three looks at a host, each closer and dearer than the one before. How many GPUs are free or can be freed at
each level bounds the highest level that loses someone, and how many of it (the head). Then every GPU set with
its own holders as victims, and where these give too few CPUs the least that further victims must cost: often
that is the very cost. Disruption budgets are kept by a set's own victims only. The last look, not made here,
is the planner of one host.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final

import numpy as np

from topod.fleet.pick.cost import FleetKey
from topod.fleet.pick.kept import Kept
from topod.fleet.pick.keys import first_of_each, least_each
from topod.fleet.pick.levels import MOST_EACH, NEVER, Levels, head
from topod.fleet.pick.pairs import KEYS, Pairs
from topod.fleet.pick.rows import FloatTable, KindRows
from topod.fleet.pick.shape import Shape
from topod.flextopo.affinity import BoolTable, IntTable

_CELLS: Final = 1 << 19
"""(host, GPU set, holder) triples looked at together."""
_FIRST: Final = 8
"""So many old bounds are worked out anew first, then twice as many."""
_WORK: Final = float(1 << 48)
"""A bound counts at most that much lost work of a holder, so that sums stay exact in floats."""


class VictimBounds:
    """The bounds of the hosts of one kind for one request at one moment."""

    def __init__(
        self,
        kind: KindRows,
        shape: Shape,
        rows: IntTable,
        share: FloatTable | None,
        *,
        levels: Levels,
        now: float,
        kept: Kept,
    ) -> None:
        """`kept` has what earlier decisions found out, and gets what this one does."""
        self.kind = kind
        self.rows = rows
        self._shape = shape
        self._share = share
        self.levels = levels
        self._now = now
        used = np.s_[rows, : kind.width]
        priority = np.where(now < kind.until[used], kind.guard[used], kind.priority[used])
        self._rank = np.where(kind.start[used] <= now, levels.rank_of[priority], levels.count)
        self._gpus = np.where(self._rank < levels.count, kind.gpus[used], 0)
        self._stops = np.minimum(kind.stopping[used], MOST_EACH)
        freed = self._gpus.sum(axis=1, dtype=np.int64)
        self.usable: IntTable = kind.free[rows] | (freed & ~kind.blocked[rows])
        """GPUs that are free or can be freed."""
        self._words = levels.words
        columns = self._words + KEYS + (share is not None)
        self._kept = kept.of(shape, tuple(levels.values), columns)
        self._seen: BoolTable = self._kept.holds(kind, rows, now)
        self.head: IntTable = np.where(self._seen, self._kept.heads[rows], self._count_heads())
        """What each host's plans cost at least, as `Levels.heads` tells; `NEVER`: done with, or no plan."""
        self._small_rank: IntTable | None = None

    @property
    def fits(self) -> BoolTable:
        """False where no GPU set that may be the request's can be freed, of hosts that were looked at."""
        fits: BoolTable = self._kept.fits[self.rows] | ~self._seen
        return fits

    def _count_heads(self) -> IntTable:
        """Return bounds told by numbers of GPUs alone, of the hosts of which nothing is kept."""
        sizes, last = self.kind.tables.sizes, self.levels.count
        lacking = self._shape.gpus - sizes[self.kind.free[self.rows]]
        heads = np.where(sizes[self.usable] < self._shape.gpus, NEVER, 0)
        at = ((lacking > 0) & (heads == 0) & ~self._seen).nonzero()[0]
        if not len(at):
            return heads
        # What blocks keep is counted too: that promises no less.
        rank, gives, lacking = self._rank[at], sizes[self._gpus[at]], lacking[at]
        # np.take_along_axis says the same and takes twice as long for arrays as small as these.
        hosts, order = np.arange(len(at))[:, None], np.argsort(rank, axis=1, kind="stable")
        rank, gives = rank[hosts, order], gives[hosts, order]
        enough = np.argmax(np.cumsum(gives, axis=1) >= lacking[:, None], axis=1)
        top = rank[hosts, enough[:, None]]
        below = np.where(rank < top, gives, 0).sum(axis=1)
        most = np.where(rank == top, gives, 0).max(axis=1)
        heads[at] = np.where(top[:, 0] < last, head(top[:, 0], -(-(lacking - below) // most)), NEVER)
        return heads

    def look(self, tier: int) -> None:
        """Have a closer look at the hosts whose head is `tier`: some heads rise."""
        at = ((self.head == tier) & ~self._seen).nonzero()[0]
        self._look_closely(at)
        self.head[at] = self._kept.heads[self.rows[at]]
        self._seen[at] = True

    def in_order(self, tier: int) -> Iterator[tuple[FleetKey, int]]:
        """Yield (bound, row) of the hosts whose head is `tier`, the least first; they count as done then."""
        at = (self.head == tier).nonzero()[0]
        self.head[at] = NEVER
        columns = self._columns(at)
        order = np.lexsort(columns[::-1])
        # Bounds of before come in their own order, and are worked out anew as their turn comes.
        old = self._kept.at[self.rows[at]] < self._now
        waiting: list[tuple[FleetKey, int]] = []
        begin, many = 0, _FIRST
        while waiting or begin < len(order):
            if begin < len(order) and not (waiting and waiting[0] < self._entry(at, columns, order[begin])):
                part = order[begin : begin + many]
                begin, many = begin + many, 2 * many
                again = at[part[old[part]]]
                if len(again):
                    self._look_closely(again)
                    news = self._columns(again)
                    for place in range(len(again)):
                        heappush(waiting, self._entry(again, news, place))
                for place in part[~old[part]].tolist():
                    heappush(waiting, self._entry(at, columns, place))
            else:
                yield heappop(waiting)

    def _columns(self, at: IntTable) -> list[IntTable | FloatTable]:
        """Return the columns by which hosts (places within `rows`) are put in order."""
        kind, rows = self.kind, self.rows[at]
        sign = 1 if self._share is None else -1
        sums = sign * kind.tables.sizes[kind.free[rows]], sign * kind.free_cpus[rows]
        return [*self._kept.keys[:, rows], *sums, kind.by_name[rows]]

    def _entry(self, at: IntTable, columns: list[IntTable | FloatTable], place: int) -> tuple[FleetKey, int]:
        """Return (bound, row) of one of the hosts at `at`, whose `columns` these are."""
        row = int(self.rows[at[place]])
        words = [word[place].item() for word in columns[: self._words]]
        rest = [column[place].item() for column in columns[self._words : -1]]
        return (self.levels.victims(words), *rest, self.kind.snapshots[row].host), row

    def _look_closely(self, at: IntTable) -> None:
        """Work out the bounds of some hosts (places within `rows`), and keep them."""
        per_host = len(self._shape.family.masks) * max(self.kind.width, 1)
        chunk = max(1, _CELLS // max(per_host, 1))
        for start in range(0, len(at), chunk):
            self._look_at(at[start : start + chunk])
        if len(at):
            self._kept.note(self.kind, self.rows[at], self._now)

    def _look_at(self, hosts: IntTable) -> None:
        """Work out the bounds of some hosts from every GPU set."""
        fits = self._shape.family.masks & ~self.usable[hosts][:, None] == 0
        rows, kept = self.rows[hosts], self._kept
        kept.fits[rows] = fits.any(axis=1)
        kept.heads[rows] = NEVER
        places, sets = fits.nonzero()
        if not len(places):
            return
        pairs = Pairs(
            self.kind,
            self._shape,
            self.levels,
            rows=rows,
            rank=self._rank[hosts],
            gpus=self._gpus[hosts],
            stops=self._stops[hosts],
            work=self._work(rows),
            places=places,
            sets=sets,
        )
        at = pairs.within_budgets()
        if self._shape.levels and len(at):
            at = pairs.settle_cpus(at, self._small())
        if len(at):
            share = None if self._share is None else self._share[hosts]
            keys, at = least_each(pairs.columns(share), places, at)
            theirs = places[at]
            found = rows[theirs[first_of_each(theirs)]]
            kept.keys[: len(keys), found] = keys
            kept.heads[found] = self.levels.heads(keys[: self._words], len(found))

    def _work(self, rows: IntTable) -> FloatTable:
        """Return the work that each holder loses, hosts by slots, as `hosts.occupancy_at` tells it."""
        used = np.s_[rows, : self.kind.width]
        lost = np.rint((self._now - self.kind.since[used]) * 1000)
        work: FloatTable = np.minimum(np.maximum(lost, 0) * self.kind.working[used], _WORK)
        return work

    def _small(self) -> IntTable:
        """Return the levels of the holders without GPUs, where they may be victims."""
        if self._small_rank is None:
            small, levels = self.kind.small, self.levels
            priority = np.where(self._now < small.until, small.guard, small.priority)
            rank = levels.rank_of[np.maximum(priority, 0)]
            self._small_rank = np.where(small.start <= self._now, rank, levels.count)
        return self._small_rank
