"""Which CPUs a job gets: whole core groups before split ones, whole cores before split ones.

Every choice is settled by the lowest CPU number, so the same state always gives the same CPUs.
"""

from collections.abc import Sequence

from topod.flextopo.tables import TopologyTables
from topod.model.request import CpuAffinity
from topod.placement.demand import CpuNeed


def choose_cpus(tables: TopologyTables, gpus: int, need: CpuNeed, level: CpuAffinity, pool: int) -> int:
    """Return the mask of CPUs for a job on `gpus` (a mask), taken from the free CPUs of `pool`.

    `need` is what the GPUs need at `level` and must be met by `pool`.
    """
    if not need.total:
        return 0
    chosen = 0
    if gpus and level is CpuAffinity.NUMA:
        chosen = _share_out(tables, need, pool)
    rest = need.total - chosen.bit_count()
    beside, socket = 0, 0
    for i, place in enumerate(tables.places):
        if gpus >> i & 1:
            beside |= tables.domains[place.domain].cpus if place.domain is not None else 0
            socket |= place.socket
    # Near CPUs first even where the level would allow others: it costs nothing.
    for area in (beside, socket, tables.cpus) if gpus else (tables.cpus,):
        free = pool & area & ~chosen
        count = min(rest, free.bit_count())
        if count:
            chosen |= _from_fewest_areas(tables, free, count)
            rest -= count
    return chosen


def _share_out(tables: TopologyTables, need: CpuNeed, pool: int) -> int:
    """Return the CPUs that each domain must give; the last domains that may give one fewer do."""
    chosen = 0
    areas = {domain.cpus for domain in tables.domains}
    for area, count in need.fixed:
        if area in areas and (area, count) != (tables.cpus, need.total):  # the caller takes that one
            chosen |= pick(tables, pool & area, count)
    short = sum((pool & area).bit_count() < count for area, count in need.flexible)
    spare = need.fewer - short
    for area, count in reversed(need.flexible):
        lacking = (pool & area).bit_count() < count
        less = lacking or spare > 0
        spare -= less and not lacking
        chosen |= pick(tables, pool & area, count - less)
    return chosen


def _from_fewest_areas(tables: TopologyTables, pool: int, count: int) -> int:
    """Return `count` CPUs of the pool from as few NUMA nodes as possible."""
    frees = [pool & area for area in tables.cores.areas if pool & area]
    fitting = [free for free in frees if free.bit_count() >= count]
    if fitting:  # the tightest, so that roomy nodes stay so
        return pick(tables, min(fitting, key=lambda free: (free.bit_count(), free & -free)), count)
    chosen = 0
    for free in sorted(frees, key=lambda free: (-free.bit_count(), free & -free)):
        rest = count - chosen.bit_count()
        if not rest:
            break
        if free.bit_count() > rest:
            return chosen | _from_fewest_areas(tables, pool & ~chosen, rest)
        chosen |= free
    return chosen


def pick(tables: TopologyTables, pool: int, count: int) -> int:
    """Return `count` CPUs of a pool inside one NUMA node: whole groups, whole cores, then threads."""
    area = next((area for area in tables.cores.areas if not pool & ~area), tables.cpus)
    if pool.bit_count() == count:
        return pool
    chosen = 0
    groups: list[tuple[int, ...]] = []
    whole: list[_Whole] = []
    for group, cores in tables.cores.groups(area):
        free = group & pool
        size = group.bit_count()
        if free == group and size <= count:
            chosen |= group
            count -= size
        elif free:
            groups.append(cores)
            if found := cores if free == group else [core for core in cores if not core & ~pool]:
                whole.append(_Whole(found, free))
    while count:
        best = _best_group(whole, count)
        if best is None:
            return chosen | _split_cores(groups, pool & ~chosen, count)
        whole.remove(best)
        for core in best.cores:
            size = core.bit_count()
            if size <= count:
                chosen |= core
                count -= size
    return chosen


class _Whole:
    """The free cores of a core group."""

    __slots__ = ("cores", "loose", "size", "smallest")

    def __init__(self, cores: Sequence[int], free: int) -> None:
        sizes = list(map(int.bit_count, cores))
        self.cores = cores
        self.size = sum(sizes)
        self.smallest = min(sizes)
        self.loose = free.bit_count() - self.size
        """Free threads of split cores."""


def _best_group(groups: list[_Whole], count: int) -> _Whole | None:
    """Return which group to take whole cores from: the emptiest that still fits all, else the fullest."""
    best: _Whole | None = None
    best_rank = (True, 0)
    for group in groups:
        if group.smallest <= count:
            fits = group.size >= count or (
                group.size >= count - count % group.smallest and group.size + group.loose >= count
            )
            rank = (not fits, group.size if fits else -group.size)
            if best is None or rank < best_rank:  # of equals the first
                best, best_rank = group, rank
    return best


def _split_cores(groups: list[tuple[int, ...]], pool: int, count: int) -> int:
    """Return threads of cores that are split already, then of whole ones; of equals the lowest numbers."""
    chosen = 0
    found = [core for cores in groups for core in cores if core & pool]
    for core in sorted(found, key=lambda core: (not core & ~pool, core & -core)):
        free = core & pool
        while free and count:
            chosen |= free & -free
            free &= free - 1
            count -= 1
    return chosen
