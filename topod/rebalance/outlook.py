"""The least that any arrangement of the movers costs from each point on: GPUs only, exact.

Movers are arranged one after the other. What matters for the rest is only which GPUs are taken so far (and,
where restarts are bounded, how many there were), so tables with one entry per such state tell the least cost
of going on, worked out from the last mover back to the first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from topod.flextopo.affinity import IntTable
from topod.rebalance.movers import LEFT, STEPS, Scene, Ways, group_relation, ways_of

NEVER: Final = 1 << 61
_PIECE: Final = 1 << 20
"""So many pairs of a state and a way are looked at together."""
PAIRS_MOST: Final = 30_000_000
"""Beyond so many pairs the search is too long: it would take more than some three seconds."""


class TooManyError(Exception):
    """There are more arrangements than can be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """The states before one mover is arranged: GPUs taken, and above them the restarts where bounded."""

    states: IntTable
    least: NDArray[Any]
    """The least cost of going on: three rows, one column a state; `NEVER` in the first where impossible."""


class Outlook:
    """The ways of each mover, and the layers before each and after the last."""

    __slots__ = ("_bounded", "_places", "_spent", "layers", "scene", "ways")  # fmt: skip

    def __init__(self, scene: Scene) -> None:
        """Raise `TooManyError` where the arrangements are too many."""
        self.scene = scene
        self.ways = [ways_of(scene, mover) for mover in scene.movers]
        self._bounded = scene.goal.most is not None
        self._spent = 0
        size = 1 << scene.tables.count
        self._places = np.zeros(size * ((scene.goal.most or 0) + 1), dtype=np.int32)
        layers = [np.zeros(1, dtype=np.int64)]
        for ways in self.ways:
            layers.append(self._after(layers[-1], ways))
        ends = self._ends(layers[-1])
        self.layers = [Layer(states=layers[-1], least=ends)]
        for states, ways in zip(reversed(layers[:-1]), reversed(self.ways), strict=True):
            self.layers.insert(0, Layer(states=states, least=self._least(states, ways)))

    def onwards(self, layer: int, state: int) -> tuple[IntTable, IntTable, NDArray[Any]]:
        """Return which ways are open in a state, the states they lead to, and the least cost by each."""
        ways = self.ways[layer]
        there, open_to = self._lead(np.array([state]), ways)
        rows = open_to[0].nonzero()[0]
        after = there[0][rows]
        following = self.layers[layer + 1]
        places = np.searchsorted(following.states, after)
        least = following.least[:, places] + ways.costs[:, rows]
        possible = following.least[0, places] < NEVER
        return rows[possible], after[possible], least[:, possible]

    def _lead(self, states: IntTable, ways: Ways) -> tuple[IntTable, NDArray[np.bool_]]:
        """Return the states that each way leads to (states by ways), and whether it is open there."""
        open_to: NDArray[np.bool_] = states[:, None] & ways.masks == 0
        there = states[:, None] | ways.masks
        if self._bounded:
            there = there + (ways.moves << self.scene.tables.count)
            open_to &= there < len(self._places)
        return there, open_to

    def _pieces(self, states: IntTable, ways: Ways) -> Iterator[slice]:
        self._spent += len(states) * len(ways.masks)
        if self._spent > PAIRS_MOST:
            raise TooManyError
        size = max(1, _PIECE // max(1, len(ways.masks)))
        return (slice(at, at + size) for at in range(0, len(states), size))

    def _after(self, states: IntTable, ways: Ways) -> IntTable:
        reached = np.zeros(len(self._places), dtype=np.bool_)
        for piece in self._pieces(states, ways):
            there, open_to = self._lead(states[piece], ways)
            reached[there[open_to]] = True
        return reached.nonzero()[0]

    def _ends(self, states: IntTable) -> NDArray[Any]:
        """Return the last costs: how far the goal is missed, and how good the GPUs are that stay free."""
        scene, tables = self.scene, self.scene.tables
        free = scene.usable & ~(states & tables.all_gpus)
        costs = np.zeros((3, len(states)), dtype=scene.dtype)
        if scene.goal.ask is None:
            groups = tables.sizes[tables.parts(group_relation(scene.goal))[free]]
            wanted = tables.count if scene.goal.gpus is None else scene.goal.gpus
            worst = 1 + sum(mover.weight for mover in (*scene.movers, *scene.cpu_movers))
            missed = np.maximum(wanted - groups, 0).astype(scene.dtype)
            costs[0] = missed * worst * STEPS * STEPS
        different, place = np.unique(tables.left[free], return_inverse=True)
        assert len(different) <= LEFT
        costs[2] = (len(different) - 1 - place.reshape(-1)).astype(scene.dtype)
        return costs

    def _least(self, states: IntTable, ways: Ways) -> NDArray[Any]:
        following = self.layers[0]
        self._places[following.states] = np.arange(len(following.states))
        least = np.full((3, len(states)), NEVER, dtype=self.scene.dtype)
        if not len(following.states):
            return least
        for piece in self._pieces(states, ways):
            there, live = self._lead(states[piece], ways)
            places = self._places[np.where(live, there, 0)]
            for row in range(3):
                costs = np.where(live, following.least[row][places] + ways.costs[row], NEVER)
                lowest = costs.min(axis=1, initial=NEVER)
                least[row, piece] = lowest
                live &= costs == lowest[:, None]
        return least
