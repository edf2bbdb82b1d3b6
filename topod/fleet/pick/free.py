"""The best host and GPU set that need no victim, told from arrays alone: exact, CPUs included.

Without a request for CPUs hosts with the same free GPUs differ in the last keys only, so each set of free
GPUs is looked at once; there are 256 of them on hosts of 8 GPUs.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from topod.fleet.pick.cost import STEP
from topod.fleet.pick.keys import Column, least, least_each, tail
from topod.fleet.pick.rows import FloatTable, KindRows
from topod.fleet.pick.shape import Shape
from topod.flextopo.affinity import IntTable

_PAIRS: Final = 1 << 18
"""(host, GPU set) pairs looked at together: arrays that stay within the processor's cache."""


@dataclass(slots=True, kw_only=True)
class _States:
    """What the candidate hosts look like, each state once."""

    free: IntTable
    pool: IntTable
    """Free CPUs, states by atoms."""
    of: IntTable
    """The state of each candidate."""
    share: FloatTable | None


def best_free(
    kind: KindRows, shape: Shape, rows: IntTable, share: FloatTable | None
) -> tuple[tuple[float, ...], IntTable] | None:
    """Return (cost keys from affinity to links, rows of all hosts that reach them); None where no host fits.

    `rows` are the hosts to look at, `share` (one per row, with `spread`) how much of each is free.
    """
    enough = (kind.tables.sizes[kind.free[rows]] >= shape.gpus).nonzero()[0]
    if not len(shape.family.masks) or not len(enough):
        return None
    rows, share = rows[enough], None if share is None else share[enough]
    states = _states(kind, shape, rows, share)
    best: tuple[float, ...] | None = None
    found: list[IntTable] = []
    chunk = max(1, _PAIRS // len(shape.family.masks))
    for start in range(0, len(states.free), chunk):
        here = np.arange(start, min(start + chunk, len(states.free)))
        result = _best_of(kind, shape, states, here)
        if result is not None and (best is None or result[0] <= best):
            if best is None or result[0] < best:
                found = []
            best = result[0]
            found.append(result[1])
    if best is None:
        return None
    return best, rows[np.isin(states.of, np.concatenate(found))]


def least_keys(kind: KindRows, shape: Shape, rows: IntTable, share: FloatTable | None) -> FloatTable:
    """Return the least key of each of some hosts, as rows by cost keys; inf where it has no room."""
    columns = 2 + len(kind.left) + (share is not None)
    keys = np.full((len(rows), columns), np.inf)
    enough = (kind.tables.sizes[kind.free[rows]] >= shape.gpus).nonzero()[0]
    if not len(shape.family.masks):
        return keys
    chunk = max(1, _PAIRS // len(shape.family.masks))
    for start in range(0, len(enough), chunk):
        at = enough[start : start + chunk]
        states = _States(
            free=kind.free[rows[at]],
            pool=kind.pool[rows[at]].astype(np.int64),
            of=np.arange(len(at)),
            share=None if share is None else share[at],
        )
        pairs = _pairs(kind, shape, states, states.of)
        if pairs is not None:
            places, ordered = pairs
            found, _ = least_each(ordered, places, np.arange(len(places)))
            keys[at[np.unique(places)]] = np.column_stack(found)
    return keys


def _states(kind: KindRows, shape: Shape, rows: IntTable, share: FloatTable | None) -> _States:
    free = kind.free[rows]
    if shape.levels or not shape.gpus:
        return _States(free=free, pool=kind.pool[rows].astype(np.int64), of=np.arange(len(rows)), share=share)
    same, first, of = np.unique(free, return_index=True, return_inverse=True)
    return _States(
        free=same,
        pool=kind.pool[rows[first]].astype(np.int64),
        of=of,
        share=None if share is None else share[first],
    )


def _best_of(
    kind: KindRows, shape: Shape, states: _States, here: IntTable
) -> tuple[tuple[float, ...], IntTable] | None:
    """Return the least key of some states and which of them have it."""
    pairs = _pairs(kind, shape, states, here)
    if pairs is None:
        return None
    places, columns = pairs
    key, at = least(columns, np.arange(len(places)))
    return key, here[np.unique(places[at])]


def _pairs(
    kind: KindRows, shape: Shape, states: _States, here: IntTable
) -> tuple[IntTable, list[Column]] | None:
    """Return the state (by its place in `here`) of each pair with a GPU set that fits, and the keys."""
    family, free = shape.family, states.free[here]
    fits = family.masks & ~free[:, None] == 0
    missed: IntTable | None = None
    if shape.levels:
        kinds = len(family.mixes)
        missed = shape.cpu_steps(
            np.repeat(states.pool[here], kinds, axis=0), np.tile(np.arange(kinds), len(here))
        ).reshape(len(here), kinds)
        fits &= (missed < len(shape.levels))[:, family.mix]
    places, sets = fits.nonzero()
    if not len(places):
        return None
    cpu_steps = missed

    def affinity(at: IntTable) -> IntTable:
        steps: IntTable = family.steps[sets[at]] * STEP
        return steps if cpu_steps is None else steps + cpu_steps[places[at], family.mix[sets[at]]]

    before = free[places]
    columns: list[Column] = [affinity]
    columns += tail(
        kind,
        shape,
        sets=sets,
        before=before,
        after=before & ~family.masks[sets],
        share=None if states.share is None else states.share[here][places],
    )
    return places, columns
