"""What the daemon remembers, in one SQLite file: jobs, the host, the host's story.

Rule: one outcome of the state machine is one transaction, durable when `commit` returns. Writers and readers
(`job`, `ended_jobs`, `events`) use a connection each, so that a long look at the history delays no decision.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from topod.adapters.sqlite_file import SqliteFile, insert_event, stored_plain, text_of
from topod.errors import StoreError
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import ENDED, HostState, Job, Mark
from topod.model.job import JobId
from topod.protocol.views import EventView

_jobs = msgspec.json.Decoder(Job, dec_hook=stored_plain)
_Marks = dict[str, tuple[Mark, ...]]
_marks: msgspec.json.Decoder[_Marks] = msgspec.json.Decoder(_Marks, dec_hook=stored_plain)
_foreign: msgspec.json.Decoder[dict[str, str]] = msgspec.json.Decoder(dict[str, str])


class SqliteStore(SqliteFile):
    """The state database of one host. Every method may block on the disk and raises `StoreError`."""

    def __init__(self, path: Path) -> None:
        """Open or create the database; see `SqliteFile`."""
        super().__init__(path, schema="migrations", head="host")

    def load(self) -> HostState:
        """Return the state as it was last committed; only jobs that were not put to rest."""
        host, rows, highest = self._write(
            lambda connection: (
                connection.execute(
                    "SELECT generation, next_job, drain, marks, foreign_cpus, blind, settled_fence FROM host"
                ).fetchone(),
                connection.execute("SELECT id, body FROM jobs WHERE open = 1 ORDER BY id").fetchall(),
                connection.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()[0],
            )
        )
        generation, next_job, drain, marks_text, foreign_text, blind, settled_fence = host
        marks: _Marks = self._decode(_marks, marks_text, "the marks of GPUs")
        foreign = self._decode(_foreign, foreign_text, "the CPUs in foreign use")
        if highest >= next_job:
            raise StoreError(
                f"{self.path} is damaged: it holds job {highest} and would hand out {next_job} next"
            )
        return HostState(
            generation=generation,
            next_job=JobId(next_job),
            jobs={JobId(ident): self._job(ident, body) for ident, body in rows},
            marks=marks,
            drain=drain,
            foreign_cpus=foreign,
            blind=blind,
            settled_fence=settled_fence,
        )

    def commit(
        self,
        base: HostState,
        outcome: Outcome,
        *,
        now: float,
        tokens: Mapping[str, JobId] = MappingProxyType({}),
    ) -> tuple[EventView, ...]:
        """Make one outcome durable, all or nothing, and return its notices as numbered events.

        `base` is the state the outcome was made from; `tokens` note which (first) job a submit led to.
        """
        state = outcome.state
        jobs = [_job_row(job, is_open=job.id in state.jobs) for job in outcome.changed]

        def write(connection: sqlite3.Connection) -> tuple[EventView, ...]:
            done = connection.execute(
                "UPDATE host SET generation = ?, next_job = ?, drain = ?, marks = ?, foreign_cpus = ?, "
                "blind = ?, settled_fence = ? WHERE generation = ?",
                (
                    state.generation,
                    state.next_job,
                    state.drain,
                    text_of(state.marks),
                    text_of(state.foreign_cpus),
                    state.blind,
                    state.settled_fence,
                    base.generation,
                ),
            )
            if done.rowcount != 1:
                raise StoreError(
                    f"{self.path} was changed by another program: generation {base.generation} is gone"
                )
            connection.executemany(
                "INSERT INTO jobs (id, state, open, user, submitted_at, ended_at, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET state = excluded.state, open = excluded.open, "
                "ended_at = excluded.ended_at, body = excluded.body",
                jobs,
            )
            connection.executemany("INSERT INTO submissions (token, job) VALUES (?, ?)", tokens.items())
            return tuple(
                insert_event(
                    connection,
                    now,
                    name=notice.name,
                    job=notice.job,
                    text=notice.text,
                    data=dict(notice.data),
                )
                for notice in outcome.notices
            )

        return self._write(write, transaction=True)

    def submitted(self, tokens: Iterable[str]) -> dict[str, JobId]:
        """Return the (first) job that a submit with each of these tokens led to, where there was one."""
        return {token: JobId(job) for token, job in self.tokens(tokens).items()}

    def job(self, ident: int) -> Job | None:
        """Return one job, ended or not; None when there never was one."""
        return self.jobs([ident]).get(ident)

    def jobs(self, idents: Iterable[int]) -> dict[int, Job]:
        """Return those of these jobs that there ever were."""
        one = "SELECT id, body FROM jobs WHERE id = ?"
        # SQLite's integers end at 2^63 - 1; beyond it is simply no job.
        sane = [ident for ident in idents if 0 < ident < 1 << 63]
        rows = self._read(lambda c: [row for ident in sane for row in c.execute(one, (ident,))])
        return {ident: self._job(ident, body) for ident, body in rows}

    def ended_jobs(self, limit: int, user: str | None = None) -> tuple[Job, ...]:
        """Return the last `limit` jobs that ended, of one user or of all, the oldest first."""
        where, values = ("", []) if user is None else (" AND user = ?", [user])
        # An ended job whose container is not yet removed is still open.
        states = ", ".join(f"'{state}'" for state in sorted(ENDED))
        rows = self._read(
            lambda c: c.execute(
                f"SELECT id, body FROM jobs WHERE ended_at IS NOT NULL AND state IN ({states}){where} "  # noqa: S608 - constants only
                "ORDER BY ended_at DESC, id DESC LIMIT ?",
                (*values, max(0, limit)),
            ).fetchall()
        )
        return tuple(self._job(*row) for row in reversed(rows))

    def forget(self, before: float, limit: int) -> int:
        """Delete up to `limit` jobs that were put to rest, and as many events, from before that moment.

        Returns how many rows went. Ids are not handed out again.
        """

        def delete(connection: sqlite3.Connection) -> int:
            jobs = connection.execute(
                "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE ended_at < ? AND open = 0 "
                "ORDER BY ended_at LIMIT ?)",
                (before, limit),
            ).rowcount
            events = connection.execute(
                "DELETE FROM events WHERE at < ? AND seq IN (SELECT seq FROM events ORDER BY seq LIMIT ?)",
                (before, limit),
            ).rowcount
            if jobs:
                connection.execute("DELETE FROM submissions WHERE job NOT IN (SELECT id FROM jobs)")
            return jobs + events

        return self._write(delete, transaction=True)

    def _job(self, ident: int, body: str) -> Job:
        return self._decode(_jobs, body, f"job {ident}")


def _job_row(job: Job, *, is_open: bool) -> Sequence[object]:
    return (
        job.id,
        job.state.value,
        int(is_open),
        job.spec.user,
        job.submitted_at,
        job.ended_at,
        text_of(job),
    )
