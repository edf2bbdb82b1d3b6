"""What hosts cost for requests that come again and again: worked out anew only where a host has changed.

Without victims the least key of a host follows from its free GPUs and CPUs, and from nothing that passes with
time. So it is kept for each kind of request, with the stamp of the host's row from which it was worked out.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from topod.fleet.pick.free import best_free, least_keys
from topod.fleet.pick.rows import FloatTable, KindRows
from topod.fleet.pick.shape import Shape
from topod.flextopo.affinity import IntTable

ROWS_MAX: Final = 1 << 20
"""Keys of hosts that are kept for all requests together: some 60 bytes each."""


@dataclass(slots=True)
class _Keys:
    """The least keys of hosts, one row each; inf where it does not fit. Stamp 0: not worked out yet."""

    stamps: IntTable
    keys: FloatTable


class Remembered:
    """The keys of one kind's hosts by shape of request. Not for several threads at once."""

    def __init__(self, kind: KindRows) -> None:
        self._kind = kind
        self._known: dict[tuple[Shape, bool], _Keys | None] = {}

    def best(
        self, shape: Shape, rows: IntTable, share: FloatTable | None
    ) -> tuple[tuple[float, ...], IntTable] | None:
        """Return what `best_free` does, which answers itself where a shape is seen for the first time."""
        if not len(rows):
            return None
        slot = (shape, share is not None)
        if slot not in self._known:
            self._make_room()
            self._known[slot] = None
            return best_free(self._kind, shape, rows, share)
        known = self._known.pop(slot)
        known = self._known[slot] = self._fresh(known, shape, rows, share)
        return _least(known.keys, rows)

    def with_room(self, shape: Shape, rows: IntTable) -> int:
        """Return how many of some hosts have room without a victim."""
        known = self._known.get((shape, False))
        if not len(rows):
            return 0
        if known is None:
            keys = least_keys(self._kind, shape, rows, None)
        else:
            keys = self._fresh(known, shape, rows, None).keys[rows]
        return int(np.isfinite(keys[:, 0]).sum())

    def _fresh(self, known: _Keys | None, shape: Shape, rows: IntTable, share: FloatTable | None) -> _Keys:
        """Return the keys with those of `rows` as they are now."""
        stamps = self._kind.stamp
        stale = np.ones(len(rows), dtype=np.bool_)
        if known is not None:
            known = _grown(known, len(stamps))
            stale = known.stamps[rows] != stamps[rows]
        if known is None or stale.any():
            at = rows[stale]
            found = least_keys(self._kind, shape, at, None if share is None else share[stale])
            if known is None:
                width = found.shape[1]
                known = _Keys(np.zeros(len(stamps), dtype=np.int64), np.full((len(stamps), width), np.inf))
            known.keys[at], known.stamps[at] = found, stamps[at]
        return known

    def _make_room(self) -> None:
        """Forget the shapes that were not asked for the longest."""
        most = max(2, ROWS_MAX // max(1, len(self._kind.stamp)))
        while len(self._known) >= most:
            del self._known[next(iter(self._known))]


def _grown(known: _Keys, rows: int) -> _Keys:
    missing = rows - len(known.stamps)
    if missing <= 0:
        return known
    more = np.full((missing, known.keys.shape[1]), np.inf)
    stamps = np.concatenate([known.stamps, np.zeros(missing, dtype=np.int64)])
    return _Keys(stamps, np.concatenate([known.keys, more]))


def _least(keys: FloatTable, rows: IntTable) -> tuple[tuple[float, ...], IntTable] | None:
    """Return the least key of some rows, column by column, and which of them have it."""
    key = []
    for column in keys.T:
        values = column[rows]
        low = values.min()
        if low == np.inf:
            return None
        key.append(float(low))
        rows = rows[values == low]
    return tuple(key), rows
