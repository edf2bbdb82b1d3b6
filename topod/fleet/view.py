"""What a coordinator sees of its hosts now. None of it is durable: hosts tell it anew.

Frozen values; a step returns the next one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from topod.fleet.hosts import HostSnapshot
from topod.fleet.states import FleetJobId
from topod.flextopo.tables import TopologyTables
from topod.model.assignment import FleetJobReport


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """One host in its present session."""

    session: str
    tables: TopologyTables
    seq: int = 0
    """The last report that came."""
    seen: int = 0
    """The last report with contents that came; what `Orders.seen` says."""
    heard_at: float
    """When the last report came, or the hello (epoch seconds of the coordinator)."""
    silent: bool = False
    """Not heard of for a while: it gets no new work."""
    snapshot: HostSnapshot | None = None
    jobs: Mapping[tuple[int, int], FleetJobReport] | None = None
    """By job and fence, as of report `seen`; None: it has not reported yet."""
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A host gave a job back that it had not started."""

    times: int
    """In a row."""
    until: float
    """It is not asked for this job earlier (epoch seconds)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """All hosts as they are seen now."""

    since: float = 0.0
    """When this leadership began: until then somebody else may have given leases."""
    hosts: Mapping[str, HostView] = field(default_factory=dict)
    refused: Mapping[tuple[FleetJobId, str], Refused] = field(default_factory=dict)
    first: FleetJobId | None = None
    """The first job in the queue that must wait for room."""
    behind: bool = True
    """Whether the queue must be gone through as a whole at the next occasion."""

    def knows(self, host: str, session: str) -> bool:
        """Say whether reports of this session can be taken in; else the host is asked who it is."""
        seen = self.hosts.get(host)
        return seen is not None and seen.session == session

    def turned_away(self, host: str, session: str) -> str | None:
        """Return why a session cannot take part now, in words, or None.

        A name belongs to the session that reports under it. Another one can have it once that is silent: so
        a hello that comes late takes nothing from who is there, and neither does a twin.
        """
        seen = self.hosts.get(host)
        if seen is None or seen.session == session or seen.silent:
            return None
        return f"a topod that calls itself {host} was heard of just now; this one can follow when it is gone"

    def heard_at(self, host: str) -> float:
        """Return the last moment from which a lease of this host may count."""
        seen = self.hosts.get(host)
        return self.since if seen is None else max(seen.heard_at, self.since)
