"""Who can give the CPUs that are short in some areas of the host, and the least that it costs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from topod.flextopo.affinity import IntTable
from topod.preemption.packing import Packing
from topod.preemption.victims import Candidate

_CELLS = 1 << 15  # size of a table by pattern: 256 patterns of 128 CPUs, or 1024 of 32


class Giver(NamedTuple):
    """A victim that gives CPUs to a region."""

    position: int
    """Its place among the candidates."""
    gives: int
    """CPUs, at least 1."""
    price: int
    """Its packed cost; where it gives to several regions, the part of it that this one bears."""


class Region:
    """One area of CPUs: tables of the least cost of d CPUs or more, d = 0 up to `wanted`."""

    __slots__ = ("_base", "_flat", "_singles", "_width", "bits", "exact", "filled")

    def __init__(
        self, packing: Packing, wanted: int, singles: Sequence[Giver], branched: Sequence[Giver]
    ) -> None:
        """`singles` are always open; each of `branched` is open or closed."""
        self._width = wanted + 1
        self._singles = singles
        self._base = np.full(wanted + 1, packing.never, dtype=packing.dtype)
        self._base[0] = 0
        self.filled = self._base.copy()
        """The least cost by the singles alone."""
        for giver in singles:
            _admit(self.filled, self.filled, giver)
        known = branched[: max(_CELLS // self._width, 1).bit_length() - 1]
        self.bits = {giver.position: 1 << bit for bit, giver in enumerate(known)}
        """The bits of a pattern, which says who of the branched is open. Who has no bit counts as open."""
        self.exact = len(known) == len(branched)
        """Whether everyone has a bit."""
        table = np.empty((1 << len(known), self._width), dtype=packing.dtype)
        table[0] = self.filled
        for giver in branched[len(known) :]:
            _admit(table[0], table[0], giver)
        for bit, giver in enumerate(known):
            low = 1 << bit
            _admit(table[:low], table[low : 2 * low], giver)
        self._flat: IntTable = table.reshape(-1)

    def floors(self, patterns: IntTable, missing: IntTable) -> IntTable:
        """Return the least cost of `missing` CPUs with the victims of `patterns` open, for each row."""
        costs: IntTable = self._flat[patterns * self._width + missing]
        return costs

    def floor(self, pattern: int, missing: int) -> int:
        """Return the same for one row."""
        cost: int = self._flat.item(pattern * self._width + missing)
        return cost

    def earliest(self, wanted: int) -> Iterator[int]:
        """Yield the singles (positions) that fill `wanted` at least cost, those who come first."""
        after = [self._base[: wanted + 1].tolist()]
        for giver in reversed(self._singles):
            table = after[-1]
            dear = [giver.price + table[max(at - giver.gives, 0)] for at in range(wanted + 1)]
            after.append([min(pair) for pair in zip(table, dear, strict=True)])
        after.reverse()
        for number, giver in enumerate(self._singles):
            rest = max(wanted - giver.gives, 0)
            if wanted and after[number][wanted] == giver.price + after[number + 1][rest]:
                yield giver.position
                wanted = rest


def _admit(before: IntTable, after: IntTable, giver: Giver) -> None:
    """Write into `after` (which may be `before`) the costs with a giver open too; last axis: CPUs."""
    gives, price = giver.gives, giver.price
    if gives >= before.shape[-1] - 1:  # one is enough
        np.minimum(before, price, out=after)
        return
    beyond = before[..., :-gives] + price
    np.minimum(before[..., :gives], price, out=after[..., :gives])
    np.minimum(before[..., gives:], beyond, out=after[..., gives:])


class Offers:
    """What the candidates can give to some areas.

    Who holds no GPU and gives to one region only is a single of it: dynamic programming settles who of
    them goes. All others are branched on, since GPUs change what is left, and since one victim may help in
    several regions.
    """

    __slots__ = ("branch", "closed", "exact", "gives", "regions", "ties_after", "wanted")

    def __init__(self, candidates: Sequence[Candidate], packing: Packing, areas: Mapping[int, int]) -> None:
        """`areas` are masks of CPUs, each with the most of them that may be missing (at least 1)."""
        self.wanted = areas
        self.gives: dict[int, tuple[int, ...]] = {}
        """By position: CPUs for each region."""
        self.branch: list[int] = []
        singles: list[int] = []
        for i, candidate in enumerate(candidates):
            gives = tuple([(candidate.cpus & area).bit_count() for area in areas])
            useful = len(areas) - gives.count(0)
            if useful:
                self.gives[i] = gives
                (self.branch if candidate.gpus or useful > 1 else singles).append(i)
        # The most attractive first: once they are settled, the bounds of the rest are tight. Of equals the
        # last first: that leaves the sets of low indices, which win ties, to the first branches.
        self.branch.sort(key=lambda i: (packing.prices[i] // sum(self.gives[i]), -i))
        self.regions = tuple(
            Region(
                packing,
                wanted,
                self._givers(packing, at, singles),
                self._givers(packing, at, self.branch),
            )
            for at, wanted in enumerate(areas.values())
        )
        self.ties_after = [True] * len(self.branch)
        """By branch: whether it or a later one strands no GPUs."""
        for at in reversed(range(len(self.branch))):
            if not candidates[self.branch[at]].gpus:
                break
            self.ties_after[at] = False
        self.closed = [(0,) * len(areas)]
        """By branch: the bits of those before it, for each region."""
        for i in self.branch:
            bits = zip(self.closed[-1], self.regions, strict=True)
            self.closed.append(tuple([shut | region.bits.get(i, 0) for shut, region in bits]))
        self.exact = all(region.exact for region in self.regions) and all(
            len(areas) - self.gives[i].count(0) == 1 for i in self.branch
        )
        """Whether the regions' floors add up to the very cost: nobody gives to two of them."""

    def _givers(self, packing: Packing, region: int, positions: Sequence[int]) -> list[Giver]:
        """Return who of `positions` gives to a region. Who gives to several shares its price among them."""
        found = []
        for i in positions:
            gives = self.gives[i]
            if gives[region]:
                found.append(Giver(i, gives[region], packing.prices[i] * gives[region] // sum(gives)))
        return found

    def earliest(self, missing: Sequence[int]) -> int:
        """Return the singles (a mask of positions) that fill `missing` at least cost, first of equals."""
        found = 0
        for region, wanted in zip(self.regions, missing, strict=True):
            found |= sum(1 << i for i in region.earliest(wanted))
        return found
