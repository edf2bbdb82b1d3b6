"""Who holds what on a host at one moment: the planner's view, free of clocks and containers.

GPU masks have bit i set for the GPU with index i; CPU masks have bit n set for CPU n.
"""

from dataclasses import dataclass

from topod.model.cpuset import NO_CPUS, CpuSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One job that holds GPUs or pinned CPUs."""

    job: str
    priority: int
    gpus: int = 0
    cpus: CpuSet = NO_CPUS
    evictable: bool = True
    """False when it may not be a victim whatever its priority."""
    protection: str = ""
    """Why it is not evictable, in words: `not preemptible`, `protected for 40 s more`."""
    work: int = 0
    """GPU-milliseconds lost if it is stopped now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """GPUs and CPUs that nobody may take now, with the reason in words."""

    reason: str
    """For example `reserved for job 12`, `unhealthy: Xid 79`, `foreign: pid 4711 (alice)`, `drained: fan`."""
    gpus: int = 0
    cpus: CpuSet = NO_CPUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """What is taken. Everything else, what is being released included, counts as free."""

    holders: tuple[Holder, ...] = ()
    blocks: tuple[Block, ...] = ()
