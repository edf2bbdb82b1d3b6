"""The cost keys of many (host, GPU set) pairs as columns, and the least of them: over all, or for each host.

A column is a function from places (of pairs) to values, less being better. Columns are asked for only the
pairs that tie in those before, so the costly ones, late in the order, are worked out for few.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

from topod.fleet.pick.rows import FloatTable, KindRows
from topod.fleet.pick.shape import Shape
from topod.flextopo.affinity import IntTable

Column: TypeAlias = Callable[[IntTable], IntTable | FloatTable]


def tail(
    kind: KindRows,
    shape: Shape,
    *,
    sets: IntTable,
    before: IntTable,
    after: IntTable,
    share: FloatTable | None,
) -> list[Column]:
    """Return the columns from links on, as far as they are told by GPUs.

    By pair: the place of the set in the family, the free GPUs before and after, and with `spread` the share
    of the host that is free.
    """
    masks_links, codes = shape.family.links, kind.left
    links: list[Column] = [lambda at: -masks_links[sets[at]]]
    left: list[Column] = [] if share is None else [lambda at: -share[at]]
    left += [_difference(code, before, after) for code in codes]
    return links + left if shape.links_first else left + links


def _difference(code: IntTable, before: IntTable, after: IntTable) -> Column:
    return lambda at: code[before[at]] - code[after[at]]


def least(columns: Iterable[Column], at: IntTable) -> tuple[tuple[float, ...], IntTable]:
    """Return the least key of the pairs at `at`, and which of them have it."""
    key = []
    for column in columns:
        values = column(at)
        low = values.min()
        key.append(low.item())
        at = at[values == low]
    return tuple(key), at


def least_each(columns: Iterable[Column], hosts: IntTable, at: IntTable) -> tuple[list[FloatTable], IntTable]:
    """Return column by column the least keys of each host, and which pairs have them.

    `hosts` tells the host of each pair; the pairs at `at` come host by host.
    """
    keys: list[FloatTable] = []
    starts = first_of_each(hosts[at])
    for column in columns:
        values = column(at)
        low = np.minimum.reduceat(values, starts)
        keys.append(low.astype(np.float64))
        keep = values == np.repeat(low, _lengths(starts, len(at)))
        if not keep.all():
            at = at[keep]
            starts = first_of_each(hosts[at])
    return keys, at


def first_of_each(hosts: IntTable) -> IntTable:
    """Return where each host's pairs begin; they come host by host."""
    # np.diff says the same and takes several times as long for arrays as short as these.
    begins = np.ones(len(hosts), dtype=np.bool_)
    np.not_equal(hosts[1:], hosts[:-1], out=begins[1:])
    starts: IntTable = begins.nonzero()[0]
    return starts


def _lengths(starts: IntTable, end: int) -> IntTable:
    """Return how many pairs each host has."""
    lengths = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
    lengths[-1] = end - starts[-1]
    return lengths
