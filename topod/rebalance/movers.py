"""Who may move, where to, and what each way costs.

Costs are columns of three numbers that add up over jobs and compare from top to bottom: first restarts and
lost affinity, then work lost, then lost links and (once, for all jobs) what stays free.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from topod.flextopo.affinity import IntTable
from topod.flextopo.tables import TopologyTables
from topod.model.moves import Goal
from topod.model.occupancy import Holder, Occupancy
from topod.model.request import Affinity, Policy, ResourceRequest
from topod.placement.demand import CpuNeed, cpu_levels, cpu_need

STEPS: Final = 1 << 8
"""More than the steps of affinity that all jobs of a host together can lose."""
LINKS: Final = 1 << 21
"""More than twice what all pairs of a host of 20 GPUs score together."""
LEFT: Final = 1 << 20
"""More than the number of sets of free GPUs."""
_WIDE: Final = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """A job that may move, or the request that room is made for (then `holder` is None)."""

    holder: Holder | None
    request: ResourceRequest
    weight: int = 0
    """What its restart adds to the restarts by priority level as one number."""
    cpu_step: int = 0
    """Steps by which it misses its CPU affinity now."""

    @property
    def gpus(self) -> int:
        """The mask of the GPUs it holds."""
        return self.holder.gpus if self.holder is not None else 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ways:
    """The GPU sets that a mover may have afterwards, by lowest indices, with what each costs."""

    masks: IntTable
    costs: NDArray[Any]
    """Three rows, one column a way."""
    moves: IntTable
    """1 where the way is a restart, 0 where the job stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A host as the search for moves sees it."""

    tables: TopologyTables
    goal: Goal
    movers: tuple[Mover, ...]
    """The request that room is made for, and those with GPUs in the order of the occupancy."""
    cpu_movers: tuple[Mover, ...]
    """Those that hold pinned CPUs and no GPU."""
    usable: int
    """GPUs that are free or held by movers."""
    free: int
    pool: int
    """CPUs that are free or held by movers."""
    wide: bool
    """Costs do not fit 64 bits; arrays then hold Python's own numbers."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of costs."""
        return np.dtype(object) if self.wide else np.dtype(np.int64)


def read_scene(
    tables: TopologyTables, occupancy: Occupancy, requests: Mapping[str, ResourceRequest], goal: Goal
) -> Scene:
    """Return the host as the search sees it; `requests` names the jobs that may be restarted at all."""
    usable, pool = tables.all_gpus, tables.cpus
    for block in occupancy.blocks:
        usable &= ~block.gpus
        pool &= ~block.cpus.mask
    found: list[Holder] = []
    for holder in occupancy.holders:
        request = requests.get(holder.job)
        if request is not None and _may_move(holder, request, usable, goal):
            found.append(holder)
        else:
            usable &= ~holder.gpus
            pool &= ~holder.cpus.mask
    weights = _weights([holder.priority for holder in found])
    movers = [] if goal.ask is None else [Mover(holder=None, request=goal.ask)]
    movers += [
        Mover(
            holder=holder,
            request=requests[holder.job],
            weight=weights[holder.priority],
            cpu_step=cpu_step_of(tables, requests[holder.job], holder.gpus, holder.cpus.mask),
        )
        for holder in found
    ]
    total = sum(mover.weight for mover in movers)
    work = sum(holder.work for holder in found)
    return Scene(
        tables=tables,
        goal=goal,
        movers=tuple(mover for mover in movers if mover.holder is None or mover.gpus),
        cpu_movers=tuple(mover for mover in movers if mover.holder is not None and not mover.gpus),
        usable=usable,
        free=usable & ~sum(holder.gpus for holder in found),
        pool=pool,
        wide=max(total * STEPS * STEPS * 32, work) >= _WIDE,
    )


def _may_move(holder: Holder, request: ResourceRequest, usable: int, goal: Goal) -> bool:
    whole = holder.gpus.bit_count() == request.gpus and not holder.gpus & ~usable
    return whole and holder.evictable and holder.priority < goal.below


def _weights(priorities: Sequence[int]) -> dict[int, int]:
    """Return a weight per priority: one restart of a level weighs more than all of the levels below it."""
    weights: dict[int, int] = {}
    weight = 1
    for priority, count in sorted(Counter(priorities).items()):
        weights[priority] = weight
        weight *= count + 1
    return weights


def cpu_step_of(tables: TopologyTables, request: ResourceRequest, gpus: int, cpus: int) -> int:
    """Return by how many steps `cpus` beside `gpus` (masks) miss the CPU affinity of the request."""
    levels = cpu_levels(request)
    mix = tables.mix_of(gpus)
    for step, level in enumerate(levels):
        if cpu_need(tables, mix, request, level).met_by(cpus):
            return step
    return len(levels) - 1


def cpu_needs(tables: TopologyTables, mover: Mover, gpus: int) -> list[tuple[int, CpuNeed]]:
    """Return what the mover needs of CPUs beside `gpus` at each level that will do: (step, need).

    Of the levels that lose it nothing only the last: that is met wherever a closer one is.
    """
    levels = cpu_levels(mover.request)
    first = mover.cpu_step
    if mover.request.cpus == 0:
        levels, first = levels[:1], 0
    mix = tables.mix_of(gpus)
    return [(step, cpu_need(tables, mix, mover.request, levels[step])) for step in range(first, len(levels))]


def restart_cost(mover: Mover, *, affinity: int = 0, cpu_affinity: int = 0, links: int = 0) -> list[int]:
    """Return what a restart costs, as a column; further steps and links lost included."""
    work = mover.holder.work if mover.holder is not None else 0
    return [(mover.weight * STEPS + affinity) * STEPS + cpu_affinity, work, links * LEFT]


def ways_of(scene: Scene, mover: Mover) -> Ways:
    """Return the GPU sets that a mover with GPUs may have afterwards."""
    tables, request = scene.tables, mover.request
    family = tables.family(request.gpus, request.affinity, strict=request.policy is Policy.GUARANTEED)
    here = mover.gpus
    fits = family.masks & ~scene.usable == 0
    if mover.holder is not None and not mover.holder.cpus:
        fits &= family.masks != here  # without CPUs, a restart on the same GPUs is of no use
    masks, steps = family.masks[fits].tolist(), family.steps[fits].tolist()
    now = int(tables.steps(request.affinity)[here]) if here else 0
    had = tables.link_quality(here)[1]
    columns = [
        restart_cost(mover, affinity=max(0, step - now), links=had - tables.link_quality(mask)[1])
        for mask, step in zip(masks, steps, strict=True)
    ]
    moves = [1] * len(masks)
    if mover.holder is not None:
        masks, columns, moves = [here, *masks], [[0, 0, 0], *columns], [0, *moves]
    elif request.gpus == 0:
        masks, columns, moves = [0], [[0, 0, 0]], [0]
    else:
        moves = [0] * len(masks)  # the request itself is no restart
    return Ways(
        masks=np.array(masks, dtype=np.int64),
        costs=np.array(columns, dtype=scene.dtype).reshape(-1, 3).T,
        moves=np.array(moves, dtype=np.int64),
    )


def group_relation(goal: Goal) -> Affinity:
    """Return the affinity by which the groups of free GPUs are told."""
    return goal.ask.affinity if goal.ask is not None else goal.affinity
