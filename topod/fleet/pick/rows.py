"""The hosts of one kind of hardware as arrays: one row a host, kept up to date as snapshots come in."""

from collections.abc import Iterable
from functools import cached_property
from itertools import count
from math import inf
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from topod.errors import DataError
from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.fleet.pick.groups import all_codes
from topod.fleet.pick.small import SmallHolders
from topod.flextopo.affinity import BoolTable, IntTable
from topod.flextopo.tables import TopologyTables

FloatTable = NDArray[np.float64]
_ARRAYS: Final = (
    "open", "free", "blocked", "free_cpus", "pool", "gpus", "cpus", "priority", "guard", "until", "start",
    "stamp", "since", "working", "stopping", "elsewhere", "members", "stops",
)  # fmt: skip


class Priorities:
    """Numbers for the priorities of a fleet, in the order in which they were first seen."""

    __slots__ = ("_ids", "values")

    def __init__(self) -> None:
        self._ids: dict[int, int] = {}
        self.values: list[int] = []

    def number(self, priority: int) -> int:
        """Return the number of a priority."""
        found = self._ids.get(priority)
        if found is None:
            found = self._ids[priority] = len(self.values)
            self.values.append(priority)
        return found


class KindRows:
    """The hosts that share one `TopologyTables`. Rows from `count` on are unused."""

    def __init__(self, tables: TopologyTables, priorities: Priorities) -> None:
        self.tables = tables
        self.priorities = priorities
        self.atoms = _atoms(tables)
        """Parts of the host's CPUs: every area in which a job may need CPUs is made up of some of them."""
        self.snapshots: list[HostSnapshot] = []
        self.row_of: dict[str, int] = {}
        self.small = SmallHolders(len(self.atoms))
        self.width = 0
        """Columns in use: the most holders of GPUs that a host has had."""
        slots, atoms = max(tables.count, 1), len(self.atoms)
        self.open: BoolTable = np.zeros(1, dtype=np.bool_)
        self.free: IntTable = np.zeros(1, dtype=np.int64)
        self.blocked: IntTable = np.zeros(1, dtype=np.int64)
        self.free_cpus: IntTable = np.zeros(1, dtype=np.int64)
        self.stamp: IntTable = np.zeros(1, dtype=np.int64)
        """A number that no state of a host, and no other host, has had."""
        self._stamps = count(1)
        self._order: IntTable | None = None
        self.pool: NDArray[np.int32] = np.zeros((1, atoms), dtype=np.int32)
        """Free CPUs of each atom."""
        # Holders of GPUs, by host and slot; unused slots hold no GPU and are never evictable.
        self.gpus: NDArray[np.int32] = np.zeros((1, slots), dtype=np.int32)
        self.cpus: NDArray[np.int16] = np.zeros((1, slots, atoms), dtype=np.int16)
        self.priority: NDArray[np.int32] = np.zeros((1, slots), dtype=np.int32)
        self.guard: NDArray[np.int32] = np.zeros((1, slots), dtype=np.int32)
        self.until: FloatTable = np.zeros((1, slots))
        self.start: FloatTable = np.full((1, slots), inf)
        self.since: FloatTable = np.full((1, slots), inf)
        self.working: NDArray[np.int32] = np.zeros((1, slots), dtype=np.int32)
        self.stopping: NDArray[np.int32] = np.zeros((1, slots), dtype=np.int32)
        """Containers that stop with each."""
        self.elsewhere: NDArray[np.int32] = np.zeros((1, slots), dtype=np.int32)
        # Budgets that can spare someone, by host: whom they count (a mask of slots) and how many may stop.
        self.members: IntTable = np.zeros((1, 0), dtype=np.int64)
        self.stops: IntTable = np.zeros((1, 0), dtype=np.int64)

    @property
    def count(self) -> int:
        """How many hosts there are."""
        return len(self.snapshots)

    @cached_property
    def left(self) -> tuple[IntTable, ...]:
        """For each relation the code of each mask of free GPUs; see `groups.codes`."""
        return all_codes(self.tables)

    def first_by_name(self, rows: IntTable) -> int:
        """Return which of some rows has the host whose name comes first."""
        return int(rows[self.by_name[rows].argmin()])

    @property
    def by_name(self) -> IntTable:
        """The place of each row in the order of the hosts' names."""
        if self._order is None:
            names = np.array([snapshot.host for snapshot in self.snapshots])
            self._order = np.empty(self.count, dtype=np.int64)
            self._order[np.argsort(names)] = np.arange(self.count)
        return self._order

    def put(self, snapshot: HostSnapshot) -> None:
        """Add a host, or replace what is known of it. Raises `DataError` where two jobs hold one thing."""
        free, pool, blocked = self._read(snapshot)
        row = self.row_of.get(snapshot.host)
        if row is None:
            row = self.row_of[snapshot.host] = self.count
            self._order = None
            self.snapshots.append(snapshot)
            if row == len(self.free):
                self._grow()
        self.snapshots[row] = snapshot
        self.stamp[row] = next(self._stamps)
        self.open[row] = snapshot.closed is None
        self.free[row], self.blocked[row] = free, blocked[0]
        self.free_cpus[row] = pool.bit_count()
        self.pool[row] = [(pool & atom).bit_count() for atom in self.atoms]
        spared = {budget.name for budget in snapshot.budgets if budget.stops <= 0}
        allowed = self.tables.cpus & ~blocked[1]
        large = [held for held in snapshot.holders if held.gpus]
        self._put_holders(row, large, spared, allowed)
        self._put_budgets(row, snapshot, large)
        self.small.drop(row)
        for held in snapshot.holders:
            start = _start(held, spared)
            if not held.gpus and start < inf:
                self.small.add(row, self._standing(held), start, self._gives(held, allowed))

    def remove(self, host: str) -> None:
        """Forget a host: the last row takes its place."""
        row, last = self.row_of.pop(host), self.count - 1
        self.small.drop(row)
        if row != last:
            for name in _ARRAYS:
                array: NDArray[Any] = getattr(self, name)
                array[row] = array[last]
            self.stamp[row] = next(self._stamps)
            self.snapshots[row] = self.snapshots[last]
            self.row_of[self.snapshots[row].host] = row
            self.small.move(last, row)
        self.snapshots.pop()
        self._order = None

    def _read(self, snapshot: HostSnapshot) -> tuple[int, int, tuple[int, int]]:
        """Return the free GPUs, the free CPUs and what blocks keep of both."""
        blocked_gpus = blocked_cpus = held_gpus = held_cpus = 0
        for block in snapshot.blocks:
            blocked_gpus |= block.gpus
            blocked_cpus |= block.cpus.mask
        for held in snapshot.holders:
            if held.gpus & held_gpus or held.cpus.mask & held_cpus:
                raise DataError(f"{snapshot.host}: job {held.job} holds what another job holds too")
            held_gpus |= held.gpus
            held_cpus |= held.cpus.mask
        tables = self.tables
        if held_gpus & ~tables.all_gpus:
            raise DataError(f"{snapshot.host}: a job holds a GPU that the host does not have")
        free = tables.all_gpus & ~held_gpus & ~blocked_gpus
        return free, tables.cpus & ~held_cpus & ~blocked_cpus, (blocked_gpus, blocked_cpus)

    def _standing(self, held: HeldBy) -> tuple[int, int, float]:
        number = self.priorities.number
        usual = number(held.priority)
        if held.guard_priority is None:
            return usual, usual, 0.0
        return usual, number(held.guard_priority), held.guarded_until

    def _gives(self, held: HeldBy, allowed: int) -> list[int]:
        cpus = held.cpus.mask & allowed
        return [(cpus & atom).bit_count() for atom in self.atoms] if cpus else [0] * len(self.atoms)

    def _put_holders(self, row: int, large: list[HeldBy], spared: set[str], allowed: int) -> None:
        many = len(large)
        self.width = max(self.width, many)
        self.gpus[row] = 0
        self.start[row] = self.since[row] = inf
        if not many:
            return
        self.gpus[row, :many] = [held.gpus for held in large]
        self.cpus[row, :many] = [self._gives(held, allowed) for held in large]
        standing = [self._standing(held) for held in large]
        self.priority[row, :many], self.guard[row, :many], self.until[row, :many] = zip(
            *standing, strict=True
        )
        self.start[row, :many] = [_start(held, spared) for held in large]
        self.since[row, :many] = [inf if held.work_since is None else held.work_since for held in large]
        self.working[row, :many] = [held.work_gpus for held in large]
        self.stopping[row, :many] = [held.stops for held in large]
        self.elsewhere[row, :many] = [held.elsewhere for held in large]

    def _put_budgets(self, row: int, snapshot: HostSnapshot, large: Iterable[HeldBy]) -> None:
        binding = [budget for budget in snapshot.budgets if budget.stops > 0]
        missing = len(binding) - self.members.shape[1]
        if missing > 0:
            more = np.zeros((len(self.members), missing), dtype=np.int64)
            self.members, self.stops = np.hstack([self.members, more]), np.hstack([self.stops, more])
        self.members[row] = 0
        for at, budget in enumerate(binding):
            self.stops[row, at] = budget.stops
            self.members[row, at] = sum(1 << i for i, held in enumerate(large) if budget.name in held.budgets)

    def _grow(self) -> None:
        for name in _ARRAYS:
            array: NDArray[Any] = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros_like(array)]))


def _start(held: HeldBy, spared: set[str]) -> float:
    """Return from when on a holder may be a victim; never if it counts in a budget that can spare nobody."""
    never = held.evictable_from is None or bool(spared.intersection(held.budgets))
    return inf if never or held.evictable_from is None else held.evictable_from


def _atoms(tables: TopologyTables) -> tuple[int, ...]:
    """Return the parts into which domains and sockets cut the host's CPUs, as masks."""
    atoms = [tables.cpus] if tables.cpus else []
    for area in (*(domain.cpus for domain in tables.domains), *(socket for _, socket in tables.kinds)):
        atoms = [part for atom in atoms for part in (atom & area, atom & ~area) if part]
    return tuple(atoms)
