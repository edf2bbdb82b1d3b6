"""What a coordinator remembers, in one SQLite file: the jobs of the fleet, its hosts, its story.

Rule: one outcome of the fleet's core is one transaction, durable when `commit` returns.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from topod.adapters.sqlite_file import SqliteFile, insert_event, stored_plain, text_of
from topod.errors import StoreError
from topod.fleet.outcome import FleetNotice, FleetOutcome
from topod.fleet.states import FleetJob, FleetJobId, FleetState, HostRecord
from topod.protocol.views import EventView

_jobs = msgspec.json.Decoder(FleetJob, dec_hook=stored_plain)
_hosts = msgspec.json.Decoder(HostRecord, dec_hook=stored_plain)


class SqliteFleet(SqliteFile):
    """The state database of one coordinator. Every method may block on the disk and raises `StoreError`."""

    def __init__(self, path: Path) -> None:
        """Open or create the database; see `SqliteFile`."""
        super().__init__(path, schema="fleet", head="fleet")

    def load(self) -> FleetState:
        """Return the state as it was last committed; only jobs that have not ended."""
        numbers, jobs, hosts, highest = self._write(
            lambda connection: (
                connection.execute("SELECT generation, next_job, next_fence, epoch FROM fleet").fetchone(),
                connection.execute("SELECT id, body FROM jobs WHERE ended_at IS NULL ORDER BY id").fetchall(),
                connection.execute("SELECT name, body FROM hosts ORDER BY name").fetchall(),
                connection.execute(
                    "SELECT coalesce(max(id), 0), coalesce(max(fence), 0) FROM jobs"
                ).fetchone(),
            )
        )
        generation, next_job, next_fence, epoch = numbers
        for what, used, coming in (("job", highest[0], next_job), ("fence", highest[1], next_fence)):
            if used >= coming:
                raise StoreError(
                    f"{self.path} is damaged: it holds {what} {used} and would hand out {coming} next"
                )
        return FleetState(
            generation=generation,
            next_job=FleetJobId(next_job),
            next_fence=next_fence,
            epoch=epoch,
            jobs={FleetJobId(ident): self._job(ident, body) for ident, body in jobs},
            hosts={name: self._decode(_hosts, body, f"host {name}") for name, body in hosts},
        )

    def commit(
        self,
        base: FleetState,
        outcome: FleetOutcome,
        *,
        now: float,
        tokens: Mapping[str, FleetJobId] = MappingProxyType({}),
    ) -> tuple[EventView, ...]:
        """Make one outcome durable, all or nothing, and return its notices as numbered events.

        `base` is the state the outcome was made from; `tokens` note which job a submit led to.
        """
        state = outcome.state
        jobs = [
            (job.id, job.spec.user, job.fence, job.submitted_at, job.ended_at, text_of(job))
            for job in outcome.changed
        ]
        hosts = [(record.name, text_of(record)) for record in outcome.changed_hosts]

        def write(connection: sqlite3.Connection) -> tuple[EventView, ...]:
            done = connection.execute(
                "UPDATE fleet SET generation = ?, next_job = ?, next_fence = ?, epoch = ? "
                "WHERE generation = ?",
                (state.generation, state.next_job, state.next_fence, state.epoch, base.generation),
            )
            if done.rowcount != 1:
                raise StoreError(
                    f"{self.path} was changed by another program: generation {base.generation} is gone"
                )
            connection.executemany(
                "INSERT INTO jobs (id, user, fence, submitted_at, ended_at, body) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET fence = excluded.fence, ended_at = excluded.ended_at, "
                "body = excluded.body",
                jobs,
            )
            connection.executemany(
                "INSERT INTO hosts (name, body) VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET body = excluded.body",
                hosts,
            )
            connection.executemany(
                "DELETE FROM hosts WHERE name = ?", [(name,) for name in outcome.removed_hosts]
            )
            connection.executemany("INSERT INTO submissions (token, job) VALUES (?, ?)", tokens.items())
            return tuple(
                insert_event(
                    connection, now, name=notice.name, job=notice.job, text=notice.text, data=_data(notice)
                )
                for notice in outcome.notices
            )

        return self._write(write, transaction=True)

    def submitted(self, tokens: Iterable[str]) -> dict[str, FleetJobId]:
        """Return the job that a submit with each of these tokens led to, where there was one."""
        return {token: FleetJobId(job) for token, job in self.tokens(tokens).items()}

    def job(self, ident: int) -> FleetJob | None:
        """Return one job, ended or not; None when there never was one."""
        return self.jobs([ident]).get(ident)

    def jobs(self, idents: Iterable[int]) -> dict[int, FleetJob]:
        """Return those of these jobs that there ever were."""
        one = "SELECT id, body FROM jobs WHERE id = ?"
        # SQLite's integers end at 2^63 - 1; beyond it is simply no job.
        sane = [ident for ident in idents if 0 < ident < 1 << 63]
        rows = self._read(lambda c: [row for ident in sane for row in c.execute(one, (ident,))])
        return {ident: self._job(ident, body) for ident, body in rows}

    def ended_jobs(self, limit: int, user: str | None = None) -> tuple[FleetJob, ...]:
        """Return the last `limit` jobs that ended, of one user or of all, the oldest first."""
        where, values = ("", []) if user is None else (" AND user = ?", [user])
        query = (
            f"SELECT id, body FROM jobs WHERE ended_at IS NOT NULL{where} "  # noqa: S608 - constants only
            "ORDER BY ended_at DESC, id DESC LIMIT ?"
        )
        rows = self._read(lambda c: c.execute(query, (*values, max(0, limit))).fetchall())
        return tuple(self._job(*row) for row in reversed(rows))

    def forget(self, before: float, limit: int) -> int:
        """Delete up to `limit` jobs that ended, and as many events, from before that moment.

        Returns how many rows went. Numbers are not handed out again.
        """

        def delete(connection: sqlite3.Connection) -> int:
            jobs = connection.execute(
                "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE ended_at < ? "
                "ORDER BY ended_at, id LIMIT ?)",
                (before, limit),
            ).rowcount
            if jobs:
                connection.execute("DELETE FROM submissions WHERE job NOT IN (SELECT id FROM jobs)")
            events = connection.execute(
                "DELETE FROM events WHERE at < ? AND seq IN (SELECT seq FROM events ORDER BY seq LIMIT ?)",
                (before, limit),
            ).rowcount
            return jobs + events

        return self._write(delete, transaction=True)

    def _job(self, ident: int, body: str) -> FleetJob:
        return self._decode(_jobs, body, f"job {ident}")


def _data(notice: FleetNotice) -> dict[str, object]:
    """Return what a notice tells as data, its host included: events have a column for jobs only."""
    host = {} if notice.host is None else {"host": notice.host}
    return {**host, **dict(notice.data)}
