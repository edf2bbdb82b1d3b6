"""What the daemon remembers, in one SQLite file: jobs, the host, the host's story.

Rule: one outcome of the state machine is one transaction, durable when `commit` returns. Writers and readers
(`job`, `ended_jobs`, `events`) use a connection each, so that a long look at the history delays no decision.
"""

import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from topod.adapters.sqlite_place import Place, refuse_beside_copy
from topod.adapters.sqlite_schema import migrate, open_connection, plainly
from topod.errors import StoreError
from topod.lifecycle.effects import Notice
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import ENDED, HostState, Job, Mark
from topod.model.job import JobId
from topod.protocol.codec import encode, from_plain
from topod.protocol.views import EventView

EVENTS_KEPT: Final = 200_000
"""Older events are forgotten when the database is opened."""

T = TypeVar("T")


def _from_plain(kind: type[Any], value: object) -> object:
    # The core says `object` where msgspec would want `Any`: plain JSON, as it is.
    return value if kind is object else from_plain(kind, value)


_jobs = msgspec.json.Decoder(Job, dec_hook=_from_plain)
_Marks = dict[str, tuple[Mark, ...]]
_marks: msgspec.json.Decoder[_Marks] = msgspec.json.Decoder(_Marks, dec_hook=_from_plain)
_foreign: msgspec.json.Decoder[dict[str, str]] = msgspec.json.Decoder(dict[str, str])


class SqliteStore:
    """The state database of one host. Every method may block on the disk and raises `StoreError`."""

    def __init__(self, path: Path) -> None:
        """Open or create the database and bring it to this version's schema.

        Raises `StoreError` when it cannot be read, is damaged, was written by a newer topod, or was taken
        from an earlier one that kept a copy; the file is left as it was.
        """
        refuse_beside_copy(path)
        self.path: Final = path
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._writer = open_connection(path)
        try:
            migrate(self._writer, path)
            self._reader = open_connection(path, read_only=True)
            self._place = Place(path)
            self.instance: Final = self._ensure_instance()
            self._forget_old_events()
        except BaseException:
            self._writer.close()
            raise

    def close(self) -> None:
        """Finish the transaction in progress and close the file."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()

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
                    _text(state.marks),
                    _text(state.foreign_cpus),
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
            return tuple(_insert_event(connection, notice, now) for notice in outcome.notices)

        return self._write(write, transaction=True)

    def check(self, *, thorough: bool) -> None:
        """Raise `StoreError` where nothing can be made durable now.

        Looks whether the files are still there; where `thorough`, writes something that changes nothing.
        """
        if thorough:
            self._write(lambda c: c.execute("UPDATE host SET generation = generation"), transaction=True)
            return
        with self._write_lock, plainly(self.path, "read"):
            if gone := self._place.gone():
                raise self._place.lost(gone, self._writer)

    def submitted(self, tokens: Iterable[str]) -> dict[str, JobId]:
        """Return the (first) job that a submit with each of these tokens led to, where there was one."""
        one = "SELECT token, job FROM submissions WHERE token = ?"
        rows = self._write(lambda c: [row for token in tokens for row in c.execute(one, (token,))])
        return {token: JobId(job) for token, job in rows}

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

    def events(self, since: int, limit: int, job: int | None = None) -> tuple[EventView, ...]:
        """Return events after number `since`, the oldest first; for a negative `since` the last that many."""
        where, values = ("", []) if job is None else (" AND job = ?", [job])
        if since < 0:
            query = f"SELECT * FROM events WHERE 1{where} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - constants only
            rows = self._read(lambda c: c.execute(query, (*values, min(-since, limit))).fetchall())[::-1]
        else:
            query = f"SELECT * FROM events WHERE seq > ?{where} ORDER BY seq LIMIT ?"  # noqa: S608 - constants only
            rows = self._read(lambda c: c.execute(query, (since, *values, limit)).fetchall())
        return tuple(
            EventView(seq=seq, at=at, name=name, job=of, text=text, data=msgspec.json.decode(data))
            for seq, at, name, of, text, data in rows
        )

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

    def facts(self) -> dict[str, str]:
        """Return what this state folder belongs to: by name, for example `runtime` and `host`."""
        return dict(self._write(lambda c: c.execute("SELECT name, value FROM facts").fetchall()))

    def note_facts(self, facts: dict[str, str]) -> None:
        """Remember what this state folder belongs to; other facts stay."""
        self._write(
            lambda c: c.executemany(
                "INSERT INTO facts (name, value) VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                facts.items(),
            ),
            transaction=True,
        )

    def _ensure_instance(self) -> str:
        known = self.facts().get("instance")
        if known is None:
            known = uuid.uuid4().hex[:12]
            self.note_facts({"instance": known})
        return known

    def _forget_old_events(self) -> None:
        self._write(
            lambda c: c.execute(
                "DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?", (EVENTS_KEPT,)
            ),
            transaction=True,
        )

    def _job(self, ident: int, body: str) -> Job:
        return self._decode(_jobs, body, f"job {ident}")

    def _decode(self, decoder: msgspec.json.Decoder[T], body: str, what: str) -> T:
        try:
            return decoder.decode(body)
        except (msgspec.MsgspecError, ValueError) as error:
            raise StoreError(f"{self.path} is damaged at {what}: {error}", hint=_RESTORE) from None

    def _read(self, query: Callable[[sqlite3.Connection], Any]) -> Any:
        with self._read_lock, plainly(self.path, "read"):
            return query(self._reader)

    def _write(self, work: Callable[[sqlite3.Connection], T], *, transaction: bool = False) -> T:
        with self._write_lock, plainly(self.path, "write" if transaction else "read"):
            if not transaction:
                return work(self._writer)
            gone = self._place.gone()
            if not gone:
                self._place.well()
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    result = work(self._writer)
                    gone = self._place.gone()
                    self._writer.execute("ROLLBACK" if gone else "COMMIT")
                except BaseException:
                    # SQLite has already rolled back by itself after some errors (disk full).
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
                if not gone:
                    return result
            raise self._place.lost(gone, self._writer)


_RESTORE = "move the file away, or restore it from a copy; topod leaves it as it is"


def _text(value: object) -> str:
    return encode(value).decode()


def _job_row(job: Job, *, is_open: bool) -> Sequence[object]:
    return (job.id, job.state.value, int(is_open), job.spec.user, job.submitted_at, job.ended_at, _text(job))


def _insert_event(connection: sqlite3.Connection, notice: Notice, now: float) -> EventView:
    data = dict(notice.data)
    row: Iterable[object] = (now, notice.name, notice.job, notice.text, _text(data))
    done = connection.execute(
        "INSERT INTO events (at, name, job, text, data) VALUES (?, ?, ?, ?, ?)", tuple(row)
    )
    assert done.lastrowid is not None
    return EventView(
        seq=done.lastrowid, at=now, name=notice.name, job=notice.job, text=notice.text, data=data
    )
