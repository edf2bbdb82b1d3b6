"""Jobs that hold CPUs but no GPU, of all hosts of a kind, in flat arrays: a host has none or hundreds."""

from math import inf
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from topod.flextopo.affinity import BoolTable, IntTable

FloatTable = NDArray[np.float64]
_ARRAYS: Final = ("row", "priority", "guard", "until", "start", "cpus")


class SmallHolders:
    """The arrays; unused places have row -1."""

    def __init__(self, atoms: int) -> None:
        self.row: IntTable = np.full(16, -1, dtype=np.int64)
        self.priority: NDArray[np.int32] = np.zeros(16, dtype=np.int32)
        self.guard: NDArray[np.int32] = np.zeros(16, dtype=np.int32)
        self.until: NDArray[np.float64] = np.zeros(16)
        self.start: NDArray[np.float64] = np.zeros(16)
        self.cpus: NDArray[np.int16] = np.zeros((16, atoms), dtype=np.int16)
        self._unused = list(range(16))
        self._places: dict[int, list[int]] = {}

    def add(self, row: int, standing: tuple[int, int, float], start: float, cpus: list[int]) -> None:
        """Add a holder of the host in `row`: its priority, guard and until when, as in `KindRows`."""
        if not self._unused:
            self._grow()
        place = self._unused.pop()
        self._places.setdefault(row, []).append(place)
        self.priority[place], self.guard[place], self.until[place] = standing
        self.row[place], self.start[place], self.cpus[place] = row, start, cpus

    def drop(self, row: int) -> None:
        """Forget all holders of a row."""
        places = self._places.pop(row, [])
        if places:
            self.row[places] = -1
            self._unused += places

    def move(self, old: int, new: int) -> None:
        """Give the holders of a row another one."""
        places = self._places.pop(old, [])
        if places:
            self._places[new] = places
            self.row[places] = new

    def of_rows(self, rows: IntTable, eligible: BoolTable) -> tuple[IntTable, IntTable]:
        """Return the eligible holders of some rows, each as (its place, which of `rows` it belongs to).

        A row that comes several times has its holders as often.
        """
        places = np.flatnonzero(eligible & (self.row >= 0))
        places = places[np.argsort(self.row[places], kind="stable")]
        of = self.row[places]
        start, end = np.searchsorted(of, rows), np.searchsorted(of, rows, side="right")
        many = end - start
        first = np.repeat(start - np.cumsum(many) + many, many)
        return places[first + np.arange(len(first))], np.repeat(np.arange(len(rows)), many)

    def next_change(self, rows: int, now: float) -> FloatTable:
        """Return when the next holder of each row may be stopped, or at a lower priority; inf: never."""
        found = np.full(rows, inf)
        for moments in (self.until, self.start):
            places = np.flatnonzero((self.row >= 0) & (moments > now) & (moments < inf))
            np.minimum.at(found, self.row[places], moments[places])
        return found

    def _grow(self) -> None:
        size = len(self.row)
        for name in _ARRAYS:
            array: NDArray[Any] = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.full_like(array, -1)]))
        self._unused = list(range(2 * size - 1, size - 1, -1))
