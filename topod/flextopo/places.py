"""Which GPUs of a host belong together, one by one: for people, and quick to load."""

from collections.abc import Sequence
from typing import NamedTuple

from topod.model.links import LinkClass
from topod.model.topology import Topology


class Place(NamedTuple):
    """Where a GPU is: GPUs with the same number are together. A number means nothing by itself."""

    island: int
    """Of GPUs each of which has an NVLink to each other."""
    numa: int
    """Its NUMA node; -1: not known."""
    switch: int
    """Of GPUs that a PCIe switch joins, or NVLink."""


def neighbours(topology: Topology, closest: LinkClass) -> tuple[int, ...]:
    """Return for each GPU the mask of the GPUs to which its link is `closest` or closer."""
    return tuple(
        sum(1 << j for j, link in enumerate(row) if link is not None and link.kind >= closest)
        for row in topology.links
    )


def places(topology: Topology) -> tuple[Place, ...]:
    """Return where each GPU is, in the order of their indices."""
    islands = cliques(neighbours(topology, LinkClass.NVLINK))
    switches = cliques(neighbours(topology, LinkClass.PXB))
    return tuple(
        Place(islands[gpu.index], -1 if gpu.numa_node is None else gpu.numa_node, switches[gpu.index])
        for gpu in topology.gpus
    )


def cliques(near: Sequence[int]) -> list[int]:
    """Return for each GPU the first of its group; `near[i]` is the mask of GPU i's neighbours.

    Of a group each is near to each other. GPUs join the first group that they fit, in the order of indices.
    """
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
