"""Bounds that outlive the decision for which they were worked out: anew only where a host has changed.

A bound follows from a host's row, from who may be stopped by now, and from the work that is lost. While the
row and those who may be stopped stay as they are, work only grows, and with it the cost of every plan: an old
bound is still a bound, if no longer the closest.
"""

from dataclasses import dataclass, field
from math import inf
from typing import Final

import numpy as np

from topod.fleet.pick.rows import FloatTable, KindRows
from topod.fleet.pick.shape import Shape
from topod.flextopo.affinity import BoolTable, IntTable

ROWS_MAX: Final = 1 << 19
"""Bounds of hosts that are kept for all requests together: some 150 bytes each."""


@dataclass(slots=True)
class KeptBounds:
    """What was found out of the hosts of one kind for one sort of request, by row. Moments: epoch seconds."""

    keys: FloatTable
    """The bounds: columns of cost keys by rows."""
    heads: IntTable = field(init=False)
    fits: BoolTable = field(init=False)
    at: FloatTable = field(init=False)
    """When each was worked out."""
    _stamps: IntTable = field(init=False)
    """Of the row as it was then; 0: nothing is known."""
    _until: FloatTable = field(init=False)
    """From when on somebody may be stopped who might not before, or at a lower priority."""

    def __post_init__(self) -> None:
        rows = self.keys.shape[1]
        self.heads, self._stamps = np.zeros((2, rows), dtype=np.int64)
        self.fits = np.ones(rows, dtype=np.bool_)
        self.at, self._until = np.zeros((2, rows))

    def holds(self, kind: KindRows, rows: IntTable, now: float) -> BoolTable:
        """Return of which rows what is kept still holds at a moment."""
        same = self._stamps[rows] == kind.stamp[rows]
        holds: BoolTable = same & (self.at[rows] <= now) & (now < self._until[rows])
        return holds

    def note(self, kind: KindRows, rows: IntTable, now: float) -> None:
        """Take note that keys, heads and `fits` of some rows are those of this moment."""
        self._stamps[rows], self.at[rows] = kind.stamp[rows], now
        soonest = kind.small.next_change(len(kind.stamp), now)[rows]
        for moments in (kind.until[rows, : kind.width], kind.start[rows, : kind.width]):
            later = np.where(moments > now, moments, inf)
            soonest = np.minimum(soonest, later.min(axis=1, initial=inf))
        self._until[rows] = soonest


Slot = tuple[Shape, tuple[int, ...], int]
"""A request without its priority, the priorities below it, and how many columns a bound has."""


class Kept:
    """The bounds of one kind's hosts, for the requests of late. Not for several threads at once."""

    def __init__(self, kind: KindRows) -> None:
        self._kind = kind
        self._known: dict[Slot, KeptBounds] = {}

    def of(self, shape: Shape, levels: tuple[int, ...], columns: int) -> KeptBounds:
        """Return what is kept for a sort of request; `levels` are the priorities that may be stopped."""
        slot, rows = (shape, levels, columns), len(self._kind.stamp)
        known = self._known.pop(slot, None)
        if known is None or known.keys.shape[1] < rows:
            known = KeptBounds(np.zeros((columns, rows)))
        most = max(2, ROWS_MAX // rows)
        while len(self._known) >= most:
            del self._known[next(iter(self._known))]
        self._known[slot] = known
        return known
