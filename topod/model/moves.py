"""What a rebalance aims at, and its answer: which jobs move where so that free GPUs are together again."""

from dataclasses import dataclass

from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.request import PRIORITIES, Affinity, CpuAffinity, ResourceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What jobs are moved for.

    Either the largest group of free GPUs that satisfies `affinity` (no larger than `gpus` where that is
    given), or, with `ask`, room for exactly that request.
    """

    affinity: Affinity = Affinity.NVLINK
    gpus: int | None = None
    ask: ResourceRequest | None = None
    below: int = PRIORITIES["high"]
    """Only jobs of a lower priority than this are moved."""
    most: int | None = None
    """At most so many jobs are moved; None: as many as it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One job that is stopped and started again on other GPUs or CPUs. GPUs are indices."""

    job: str
    priority: int
    gpus_before: tuple[int, ...]
    gpus: tuple[int, ...]
    cpus_before: CpuSet
    cpus: CpuSet
    affinity: Affinity
    """The level that it gets: the first on the ladder, from the requested one down."""
    cpu_affinity: CpuAffinity
    work: int
    """GPU-milliseconds lost by the restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveCost:
    """What the moves cost, in the order in which costs are compared once the groups are equally large."""

    restarts: tuple[tuple[int, int], ...] = ()
    """(priority, number of restarts), highest priority first; only levels that have some."""
    affinity_lost: int = 0
    """Steps by which best-effort jobs get less affinity than they have, and `ask` less than it wants."""
    cpu_affinity_lost: int = 0
    work_lost: int = 0
    """GPU-milliseconds."""
    links_lost: int = 0
    """By how much the sums of pair scores get smaller (those of `ask` grow from 0); negative: they gain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeGpus:
    """The free GPUs at one moment: the largest group of them, and the groups that they form."""

    gpus: tuple[int, ...]
    group: tuple[int, ...]
    """The largest group at the asked affinity; of equals the one of lowest indices."""
    left: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """Sizes of the NVLink, PCIe and NUMA groups, largest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalance:
    """The moves of least cost; none where nothing can be bettered."""

    moves: tuple[Move, ...]
    before: FreeGpus
    after: FreeGpus
    cost: MoveCost = MoveCost()
    reached: bool
    """The goal is met: `gpus` free together, or room for `ask`; always true where neither was given."""
    proven: bool = True
    """False when the search was cut off: a better answer may exist."""
    ask_gpus: tuple[int, ...] = ()
    """With `ask`: the GPUs and CPUs that the request would get."""
    ask_cpus: CpuSet = NO_CPUS
