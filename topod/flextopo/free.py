"""Which groups the free GPUs of a host come to: for people."""

from collections import Counter
from typing import Final, NamedTuple

from topod.flextopo.tables import TopologyTables
from topod.model.request import Affinity

LEVELS: Final = (Affinity.NVLINK, Affinity.PCIE, Affinity.NUMA, Affinity.SOCKET)
"""The closest first."""


class Group(NamedTuple):
    """So many groups of that many free GPUs, each of which satisfies the level; single ones: `any`."""

    level: Affinity
    size: int
    number: int


def free_groups(tables: TopologyTables, free: int) -> tuple[Group, ...]:
    """Return the groups into which a mask of free GPUs falls: the closest first, the largest of these first.

    The largest group of a level is taken out, then the largest of what is left, and so on to the next level.
    """
    found: Counter[tuple[Affinity, int]] = Counter()
    for level in LEVELS:
        if free.bit_count() < 2:
            break
        parts = tables.parts(level)
        while (part := int(parts[free])).bit_count() > 1:
            found[level, part.bit_count()] += 1
            free ^= part
    if free:
        found[Affinity.ANY, 1] = free.bit_count()
    return tuple(Group(level, size, number) for (level, size), number in found.items())
