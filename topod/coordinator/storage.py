"""What a coordinator needs of a state database; `SqliteFleet` is one."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from topod.fleet.outcome import FleetOutcome
from topod.fleet.states import FleetJob, FleetJobId, FleetState
from topod.protocol.views import EventView


class FleetStore(Protocol):
    """The memory of one fleet. Every method may block, and raises `StoreError`."""

    def load(self) -> FleetState:
        """Return the state as it was last committed; only jobs that have not ended."""
        ...

    def commit(
        self,
        base: FleetState,
        outcome: FleetOutcome,
        *,
        now: float,
        tokens: Mapping[str, FleetJobId] = MappingProxyType({}),
    ) -> tuple[EventView, ...]:
        """Make one outcome durable, all or nothing, and return its notices as numbered events.

        Refused where `base` is not what was committed last.
        """
        ...

    def check(self, *, thorough: bool) -> None:
        """Raise `StoreError` where nothing can be made durable now; where `thorough`, by trying it."""
        ...

    def submitted(self, tokens: Iterable[str]) -> dict[str, FleetJobId]:
        """Return the job that a submit with each of these tokens led to, where there was one."""
        ...

    def job(self, ident: int) -> FleetJob | None:
        """Return one job, ended or not; None when there never was one."""
        ...

    def jobs(self, idents: Iterable[int]) -> dict[int, FleetJob]:
        """Return those of these jobs that there ever were."""
        ...

    def ended_jobs(self, limit: int, user: str | None = None) -> tuple[FleetJob, ...]:
        """Return the last `limit` jobs that ended, of one user or of all, the oldest first."""
        ...

    def forget(self, before: float, limit: int) -> int:
        """Delete up to `limit` jobs that ended, and as many events, from before that moment.

        Returns how many rows went; 0 also where a memory forgets by itself.
        """
        ...

    def events(self, since: int, limit: int, job: int | None = None) -> tuple[EventView, ...]:
        """Return events after number `since`, the oldest first; for a negative `since` the last that many."""
        ...
