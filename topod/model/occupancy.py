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
    """The effective one: a job that was preempted often counts for more than it asked for."""
    gpus: int = 0
    cpus: CpuSet = NO_CPUS
    evictable: bool = True
    """False when it may not be a victim whatever its priority."""
    protection: str = ""
    """Why it is not evictable, in words: `not preemptible`, `protected for 40 s more`."""
    work: int = 0
    """GPU-milliseconds lost if it is stopped now."""
    budgets: tuple[str, ...] = ()
    """The disruption budgets (by name) that count it."""
    stops: int = 1
    """How many containers stop with it: of a job over several hosts those on all of them."""
    elsewhere: int = 0
    """GPUs of other hosts that it loses with those here: nobody of this host takes them."""
    ident: str = ""
    """How people name it where that is not `job`: `12[3]`, the job with index 3 of array 12."""

    @property
    def called(self) -> str:
        """How sentences name it, after the word job."""
        return self.ident or self.job


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """GPUs and CPUs that nobody may take now, with the reason in words."""

    reason: str
    """For example `reserved for job 12`, `unhealthy: Xid 79`, `foreign: pid 4711 (alice)`, `drained: fan`."""
    gpus: int = 0
    cpus: CpuSet = NO_CPUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Of the holders that name this budget, at most `stops` may be victims of one plan."""

    name: str
    """For people too: `service=chat-7b`."""
    stops: int
    reason: str = ""
    """Why no more, in words: `service=chat-7b must keep 2 running`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How many GPUs the asking job may take at most, and why in words."""

    gpus: int
    reason: str
    """For example `the quota of user alice is 8 GPUs, 6 held`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """What is taken. Everything else, what is being released included, counts as free."""

    holders: tuple[Holder, ...] = ()
    blocks: tuple[Block, ...] = ()
    budgets: tuple[Budget, ...] = ()
    room: Room | None = None
    """What the quotas leave to the asking job; None: no limit."""
    may_evict: bool = True
    """False: nobody may be stopped for the asking job just now."""
    evict_reason: str = ""
    """Why not, in words: `waits 20 s more for free GPUs`."""
    spoils: int = 0
    """Mask of GPUs that victims on other hosts leave free here: they are stranded where nobody takes them."""
