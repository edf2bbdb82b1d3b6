"""How whole the groups are that a set of GPUs forms: what a plan leaves for the jobs after it.

A set is split greedily: take its largest subset that satisfies a relation (of equals the one with the lowest
indices), then the largest of the rest, and so on. The sizes, largest first, are the set's profile.
"""

from functools import cache

import numpy as np

from topod.flextopo.affinity import BoolTable, IntTable


def largest_parts(satisfies: BoolTable, sizes: IntTable, reversed_masks: IntTable) -> IntTable:
    """Return for each mask its largest subset that satisfies a relation, ties to the lowest indices.

    Single GPUs satisfy every relation, so only the empty mask has an empty part. Of two sets of one size,
    the one that is first by its sorted indices is the one whose reversed mask is larger.
    """
    count = len(satisfies).bit_length() - 1
    best = np.where(satisfies, sizes << count | reversed_masks, 0)
    for i in range(count):
        split = best.reshape(-1, 2, 1 << i)  # [:, 1] are the masks with GPU i, [:, 0] the same without it
        np.maximum(split[:, 1], split[:, 0], out=split[:, 1])
    parts: IntTable = reversed_masks[best & (len(satisfies) - 1)]
    return parts


def reverse_masks(count: int) -> IntTable:
    """Return each mask with the order of its bits turned round within `count` bits."""
    table = np.zeros(1 << count, dtype=np.int64)
    for i in range(count):
        table[1 << i : 2 << i] = table[: 1 << i] | 1 << (count - 1 - i)
    return table


def profile(parts: IntTable, mask: int) -> tuple[int, ...]:
    """Return the sizes of the parts into which `mask` falls, largest first."""
    sizes: list[int] = []
    while mask:
        part = int(parts[mask])
        sizes.append(part.bit_count())
        mask ^= part
    return tuple(sizes)


@cache
def partition_codes(count: int) -> IntTable:
    """Return the codes (see `profile_ranks`) of every way to write 0..count as a sum, in ascending order."""

    def codes(left: int, largest: int, code: int, position: int) -> list[int]:
        found = [code]
        for part in range(1, min(left, largest) + 1):
            at = position - (largest - part) - 1
            found += codes(left - part, part, code | 1 << at, at)
        return found

    return np.array(sorted(codes(count, count, 0, 2 * count)), dtype=np.int64)


def profile_ranks(parts: IntTable, sizes: IntTable) -> IntTable:
    """Return for each mask the rank of its profile: the lexicographically larger, the higher.

    A profile is coded in 2 * count bits: for each part, as many zeros as it is smaller than the part before
    it (the first: than `count`), then a one. A smaller drop puts the one earlier, so codes compare as
    profiles do.
    """
    count = len(parts).bit_length() - 1
    code = np.zeros(len(parts), dtype=np.int64)
    position = np.full(len(parts), 2 * count, dtype=np.int64)
    previous = np.full(len(parts), count, dtype=np.int64)
    live = np.arange(1, len(parts), dtype=np.int64)
    rest = live.copy()
    while len(live):
        part = parts[rest]
        size = sizes[part]
        position[live] -= previous[live] - size + 1
        code[live] |= np.int64(1) << position[live]
        previous[live] = size
        rest = rest ^ part
        live, rest = live[rest != 0], rest[rest != 0]
    return np.searchsorted(partition_codes(count), code).astype(np.int64)
