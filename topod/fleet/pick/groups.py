"""What a job leaves whole in the fleet: the change of the free groups of its host, by size.

A group never spans hosts, so the sizes of the whole fleet's groups, largest first, compare between two
choices as the changes on the two hosts do: what every other host adds is the same on both sides.
"""

from collections import Counter

import numpy as np

from topod.flextopo.affinity import IntTable
from topod.flextopo.tables import LEFT_RELATIONS, MAX_GPUS, TopologyTables
from topod.model.request import Affinity

Change = tuple[tuple[int, int], ...]
"""(size, groups of that size after less before), largest size first; sizes without a change are left out."""


def _weights() -> tuple[int, ...]:
    """Return a weight for each size such that sums over changes compare as the changes do, size by size.

    There are at most m = MAX_GPUS // size groups of a size, so two changes differ by at most 2 * m of them.
    """
    weights = [0, 1]
    for size in range(1, MAX_GPUS):
        weights.append(weights[-1] * (2 * (MAX_GPUS // size) + 1))
    return tuple(weights)


_WEIGHTS = _weights()
assert sum(_WEIGHTS) * MAX_GPUS < 1 << 62


def change(tables: TopologyTables, before: int, after: int) -> tuple[Change, Change, Change]:
    """Return how the NVLink, PCIe and NUMA groups change when the free GPUs (masks) become `after`."""
    nvlink, pcie, numa = (
        _change(was, now)
        for was, now in zip(tables.left_profiles(before), tables.left_profiles(after), strict=True)
    )
    return nvlink, pcie, numa


def _change(before: tuple[int, ...], after: tuple[int, ...]) -> Change:
    counts = Counter(after)
    counts.subtract(before)
    return tuple((size, count) for size, count in sorted(counts.items(), reverse=True) if count)


def rank(changes: tuple[Change, Change, Change]) -> tuple[int, ...]:
    """Return numbers that compare as changes do: less is better, since more whole groups are."""
    return tuple(-sum(_WEIGHTS[size] * count for size, count in one) for one in changes)


def codes(tables: TopologyTables, relation: Affinity) -> IntTable:
    """Return for each mask the sum of the weights of its groups: the difference of two is a change's code."""
    parts, weights = tables.parts(relation), np.array(_WEIGHTS, dtype=np.int64)
    code = np.zeros(len(parts), dtype=np.int64)
    live = np.arange(1, len(parts), dtype=np.int64)
    rest = live.copy()
    while len(live):
        part = parts[rest]
        code[live] += weights[tables.sizes[part]]
        rest = rest ^ part
        live, rest = live[rest != 0], rest[rest != 0]
    return code


def all_codes(tables: TopologyTables) -> tuple[IntTable, ...]:
    """Return the codes of the NVLink, PCIe and NUMA groups."""
    return tuple(codes(tables, relation) for relation in LEFT_RELATIONS)
