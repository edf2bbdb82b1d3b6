"""What a coordinator knows of a host: who holds what there, since when, and until when it is protected.

A host tells it once; `occupancy_at` makes of it what the planner sees at any later moment, so that time alone
needs no message.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.occupancy import Block, Budget, Holder, Occupancy


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBy:
    """One job that holds GPUs or pinned CPUs of a host. Times are epoch seconds."""

    job: str
    """The host's own name of it."""
    priority: int
    """The one that protects it, from `guarded_until` on."""
    guard_priority: int | None = None
    """The one that protects it before; None: the same."""
    guarded_until: float = 0.0
    gpus: int = 0
    """Mask: bit i for the GPU with index i."""
    cpus: CpuSet = NO_CPUS
    evictable_from: float | None = 0.0
    """From when on it may be a victim; None: never."""
    protection: str = ""
    """Why it never may: `not preemptible`, `being placed just now`."""
    work_since: float | None = None
    """Since when work would be lost if it were stopped; None: none would."""
    work_gpus: int = 0
    """On so many GPUs; some of them may be promised to others already, and are not in `gpus` any more."""
    budgets: tuple[str, ...] = ()
    stops: int = 1
    """As `Holder.stops`; of a job over several hosts `work_gpus` are those of all of them, too."""
    elsewhere: int = 0
    """As `Holder.elsewhere`."""
    gang: int = 0
    """The job of the fleet over several hosts that it is part of, and ends with; 0: of none."""
    ident: str = ""
    """How people name it, where that differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSnapshot:
    """One host at one generation."""

    host: str
    generation: int
    holders: tuple[HeldBy, ...] = ()
    blocks: tuple[Block, ...] = ()
    budgets: tuple[Budget, ...] = ()
    spoils: int = 0
    """As `Occupancy.spoils`."""
    closed: str | None = None
    """Why it takes no new work, in words; None: it does."""
    labels: Mapping[str, str] = field(default_factory=dict)


def occupancy_at(snapshot: HostSnapshot, now: float) -> Occupancy:
    """Return who holds what as the planner of one host sees it at `now`."""
    return Occupancy(
        holders=tuple(holder_at(held, now) for held in snapshot.holders),
        blocks=snapshot.blocks,
        budgets=snapshot.budgets,
        spoils=snapshot.spoils,
    )


def holder_at(held: HeldBy, now: float) -> Holder:
    """Return one holder as the planner of its host sees it at `now`."""
    left = inf if held.evictable_from is None else held.evictable_from - now
    protection = "" if left <= 0 else held.protection or f"protected for {left:.0f} s more"
    guarded = held.guard_priority is not None and now < held.guarded_until
    since = held.work_since
    return Holder(
        job=held.job,
        priority=held.guard_priority if guarded and held.guard_priority is not None else held.priority,
        gpus=held.gpus,
        cpus=held.cpus,
        evictable=not protection,
        protection=protection,
        work=0 if since is None else max(0, round((now - since) * 1000)) * held.work_gpus,
        budgets=held.budgets,
        stops=held.stops,
        elsewhere=held.elsewhere,
        ident=held.ident,
    )
