"""Which CPUs a job gets: whole core groups before split ones, whole cores before split ones.

Every choice is settled by the lowest CPU number, so the same state always gives the same CPUs.
"""

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
    for group, cores in tables.cores.groups(area):
        size = group.bit_count()
        if not group & ~pool and size <= count:
            chosen |= group
            count -= size
        elif group & pool:
            groups.append(cores)
    untouched = list(groups)
    while count:
        best = _best_group(untouched, pool, count)
        if best is None:
            return chosen | _split_cores(groups, pool & ~chosen, count)
        for core in untouched.pop(best):
            size = core.bit_count()
            if size <= count and not core & ~pool:
                chosen |= core
                count -= size
    return chosen


def _best_group(groups: list[tuple[int, ...]], pool: int, count: int) -> int | None:
    """Return which group to take whole cores from: the emptiest that still fits all, else the fullest."""
    best: tuple[bool, int, int] | None = None
    for i, cores in enumerate(groups):
        sizes = [core.bit_count() for core in cores if not core & ~pool]
        if sizes and min(sizes) <= count:
            free = sum(sizes)
            loose = sum((core & pool).bit_count() for core in cores) - free  # threads of split cores
            fits = free >= count or (free >= count - count % min(sizes) and free + loose >= count)
            rank = (not fits, free if fits else -free, i)
            best = rank if best is None or rank < best else best
    return None if best is None else best[2]


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
