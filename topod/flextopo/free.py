"""Which groups the free GPUs of a host come to, and which GPUs of it belong together: for people."""

from collections import Counter
from typing import Final, NamedTuple

from topod.flextopo.affinity import neighbours
from topod.flextopo.tables import TopologyTables
from topod.model.links import LinkClass
from topod.model.request import Affinity
from topod.model.topology import Topology

LEVELS: Final = (Affinity.NVLINK, Affinity.PCIE, Affinity.NUMA, Affinity.SOCKET)
"""The closest first."""


class Group(NamedTuple):
    """So many groups of that many free GPUs, each of which satisfies the level; single ones: `any`."""

    level: Affinity
    size: int
    number: int


class Place(NamedTuple):
    """Where a GPU is: GPUs with the same number are together. A number means nothing by itself."""

    island: int
    """Of GPUs each of which has an NVLink to each other."""
    numa: int
    """Its NUMA node; -1: not known."""
    switch: int
    """Of GPUs that a PCIe switch joins, or NVLink."""


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


def places(topology: Topology) -> tuple[Place, ...]:
    """Return where each GPU is, in the order of their indices."""
    islands = _cliques(neighbours(topology, LinkClass.NVLINK))
    switches = _cliques(neighbours(topology, LinkClass.PXB))
    return tuple(
        Place(islands[gpu.index], -1 if gpu.numa_node is None else gpu.numa_node, switches[gpu.index])
        for gpu in topology.gpus
    )


def _cliques(near: tuple[int, ...]) -> list[int]:
    """Return for each GPU the first of its group; `near[i]` is the mask of GPU i's neighbours."""
    groups: list[tuple[int, int]] = []
    first_of = []
    for index, mask in enumerate(near):
        for at, (first, members) in enumerate(groups):
            if members & ~mask == 0:
                groups[at] = first, members | 1 << index
                first_of.append(first)
                break
        else:
            groups.append((index, 1 << index))
            first_of.append(index)
    return first_of
