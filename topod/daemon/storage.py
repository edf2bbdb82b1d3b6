"""What the daemon needs of a state database; `SqliteStore` is one."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import HostState, Job
from topod.model.job import JobId
from topod.protocol.views import EventView


class Store(Protocol):
    """The memory of one host. Every method may block on the disk and raises `StoreError`."""

    def load(self) -> HostState:
        """Return the state as it was last committed; only jobs that were not put to rest."""
        ...

    def commit(
        self,
        base: HostState,
        outcome: Outcome,
        *,
        now: float,
        tokens: Mapping[str, JobId] = MappingProxyType({}),
    ) -> tuple[EventView, ...]:
        """Make one outcome durable, all or nothing, and return its notices as numbered events."""
        ...

    def check(self, *, thorough: bool) -> None:
        """Raise `StoreError` where nothing can be made durable now; where `thorough`, by trying it."""
        ...

    def submitted(self, tokens: Iterable[str]) -> dict[str, JobId]:
        """Return the (first) job that a submit with each of these tokens led to, where there was one."""
        ...

    def job(self, ident: int) -> Job | None:
        """Return one job, ended or not; None when there never was one."""
        ...

    def jobs(self, idents: Iterable[int]) -> dict[int, Job]:
        """Return those of these jobs that there ever were."""
        ...

    def ended_jobs(self, limit: int, user: str | None = None) -> tuple[Job, ...]:
        """Return the last `limit` jobs that ended, of one user or of all, the oldest first."""
        ...

    def events(self, since: int, limit: int, job: int | None = None) -> tuple[EventView, ...]:
        """Return events after number `since`, the oldest first; for a negative `since` the last that many."""
        ...
