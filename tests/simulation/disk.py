"""The state database on a disk that fills up, turns read-only and lies: what SQLite can do, and no more.

Jobs are kept as the JSON that the real store writes, so a state that does not survive the round trip is seen.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from tests.simulation.chance import World
from topod.adapters import sqlite_store
from topod.errors import StoreError
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import ENDED, HostState, Job, JobState
from topod.model.job import JobId
from topod.protocol.codec import encode
from topod.protocol.views import EventView

if TYPE_CHECKING:
    from tests.simulation.referee import Referee

COMMIT_SECONDS: Final = (0.0, 0.0002, 0.003, 0.2)
T = TypeVar("T")


@dataclass
class Content:
    """What lies on the disk. `state` is the last durable state as values, `rows` the same as text."""

    state: HostState
    rows: dict[JobId, bytes]
    tokens: dict[str, JobId]
    events: int = 0


class Disk:
    """A state database that outlives the daemon."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.referee: Referee | None = None
        self.content = Content(state=HostState(), rows={}, tokens={})
        self.full_until = 0.0
        self.read_only_until = 0.0
        self._ghost: Callable[[], None] | None = None
        """A commit that was refused but whose pages reached the disk: seen if the daemon dies just now."""

    @property
    def broken(self) -> str:
        if self.world.now < self.full_until:
            return "database or disk is full"
        if self.world.now < self.read_only_until:
            return "attempt to write a readonly database"
        return ""

    def daemon_died(self) -> None:
        """What lay in the journal of a dead daemon becomes part of the database."""
        if self._ghost is not None:
            self.world.say("a refused commit was durable after all")
            self._ghost()
            self._ghost = None

    # --- the `Store` that topod uses -------------------------------------------------------------------------

    def load(self) -> HostState:
        content = self.content
        known = {ident: sqlite_store._jobs.decode(row) for ident, row in content.rows.items()}
        jobs = {ident: job for ident, job in sorted(known.items()) if ident in content.state.jobs}
        loaded = replace(content.state, jobs=jobs)
        if _without_reasons(loaded) != _without_reasons(content.state):
            self.world.violated("the state does not survive the way to the disk and back")
        return loaded

    def commit(
        self,
        base: HostState,
        outcome: Outcome,
        *,
        now: float,
        tokens: Mapping[str, JobId] = MappingProxyType({}),
    ) -> tuple[EventView, ...]:
        world, content = self.world, self.content
        world.takes = world.chance.rng.choice(COMMIT_SECONDS)
        if base.generation != content.state.generation:
            world.violated(f"generation {base.generation} is not what is durable")
        if self.broken:
            raise StoreError(f"cannot write state.db: {self.broken}")

        def write() -> None:
            content.state = outcome.state
            content.rows.update({job.id: encode(job) for job in outcome.changed})
            content.tokens.update(tokens)
            if self.referee is not None:
                self.referee.committed(base, outcome, now)

        if world.chance.strikes("disk.unsure"):
            self._ghost = write
            raise StoreError("cannot write state.db: disk I/O error")
        self._ghost = None
        write()
        for notice in outcome.notices:
            world.say(f"story: {notice.text}")
        first = content.events + 1
        content.events += len(outcome.notices)
        return tuple(
            EventView(seq=seq, at=now, name=n.name, job=n.job, text=n.text, data=dict(n.data))
            for seq, n in enumerate(outcome.notices, first)
        )

    def check(self, *, thorough: bool) -> None:
        if thorough and self.broken:
            raise StoreError(f"cannot write state.db: {self.broken}")

    def submitted(self, tokens: Iterable[str]) -> dict[str, JobId]:
        return {token: self.content.tokens[token] for token in tokens if token in self.content.tokens}

    def jobs(self, idents: Iterable[int]) -> dict[int, Job]:
        return {ident: job for ident in idents if (job := self.job(ident)) is not None}

    def job(self, ident: int) -> Job | None:
        row = self.content.rows.get(JobId(ident))
        return None if row is None else sqlite_store._jobs.decode(row)

    def ended_jobs(self, limit: int, user: str | None = None) -> tuple[Job, ...]:
        found = [sqlite_store._jobs.decode(row) for row in self.content.rows.values()]
        return tuple(job for job in found if job.state in ENDED)[-limit:]

    def events(self, since: int, limit: int, job: int | None = None) -> tuple[EventView, ...]:
        return ()


def _without_reasons(state: HostState) -> HostState:
    """What a pending job waits for follows from all the rest, and is told anew after a start."""
    jobs = {
        ident: replace(job, reason="") if job.state is JobState.PENDING else job
        for ident, job in sorted(state.jobs.items())
    }
    return replace(state, jobs=jobs)
