"""Which GPU sets satisfy which affinity level, for every set of a host at once.

A set of GPUs is a bit mask (bit i = the GPU with index i). Tables have one entry per mask, so their length
is 2 ** (number of GPUs). Levels are not nested: all 8 GPUs of a DGX-1 form an NVLink ring, yet some of
their pairs are joined by `SYS` only.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from topod.flextopo.places import neighbours
from topod.model.links import LinkClass
from topod.model.request import LADDER, Affinity
from topod.model.topology import Gpu, Topology

BoolTable: TypeAlias = NDArray[np.bool_]
IntTable: TypeAlias = NDArray[np.int64]


def clique_table(near: Sequence[int]) -> BoolTable:
    """Return for each mask whether every pair of it is near; `near[i]` is the mask of GPU i's neighbours."""
    ok = np.ones(1 << len(near), dtype=np.bool_)
    below = np.arange(1 << max(len(near) - 1, 0), dtype=np.int64)
    for i, mask in enumerate(near):
        low = 1 << i
        ok[low : 2 * low] = ok[:low] & ((below[:low] & ~mask) == 0)
    return ok


def ring_table(near: Sequence[int]) -> BoolTable:
    """Return for each mask whether its graph has a Hamiltonian cycle (one GPU: yes; two: when linked).

    Held and Karp's recurrence: `ends[mask]` holds where a path can end that starts at the mask's highest GPU
    and visits each of its GPUs once. Masks are taken in order of their size, all of one size at once.
    """
    count = len(near)
    if _is_union_of_cliques(near):
        return clique_table(near)  # a ring exists exactly where every pair is linked
    masks = np.arange(1 << count, dtype=np.int64)
    top, size = highest_bits(count), popcounts(count)
    ends = np.zeros(1 << count, dtype=np.int64)
    ends[1 << np.arange(count)] = 1 << np.arange(count)
    for wanted in range(2, count + 1):
        of_size = masks[size == wanted]
        for v, mask in enumerate(near):
            bit = 1 << v
            here = of_size[(of_size & bit != 0) & (top[of_size] != v)]
            ends[here] |= np.where(ends[here ^ bit] & mask != 0, bit, 0)
    closing = np.array([*near, 0], dtype=np.int64)[top]
    table: BoolTable = ((ends & closing) != 0) | (size <= 1)
    return table


def _is_union_of_cliques(near: Sequence[int]) -> bool:
    closed = [mask | 1 << i for i, mask in enumerate(near)]
    return all(
        closed[j] == closed[i] for i, mask in enumerate(near) for j in range(len(near)) if mask >> j & 1
    )


def popcounts(count: int) -> IntTable:
    """Return the number of GPUs of each mask."""
    size = np.zeros(1 << count, dtype=np.int64)
    for i in range(count):
        size[1 << i : 2 << i] = size[: 1 << i] + 1
    return size


def highest_bits(count: int) -> IntTable:
    """Return the highest GPU of each mask; `count` (one past the last) for the empty mask."""
    top = np.full(1 << count, count, dtype=np.int64)
    for i in range(count):
        top[1 << i : 2 << i] = i
    return top


def socket_of(topology: Topology, gpu: Gpu) -> int | None:
    """Return the id of the socket that holds the GPU's NUMA node (or its own CPUs); None if unknown."""
    node_cpus = next((node.cpus for node in topology.numa_nodes if node.id == gpu.numa_node), None)
    for cpus in (node_cpus, gpu.cpus):
        if cpus:
            for socket in topology.sockets:
                if cpus <= socket.cpus:
                    return socket.id
    return None


def _same_place_table(places: Sequence[int | None], else_near: Sequence[int]) -> BoolTable:
    """Return whether all GPUs of a mask share a place; where one's place is unknown, whether all are near."""
    same = [
        sum(1 << j for j, there in enumerate(places) if j != i and here is not None and there == here)
        for i, here in enumerate(places)
    ]
    unknown = sum(1 << i for i, place in enumerate(places) if place is None)
    table = clique_table(same)
    if unknown:
        masks = np.arange(1 << len(places), dtype=np.int64)
        table = np.where(masks & unknown != 0, clique_table(else_near), table)
    return table


def level_table(topology: Topology, level: Affinity) -> BoolTable:
    """Return for each mask whether it satisfies `level`; sets of fewer than two GPUs always do."""
    match level:
        case Affinity.NVLINK_ALL:
            return clique_table(neighbours(topology, LinkClass.NVLINK))
        case Affinity.NVLINK:
            return ring_table(neighbours(topology, LinkClass.NVLINK))
        case Affinity.PCIE:
            return clique_table(neighbours(topology, LinkClass.PXB))
        case Affinity.NUMA:
            nodes = [gpu.numa_node for gpu in topology.gpus]
            return _same_place_table(nodes, neighbours(topology, LinkClass.NODE))
        case Affinity.SOCKET:
            sockets = [socket_of(topology, gpu) for gpu in topology.gpus]
            return _same_place_table(sockets, neighbours(topology, LinkClass.NODE))
        case Affinity.ANY:
            return np.ones(1 << len(topology.gpus), dtype=np.bool_)


def steps_below(level: Affinity) -> tuple[Affinity, ...]:
    """Return the ladder from `level` downwards, `level` first."""
    return LADDER[LADDER.index(level) :]
