"""What the coordinator asks of the decision: on which host a job runs, by the plan of least cost over all."""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from topod.fleet.hosts import HostSnapshot
from topod.fleet.select import Selector
from topod.flextopo.tables import TopologyTables
from topod.model.plan import Plan, Refusal
from topod.model.request import ResourceRequest


class Choice(Protocol):
    """A host and the plan of least cost there."""

    @property
    def host(self) -> str:
        """Its name."""
        ...

    @property
    def plan(self) -> Plan:
        """What the job gets there, and at what cost."""
        ...


class Room(NamedTuple):
    """How many hosts may get a job."""

    looked: int
    """Those that are open and that it may run on."""
    room: int
    """Those of them that need stop nobody for it."""


class Picker(Protocol):
    """All hosts that may get work, as they were last put in."""

    def put(self, snapshot: HostSnapshot, tables: TopologyTables) -> None:
        """Take in a host, or what it has become."""
        ...

    def remove(self, host: str) -> None:
        """Forget a host; one that is not known is none."""
        ...

    def decide(
        self,
        request: ResourceRequest,
        now: float,
        *,
        selector: Selector,
        may_evict: bool,
        exclude: Collection[str],
    ) -> Choice | Refusal:
        """Return the best of all hosts but `exclude`, or why there is none."""
        ...

    def room(self, request: ResourceRequest, *, selector: Selector) -> Room:
        """Return how many hosts are looked at, and how many of them need no victim."""
        ...

    def together(
        self,
        request: ResourceRequest,
        now: float,
        chosen: Sequence[Choice],
        *,
        selector: Selector,
        exclude: Collection[str],
    ) -> Sequence[Choice]:
        """Return the hosts that are best together; `chosen` were found one by one."""
        ...
