"""A job of the fleet on one of its hosts: what both sides must agree on.

Rule: the same (job, fence) is carried out at most once, and a job's fence only ever rises. So messages may be
lost, repeated or come late, and a host that was cut off learns which of its jobs were given away.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class OnHostLost(StrEnum):
    """What becomes of a job whose host is cut off from the coordinator for longer than its lease."""

    REQUEUE = "requeue"
    """Its host stops it, and the coordinator places it anew once that is certain."""
    KEEP = "keep"
    """It goes on, and nobody starts it elsewhere until its host is back or declared dead."""


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
    """What its command learns of the fleet: rank, hosts, rendezvous."""
    on_host_lost: OnHostLost = OnHostLost.REQUEUE


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the coordinator's plan gives a job on a host; the host plans again and must come to the same."""

    gpus: tuple[int, ...] = ()
    """Indices."""
    victims: tuple[str, ...] = ()
    """Local job ids."""
