"""What a coordinator must remember, as frozen values: the jobs of the fleet and the hosts it knows.

A job goes `pending -> assigned -> starting -> running -> stopping -> pending | succeeded | failed |
cancelled | lost`. What a host does with its part of a job is the host's affair; here stands what it told
last.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NewType

from topod.fleet.select import Selector
from topod.model.arrays import ArrayPlace
from topod.model.arrays import ident as named
from topod.model.assignment import REFUSED, RETURNED, FleetJobReport, Place
from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.job import Dependency, JobSpec

FleetJobId = NewType("FleetJobId", int)
"""Counts up from 1 in a fleet; never used twice. Hosts have ids of their own for the same job."""


class FleetJobState(StrEnum):
    """Where a job of the fleet is in its life."""

    PENDING = "pending"
    """Queued; no host has it."""
    ASSIGNED = "assigned"
    """Given to its hosts. They have not begun on it, or it waits there to be started again."""
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    """Its hosts are told to stop it, or do."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """Its container vanished and nobody saw how it ended."""


ENDED: Final = frozenset(
    {FleetJobState.SUCCEEDED, FleetJobState.FAILED, FleetJobState.CANCELLED, FleetJobState.LOST}
)
OVER: Final = frozenset({*(state.value for state in ENDED), RETURNED, REFUSED})
"""States of a report after which the host does nothing more for this assignment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRequest:
    """What a user asks of a fleet: a job, and on which hosts."""

    spec: JobSpec
    hosts: int = 1
    """On so many at a time; `spec` says what is wanted on each."""
    select: tuple[str, ...] = ()
    """Labels that a host must have, as `key=value`."""
    gpu_model: str = ""
    """A pattern that the model of all its GPUs must match, in any case: `*h100*`."""

    def __post_init__(self) -> None:
        if self.hosts < 1:
            raise ValueError(f"hosts must be 1 or more: {self.hosts}")
        for label in self.select:
            if not label.partition("=")[0] or "=" not in label:
                raise ValueError(f"select must be key=value: {label!r}")

    @property
    def selector(self) -> Selector:
        """The same for the decision."""
        labels = dict(label.split("=", 1) for label in self.select)
        return Selector(labels=labels, gpu_model=self.gpu_model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A job on one of its hosts."""

    host: str
    address: str = ""
    """By which the other members reach this one."""
    rank: int = 0
    place: Place
    """What it is to have there."""
    cpus: CpuSet = NO_CPUS
    """The CPUs of the plan; which ones it really gets, the host decides."""
    since: float
    """When it was decided (epoch seconds)."""
    report: FleetJobReport | None = None
    """The last that its host told of this assignment; None: it has not confirmed it."""
    lost: bool = False
    """The host was cut off for so long, or is dead, that nothing runs there any more."""

    @property
    def over(self) -> bool:
        """Whether nothing of it runs, or ever will."""
        return self.lost or (self.report is not None and self.report.state in OVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnHost:
    """Where one member of a job ran."""

    rank: int
    host: str
    local: int
    """Its number on the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """Where a job ran in an assignment that is over: its output lies there."""

    host: str
    """Of rank 0, as `local`."""
    local: int
    """Its number on the host; 0: it is not known to have begun there."""
    others: tuple[OnHost, ...] = ()
    """The members of higher ranks that began."""
    before: int
    """How often it was started in all assignments before this one."""
    starts: int
    """How often in this one."""

    @property
    def members(self) -> tuple[OnHost, ...]:
        """All members that began, by rank."""
        first = (OnHost(rank=0, host=self.host, local=self.local),) if self.local else ()
        return (*first, *self.others)


EARLIER_MAX: Final = 32
"""So many assignments back a job's output is found; a job that is stopped more often than that has many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What becomes of a job once its hosts have stopped it; until then they are told to."""

    state: FleetJobState
    """An end, or `pending`: it is to be placed anew."""
    reason: str
    exit_code: int | None = None
    failed: bool = False
    """It failed by itself: that counts, and it waits a while before it is placed anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """GPUs and CPUs of one host that are kept for a job which waits for room."""

    host: str
    gpus: int
    """Mask: bit i for the GPU with index i."""
    cpus: CpuSet = NO_CPUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Protects a job that had waited for too long from those who would stop it the moment it starts."""

    priority: int
    seconds: float
    """After its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetJob:
    """One job of the fleet and everything that must be remembered of it. Times are epoch seconds."""

    id: FleetJobId
    request: FleetRequest
    state: FleetJobState = FleetJobState.PENDING
    reason: str = ""
    """Why it is in this state, in words; for a pending job, what it waits for."""
    submitted_at: float
    fence: int = 0
    """Of the present assignment, or the last one."""
    members: tuple[Member, ...] = ()
    """Of the present assignment, by rank."""
    go: bool = False
    """All its hosts are ready, and are told so: of a job over several hosts only."""
    after: tuple[Dependency, ...] = ()
    """The jobs that it still waits for."""
    array: ArrayPlace | None = None
    ending: Ending | None = None
    reprioritised: bool = False
    """Its priority was changed since it was assigned."""
    preemptions: int = 0
    """In earlier assignments, as all the counts here."""
    starts: int = 0
    earlier: tuple[Earlier, ...] = ()
    """The assignments in which it was started, the last `EARLIER_MAX` of them."""
    failures: int = 0
    """In a row: of a job over several hosts; of one host as it counted them."""
    gpu_seconds: float = 0.0
    not_before: float = 0.0
    """Back-off: not placed earlier."""
    ready_at: float | None = None
    """Since when it waits for nothing but room; None: it does not."""
    target: tuple[Target, ...] = ()
    """What is kept for it while it waits, one for each host it asks for."""
    guard: Guard | None = None
    """Of the present assignment."""
    budgets: tuple[str, ...] = ()
    """The disruption budgets that counted it when it was placed; its hosts were told so."""
    port: int = 0
    """Of its first host, where the members of the present assignment meet; 0: of one host only."""
    placed_at: float | None = None
    started_at: float | None = None
    """When its present, or last, run began, by the clock of its host."""
    ended_at: float | None = None
    exit_code: int | None = None

    @property
    def spec(self) -> JobSpec:
        """What each of its hosts runs."""
        return self.request.spec

    @property
    def priority(self) -> int:
        """The priority that decides order and eviction."""
        return self.request.spec.request.priority

    @property
    def label(self) -> str:
        """How sentences name the job: `job 17 (train)`, in an array `job 12[3] (train)`."""
        return f"job {self.ident} ({self.request.spec.name})"

    @property
    def ident(self) -> str:
        """How the command line names the job: `17`, in an array `12[3]`."""
        return named(self.id, self.array)

    @property
    def has_ended(self) -> bool:
        """Whether it will never run again."""
        return self.state in ENDED

    @property
    def rendezvous(self) -> str:
        """Where its members meet, `ADDRESS:PORT`; empty for a job of one host, and for one on none."""
        if not self.port or not self.members:
            return ""
        address = self.members[0].address or self.members[0].host
        return f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"

    def on(self, host: str) -> Member | None:
        """Return the job's member on a host, or None."""
        return next((member for member in self.members if member.host == host), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Why a host gets no new work, as an administrator said."""

    reason: str
    since: float
    drained: bool = False
    """Its jobs were told to go on elsewhere, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRecord:
    """One host that the fleet knows, whether it is there or not."""

    name: str
    known_since: float
    labels: Mapping[str, str] = field(default_factory=dict)
    """As an administrator set them; they win over its own."""
    own_labels: Mapping[str, str] = field(default_factory=dict)
    """As its own configuration says."""
    closed: Closed | None = None
    hardware: str = ""
    """A short name of what it is made of, for people and to notice a change."""
    session: str = ""
    """The last start of its topod that was seen."""
    version: str = ""
    address: str = ""
    """By which other hosts reach it; empty: by its name."""

    @property
    def all_labels(self) -> dict[str, str]:
        """Its labels, the administrator's first."""
        return {**self.own_labels, **self.labels}


FIRST_JOB: Final = FleetJobId(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """Everything that must be durable. `jobs` holds those that have not ended."""

    generation: int = 0
    """Counts every change."""
    next_job: FleetJobId = FIRST_JOB
    next_fence: int = 1
    epoch: int = 0
    """Of the leadership that wrote this."""
    jobs: Mapping[FleetJobId, FleetJob] = field(default_factory=dict)
    hosts: Mapping[str, HostRecord] = field(default_factory=dict)
