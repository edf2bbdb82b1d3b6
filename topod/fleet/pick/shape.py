"""One request on one kind of host: the GPU sets that may be its own, and the CPUs that each needs."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from topod.fleet.pick.rows import KindRows
from topod.flextopo.affinity import BoolTable, IntTable
from topod.flextopo.tables import Family
from topod.model.request import Affinity, Policy, ResourceRequest
from topod.placement.demand import Demand, cpu_levels, cpu_need, demands

_REMEMBERED: Final = 128  # shapes of requests that a kind keeps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Need:
    """CPUs that some mixes of GPUs need in the same areas of a host."""

    demand: Demand
    atoms: IntTable
    """atoms by areas: 1 where the atom is part of the area."""
    slack: IntTable
    """areas by mixes: 1 where the area may give one CPU fewer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """A request, its priority left aside."""

    gpus: int
    family: Family
    links_first: bool
    levels: tuple[tuple[Need, ...], ...]
    """For each CPU level that will do what the mixes need; empty for a request without CPUs."""

    def cpu_steps(self, free: IntTable, mixes: IntTable) -> IntTable:
        """Return by how many steps each row misses the CPU level asked for; `len(levels)`: no level holds.

        `free` has the free CPUs as rows by atoms, `mixes` the mix of each row.
        """
        steps = np.full(len(mixes), len(self.levels), dtype=np.int64)
        for step, needs in enumerate(self.levels):
            for need in needs:
                rows = (need.demand.here[mixes] & (steps > step)).nonzero()[0]
                if len(rows):
                    met = _met(need, free[rows], mixes[rows])
                    steps[rows[met]] = step
        return steps


def _met(need: Need, free: IntTable, mixes: IntTable) -> BoolTable:
    lacking = lacks(need, free, mixes)
    slack = need.slack[:, mixes].T
    met: BoolTable = np.all(lacking <= slack, axis=1)
    if need.demand.any_fewer:
        short = ((lacking == 1) & (slack == 1)).sum(axis=1)
        met &= short <= need.demand.fewer[mixes]
    return met


def lacks(need: Need, free: IntTable, mixes: IntTable) -> IntTable:
    """Return how many CPUs each row lacks in each area: rows by areas, below 0 where there are more."""
    wanted: IntTable = need.demand.wanted[:, mixes].T
    return wanted - free @ need.atoms


class Shapes:
    """The shapes of one kind of host, each worked out once."""

    __slots__ = ("_found", "_kind")

    def __init__(self, kind: KindRows) -> None:
        self._kind = kind
        self._found: dict[tuple[object, ...], Shape] = {}

    def of(self, request: ResourceRequest) -> Shape:
        """Return the shape of a request."""
        key = (request.gpus, request.affinity, request.policy, request.cpus, request.cpu_affinity)
        if key not in self._found:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[key] = self._build(request)
        return self._found[key]

    def _build(self, request: ResourceRequest) -> Shape:
        tables = self._kind.tables
        family = tables.family(request.gpus, request.affinity, strict=request.policy is Policy.GUARANTEED)
        levels = cpu_levels(request) if request.cpus and len(family.masks) else ()
        domains = tuple(domain.cpus for domain in tables.domains)
        return Shape(
            gpus=request.gpus,
            family=family,
            links_first=request.gpus > 1 and request.affinity is not Affinity.ANY,
            levels=tuple(
                tuple(
                    self._need(demand)
                    for demand in demands(
                        [cpu_need(tables, mix, request, level) for mix in family.mixes], domains
                    )
                )
                for level in levels
            ),
        )

    def _need(self, demand: Demand) -> Need:
        parts = [[int(not atom & ~region) for region in demand.regions] for atom in self._kind.atoms]
        shape = (len(self._kind.atoms), len(demand.regions))
        areas = np.arange(len(demand.regions), dtype=np.int64)[:, None]
        return Need(
            demand=demand,
            atoms=np.array(parts, dtype=np.int64).reshape(shape),
            slack=(demand.flexible >> areas & 1) * (demand.fewer > 0),
        )
