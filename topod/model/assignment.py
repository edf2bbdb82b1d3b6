"""A job of the fleet on one of its hosts: what both sides must agree on.

Rule: the same (job, fence) is carried out at most once, and a job's fence only ever rises. So messages may be
lost, repeated or come late, and a host that was cut off learns which of its jobs were given away.

The values below are what the messages of `topod.protocol.link` carry; the cores of both sides speak in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from topod.model.job import JobSpec, OnHostLost

RETURNED: Final = "returned"
"""State of an assignment that its host gave back: to be placed anew."""
REFUSED: Final = "refused"
"""State of an assignment that its host never took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetTag:
    """Marks a local job as an assignment of the coordinator."""

    job: int
    """The job's id in the fleet."""
    fence: int
    """Higher for every assignment that the coordinator ever makes."""
    rank: int = 0
    """Of a job over several hosts: which of them this is."""
    size: int = 1
    """On how many hosts the job runs. More than one: it is not started before `go`."""
    go: bool = False
    """Every member is ready: victims may be stopped and the command started."""
    env: Mapping[str, str] = field(default_factory=dict)
    """What its command learns of the fleet: rank, hosts, rendezvous.

    Names that begin with `TOPOD_` win over the job's own variables, others are defaults.
    """
    on_host_lost: OnHostLost = OnHostLost.REQUEUE
    preemptions: int = 0
    """In earlier assignments; the cap on preemptions counts them too."""
    failures: int = 0
    """In a row, up to now."""
    guard_priority: int | None = None
    """It had waited for long: for `guard_seconds` after its start it is protected as if of this priority."""
    guard_seconds: float = 0.0
    budgets: tuple[str, ...] = ()
    """The disruption budgets of the fleet that count it: only the coordinator has it stopped for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the coordinator's plan gives a job on a host; the host plans again and must come to the same."""

    gpus: tuple[int, ...] = ()
    """Indices."""
    victims: tuple[str, ...] = ()
    """Local job ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetJobReport:
    """One assignment as its host has it. Times are epoch seconds by the host's clock."""

    job: int
    fence: int
    local: int = 0
    """Its id on the host; 0 for one that was never taken."""
    state: str
    """A state of the host's table; `returned`: given back, to be placed anew; `refused`: never taken."""
    stage: str | None = None
    ready: bool = False
    """Of several hosts: reserved and made, waits for `go`. False again once it was told to go."""
    reason: str = ""
    gpus: tuple[int, ...] = ()
    """Indices."""
    cpu_list: str = ""
    affinity: str = ""
    satisfied: bool = True
    attempt: int = 0
    starts: int = 0
    preemptions: int = 0
    """In this assignment."""
    failures: int = 0
    """In a row, those before this assignment included."""
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    gpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """Run this; `place` is what it should get. The host takes it as a job of its own, or refuses it.

    Nothing is begun on it once the lease of the orders that bring it is over: it may run elsewhere by then.
    """

    tag: FleetTag
    spec: JobSpec
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """Stop this assignment, and all of the job's with a lower fence.

    The host tells its end as that of any other. One that it never had, it writes down as given back and tells
    it `returned`: the order that assigns it may still be on its way.
    """

    job: int
    fence: int
    requeue: bool = False
    """It will be placed anew: a job that did not end by itself is `returned`. False: it was cancelled."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The end of this assignment is known and durable: the host need not tell it any more."""

    job: int
    fence: int
