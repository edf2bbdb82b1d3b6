"""What a host and the coordinator say to each other.

Both sides tell states, not changes: a report holds all jobs of the fleet on the host, orders hold all that
the host has not confirmed. So a message that is lost is made good by the next, one that comes twice changes
nothing, and one that comes late is known by its number. See docs/adr/0009-coordinator.md.
"""

from typing import Any

import msgspec

from topod.fleet.hosts import HostSnapshot
from topod.model.assignment import Assign, FleetJobReport, Revoke, Settled
from topod.protocol.replies import AnyReply
from topod.protocol.requests import AnyRequest

LINK_VERSION = 1


class FromHost(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base of what a host says."""


class HostHello(FromHost, frozen=True, kw_only=True, tag="hello"):
    """The first message of a session; again whenever the coordinator asks `Who`. Answer: `Orders`."""

    v: int = LINK_VERSION
    host: str
    session: str
    """Chosen at random by each start of topod: two with one name are told apart by it."""
    version: str
    """Of topod."""
    document: dict[str, Any]
    """The host document: topology with GPU models and UUIDs."""
    labels: dict[str, str] = {}
    """As its own configuration says; the administrator's on the coordinator win."""
    runtime: str = ""
    emulated: bool = False
    address: str = ""
    """By which other hosts reach it; empty: by its name."""


class HostReport(FromHost, frozen=True, kw_only=True, tag="report"):
    """How the host stands; without `snapshot` and `jobs`: as in report `since`, a heartbeat."""

    session: str
    seq: int
    """Counts up from 1 in a session; an earlier one that comes late is ignored."""
    sent: float
    """By the host's own steady clock (seconds); `Orders.echo` gives it back, and the lease counts from it."""
    since: int = 0
    """The last report with contents."""
    epoch: int = 0
    """The highest it has seen."""
    fence: int = 0
    """With contents: the highest that it has taken in."""
    wall: float = 0.0
    """What its clock on the wall showed then: the moments in `snapshot` and `jobs` are by that one."""
    snapshot: HostSnapshot | None = None
    jobs: list[FleetJobReport] | None = None
    troubles: list[str] = []


class HostAnswer(FromHost, frozen=True, kw_only=True, tag="answer"):
    """The answer to `HostAsk` with this id."""

    id: str
    reply: AnyReply


AnyFromHost = HostHello | HostReport | HostAnswer


class ToHost(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base of what the coordinator says."""


class Who(ToHost, frozen=True, kw_only=True, tag="who"):
    """The coordinator does not know this session (it was started anew): say `HostHello`."""


class Orders(ToHost, frozen=True, kw_only=True, tag="orders"):
    """All that the host has not confirmed yet. Sent on every report, and when something is new."""

    session: str
    epoch: int
    """Of the coordinator's leadership: orders of an earlier one than was seen are ignored."""
    seq: int
    """Counts up within an epoch."""
    echo: float = 0.0
    """`HostReport.sent` of the last report that came; 0: none yet."""
    lease_seconds: float = 0.0
    """For so long after it sent that report the host may run what must not run elsewhere."""
    seen: int = 0
    """The last report with contents that was taken in: a later one is repeated until it is named here.

    Lower than before: this coordinator was started since, and has not taken in what another one had.
    """
    assign: list[Assign] = []
    revoke: list[Revoke] = []
    settled: list[Settled] = []
    priorities: dict[int, int] = {}
    """Fleet job to the priority it has now, where that was changed after it was assigned."""
    wall: float = 0.0
    """What the coordinator's clock on the wall showed when it sent this; 0: it does not say."""


class HostAsk(ToHost, frozen=True, kw_only=True, tag="ask"):
    """A user's request that this host must answer: a log, a command in a job. Job ids are local ones."""

    id: str
    user: str
    request: AnyRequest


class TurnedAway(ToHost, frozen=True, kw_only=True, tag="turned-away"):
    """The host cannot take part, in words: its name is in use, its version is too old."""

    reason: str


class NotLeader(ToHost, frozen=True, kw_only=True, tag="not-leader"):
    """Another coordinator leads: look for it. Without a name nobody does: stay, it may be this one soon."""

    leader: str = ""


AnyToHost = NotLeader | Who | Orders | HostAsk | TurnedAway
