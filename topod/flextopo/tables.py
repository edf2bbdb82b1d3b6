"""Everything the planner needs to know of a host's hardware, worked out once per topology.

Nothing here depends on who holds what. Tables with one entry per GPU set are built when first asked for.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from topod.errors import DataError
from topod.flextopo import affinity as levels
from topod.flextopo.affinity import BoolTable, IntTable
from topod.flextopo.cores import CoreMap
from topod.flextopo.domains import cpu_domains, known_cpus
from topod.flextopo.groups import largest_parts, profile, profile_ranks, reverse_masks
from topod.model.links import Link, LinkClass
from topod.model.request import Affinity
from topod.model.topology import Topology

MAX_GPUS: Final = 20  # 2 ** 20 sets: tables of 8 MiB each; hosts of today have at most 16 GPUs
LEFT_RELATIONS: Final = (Affinity.NVLINK, Affinity.PCIE, Affinity.NUMA)
PAIR_SCORES: Final = {
    LinkClass.SYS: 10,
    LinkClass.NODE: 20,
    LinkClass.PHB: 30,
    LinkClass.PXB: 40,
    LinkClass.PIX: 50,
}
NVLINK_SCORE: Final = 100
_SUM_BITS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family:
    """All GPU sets of one size that may be a job's, in the order of their sorted indices."""

    masks: IntTable
    steps: IntTable
    """Steps by which each set misses the requested level."""
    links: IntTable
    """Weakest pair and sum of pair scores in one number: the higher, the better."""
    mix: IntTable
    """Which of `mixes` each set is."""
    mixes: tuple[tuple[int, ...], ...]
    """The different ways in which these sets spread over the kinds of places: GPUs per kind."""
    demands: dict[tuple[object, ...], Any] = field(default_factory=dict)
    """A cache that belongs to `preemption.extra`."""


class TopologyTables:
    """The tables of one topology. Raises `DataError` for a host of more than 20 GPUs."""

    __slots__ = (
        "_families",
        "_kind_codes",
        "_left",
        "_left_best",
        "_left_best_of_kinds",
        "_levels",
        "_links",
        "_parts",
        "_reversed",
        "_sizes",
        "_steps",
        "all_gpus",
        "answers",
        "cores",
        "cpus",
        "domains",
        "kind_of",
        "kind_radix",
        "kinds",
        "needs",
        "places",
        "topology",
    )

    def __init__(self, topology: Topology) -> None:
        count = len(topology.gpus)
        if count > MAX_GPUS:
            raise DataError(f"{topology.name}: {count} GPUs; the planner handles hosts of up to {MAX_GPUS}")
        self.topology = topology
        self.all_gpus = (1 << count) - 1
        self.cpus = known_cpus(topology)
        self.domains, self.places = cpu_domains(topology)
        kinds = [(place.domain, place.socket) for place in self.places]
        self.kinds = tuple(dict.fromkeys(kinds))
        """The different (domain, CPUs of the socket) of this host's GPUs."""
        self.kind_of = tuple(self.kinds.index(kind) for kind in kinds)
        self.kind_radix = _radix([self.kind_of.count(kind) for kind in range(len(self.kinds))])
        """What one GPU of each kind adds to a code of `kind_codes`."""
        self.cores = CoreMap(topology, self.cpus)
        self.needs: dict[tuple[object, ...], object] = {}
        """A cache that belongs to `placement.demand`."""
        self.answers: object = None
        """A cache that belongs to `preemption.remembered`."""
        self._levels: dict[Affinity, BoolTable] = {}
        self._steps: dict[Affinity, IntTable] = {}
        self._families: dict[tuple[int, Affinity, bool], Family] = {}
        self._parts: dict[Affinity, IntTable] = {}
        self._links: IntTable | None = None
        self._left: IntTable | None = None
        self._left_best: IntTable | None = None
        self._left_best_of_kinds: IntTable | None = None
        self._kind_codes: IntTable | None = None
        self._sizes: IntTable | None = None
        self._reversed: IntTable | None = None

    @property
    def count(self) -> int:
        """How many GPUs the host has."""
        return len(self.topology.gpus)

    @property
    def sizes(self) -> IntTable:
        """The number of GPUs of each mask."""
        if self._sizes is None:
            self._sizes = levels.popcounts(self.count)
        return self._sizes

    @property
    def reversed(self) -> IntTable:
        """Each mask with its bits in the opposite order."""
        if self._reversed is None:
            self._reversed = reverse_masks(self.count)
        return self._reversed

    def satisfies(self, level: Affinity) -> BoolTable:
        """Return for each mask whether it satisfies `level`."""
        if level not in self._levels:
            self._levels[level] = levels.level_table(self.topology, level)
        return self._levels[level]

    def steps(self, level: Affinity) -> IntTable:
        """Return for each mask how far below `level` the first level lies, going down, that it satisfies."""
        if level not in self._steps:
            below = levels.steps_below(level)
            if len(below) == 1:
                self._steps[level] = np.zeros(1 << self.count, dtype=np.int64)
            else:
                self._steps[level] = np.where(self.satisfies(level), 0, self.steps(below[1]) + 1)
        return self._steps[level]

    @property
    def links(self) -> IntTable:
        """Each mask's link quality in one number: its weakest pair, then the sum of its pairs."""
        if self._links is None:
            self._links = _link_table(self.topology.links)
        return self._links

    def link_quality(self, mask: int) -> tuple[int, int]:
        """Return (score of the weakest pair, sum of the pair scores); (0, 0) for fewer than two GPUs."""
        code = int(self.links[mask])
        return code >> _SUM_BITS, code & ((1 << _SUM_BITS) - 1)

    def parts(self, relation: Affinity) -> IntTable:
        """Return for each mask its largest subset that satisfies `relation`."""
        if relation not in self._parts:
            self._parts[relation] = largest_parts(self.satisfies(relation), self.sizes, self.reversed)
        return self._parts[relation]

    @property
    def left(self) -> IntTable:
        """How good each mask is as what stays free, in one number: NVLink, then PCIe, then NUMA groups."""
        if self._left is None:
            rank = np.zeros(1 << self.count, dtype=np.int64)
            for relation in LEFT_RELATIONS:
                rank = rank << 14 | profile_ranks(self.parts(relation), self.sizes)
            self._left = rank
        return self._left

    @property
    def left_best(self) -> IntTable:
        """The best that `left` can be for up to 0, 1, 2... GPUs that stay free."""
        if self._left_best is None:
            best = [self.left[self.sizes == size].max() for size in range(self.count + 1)]
            self._left_best = np.maximum.accumulate(np.array(best, dtype=np.int64))
        return self._left_best

    @property
    def kind_codes(self) -> IntTable:
        """How many GPUs of each kind each mask has, in one number."""
        if self._kind_codes is None:
            codes = np.zeros(1 << self.count, dtype=np.int64)
            for i, kind in enumerate(self.kind_of):
                codes[1 << i : 2 << i] = codes[: 1 << i] + self.kind_radix[kind]
            self._kind_codes = codes
        return self._kind_codes

    @property
    def left_best_of_kinds(self) -> IntTable:
        """The best that `left` can be for each code of `kind_codes`."""
        if self._left_best_of_kinds is None:
            best = np.zeros(int(self.kind_codes[-1]) + 1, dtype=np.int64)
            np.maximum.at(best, self.kind_codes, self.left)
            self._left_best_of_kinds = best
        return self._left_best_of_kinds

    def left_profiles(self, mask: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Return the sizes of the NVLink, PCIe and NUMA groups of `mask`, each largest first."""
        nvlink, pcie, numa = (profile(self.parts(relation), mask) for relation in LEFT_RELATIONS)
        return nvlink, pcie, numa

    def family(self, gpus: int, level: Affinity, *, strict: bool) -> Family:
        """Return all sets of `gpus` GPUs; only those that satisfy `level` where `strict`."""
        key = (gpus, level, strict)
        if key not in self._families:
            self._families[key] = self._build_family(gpus, level, strict=strict)
        return self._families[key]

    def _build_family(self, gpus: int, level: Affinity, *, strict: bool) -> Family:
        chosen = self.sizes == gpus
        if strict:
            chosen &= self.satisfies(level)
        masks = np.flatnonzero(chosen).astype(np.int64)
        masks = masks[np.argsort(-self.reversed[masks])]
        _, first, mix = np.unique(self.kind_codes[masks], return_index=True, return_inverse=True)
        return Family(
            masks=masks,
            steps=self.steps(level)[masks],
            links=self.links[masks],
            mix=mix.reshape(-1).astype(np.int64),
            mixes=tuple(self.mix_of(int(mask)) for mask in masks[first]),
        )

    def mix_of(self, mask: int) -> tuple[int, ...]:
        """Return how many GPUs of `mask` are of each kind of place."""
        counts = [0] * len(self.kinds)
        for i, kind in enumerate(self.kind_of):
            counts[kind] += mask >> i & 1
        return tuple(counts)


def _radix(counts: list[int]) -> tuple[int, ...]:
    """Return factors by which numbers of up to so many things add up to different codes."""
    factors = [1]
    for count in counts:
        factors.append(factors[-1] * (count + 1))
    return tuple(factors[:-1])


def pair_score(link: Link) -> int:
    """Return how good a link between two GPUs is: the higher, the better."""
    return NVLINK_SCORE * link.lanes if link.kind is LinkClass.NVLINK else PAIR_SCORES[link.kind]


def _link_table(links: tuple[tuple[Link | None, ...], ...]) -> IntTable:
    count = len(links)
    none = np.int64(1 << 30)
    weakest = np.full(1 << count, none, dtype=np.int64)
    total = np.zeros(1 << count, dtype=np.int64)
    for i, row in enumerate(links):
        low = 1 << i
        least, added = np.full(low, none, dtype=np.int64), np.zeros(low, dtype=np.int64)
        for j, link in enumerate(row[:i]):
            score = pair_score(link) if link is not None else 0
            least[1 << j : 2 << j] = np.minimum(least[: 1 << j], score)
            added[1 << j : 2 << j] = added[: 1 << j] + score
        weakest[low : 2 * low] = np.minimum(weakest[:low], least)
        total[low : 2 * low] = total[:low] + added
    weakest[weakest == none] = 0
    return weakest << _SUM_BITS | total
