"""What can happen: everything that may change a fleet."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from topod.fleet.hosts import HostSnapshot
from topod.fleet.states import FleetJobId, FleetRequest
from topod.flextopo.tables import TopologyTables
from topod.model.arrays import ArrayPlan
from topod.model.assignment import FleetJobReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Leading:
    """The first event after every start, with a fresh `FleetView`: this coordinator leads from now on."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A user submitted a job, or an array of them: the ids count up from `state.next_job`."""

    request: FleetRequest
    array: ArrayPlan | None = None
    settled: tuple[tuple[int, str], ...] = ()
    """How the jobs that it waits for ended, of those that were put to rest: number and state."""

    @property
    def count(self) -> int:
        """How many jobs it makes."""
        return 1 if self.array is None else len(self.array.indices)


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """A user cancelled a job that has not ended."""

    job: FleetJobId
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequeueRequested:
    """A user wants a running job stopped on all its hosts and placed anew."""

    job: FleetJobId
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityChanged:
    """A user changed the priority of a job that has not ended."""

    job: FleetJobId
    priority: int
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSeen:
    """A host said hello; one that is not known yet is from now on."""

    host: str
    session: str
    tables: TopologyTables
    """Those of its kind: hosts of the same hardware share them."""
    hardware: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReported:
    """A report of a host; without `snapshot` and `jobs`: a heartbeat."""

    host: str
    session: str
    seq: int
    snapshot: HostSnapshot | None = None
    jobs: tuple[FleetJobReport, ...] | None = None
    troubles: tuple[str, ...] = ()
    epoch: int = 0
    """Of another leadership, not before this one, that the host has heard; 0: of none."""
    fence: int = 0
    """With `epoch`: the highest that it has taken in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSilent:
    """The connection to a host broke: it gets no new work until it reports again."""

    host: str
    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAdded:
    """An administrator expects a host of this name."""

    host: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLabelled:
    """An administrator set the labels of a host; these are all of them from now on."""

    host: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCordoned:
    """A host gets no new work. With `requeue` its jobs go on elsewhere; else they run to their end there."""

    host: str
    reason: str
    requeue: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostResumed:
    """A host gets work again."""

    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRemoved:
    """A host is no part of the fleet any more.

    With `dead` an administrator vouches that nothing runs there, and its jobs are placed anew at once.
    """

    host: str
    dead: bool = False
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passed: leases, back-offs and what waits for a moment are looked at. About once a second."""


Event = (
    Leading
    | Submitted
    | CancelRequested
    | RequeueRequested
    | PriorityChanged
    | HostSeen
    | HostReported
    | HostSilent
    | HostAdded
    | HostLabelled
    | HostCordoned
    | HostResumed
    | HostRemoved
    | Tick
)
