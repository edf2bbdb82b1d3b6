"""What events lead to."""

from dataclasses import dataclass

from topod.fleet.states import FleetJob, FleetJobId, FleetState, HostRecord
from topod.fleet.view import FleetView


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetNotice:
    """One line of the fleet's story.

    `name` is a dotted noun and a past participle (`job.assigned`); `data` holds plain JSON values.
    """

    name: str
    text: str
    job: FleetJobId | None = None
    host: str | None = None
    data: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOutcome:
    """The new state and view, what must be written, and whom to tell once it is.

    `changed` lists every job that differs from before, also those that ended and are no longer in
    `state.jobs`; what a pending job waits for is said anew by every step and not listed. Without anything to
    write the generation stays the same. `orders` are the hosts for which `orders_for` may say something else
    than before.
    """

    state: FleetState
    view: FleetView
    notices: tuple[FleetNotice, ...] = ()
    changed: tuple[FleetJob, ...] = ()
    changed_hosts: tuple[HostRecord, ...] = ()
    removed_hosts: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()
