"""One database file of topod: opened and checked, written in whole transactions, read beside that.

Writers and readers use a connection each, so that a long look at the history delays no decision. What a host
and a coordinator both keep is here: events, the tokens of submits, facts.
"""

import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from topod.adapters.sqlite_place import Place, refuse_beside_copy, refuse_without_room
from topod.adapters.sqlite_schema import open_connection, plainly
from topod.adapters.sqlite_upgrade import migrate, refuse_newer
from topod.errors import StoreError
from topod.protocol.codec import encode, from_plain
from topod.protocol.views import EventView

EVENTS_KEPT: Final = 200_000
"""Older events are forgotten when the database is opened."""

T = TypeVar("T")


def stored_plain(kind: type[Any], value: object) -> object:
    """Return a value of the model from what was kept of it; for a decoder of msgspec."""
    # The core says `object` where msgspec would want `Any`: plain JSON, as it is.
    return value if kind is object else from_plain(kind, value)


INTEGER_MAX: Final = (1 << 63) - 1
"""Beyond it SQLite has no integers, so nothing has such a number."""


class SqliteFile:
    """A database that is this process's alone. Every method may block on the disk and raises `StoreError`."""

    def __init__(self, path: Path, *, schema: str, head: str) -> None:
        """Open or create the database and bring it to this version's schema.

        `schema` names a folder of migrations, `head` the table of one row that every change goes through.

        Raises `StoreError` when it cannot be read, is damaged, was written by a newer topod, or was taken
        from an earlier one that kept a copy; the file is left as it was.
        """
        refuse_beside_copy(path)
        refuse_newer(path, schema, head)
        self.path: Final = path
        self._head: Final = head
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._writer = open_connection(path)
        try:
            self._refuse_another_kind()
            self.upgrade: Final = migrate(self._writer, path, schema)
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

    def check(self, *, thorough: bool) -> None:
        """Raise `StoreError` where nothing can be made durable now.

        Looks whether the files are still there; where `thorough`, writes something that changes nothing.
        """
        if thorough:
            touch = f"UPDATE {self._head} SET generation = generation"  # noqa: S608 - a constant
            self._write(lambda c: c.execute(touch), transaction=True)
            # So little may have found room in the journal, where the next outcome does not.
            refuse_without_room(self.path)
            return
        with self._write_lock, plainly(self.path, "read"):
            if gone := self._place.gone():
                raise self._place.lost(gone, self._writer)

    def tokens(self, tokens: Iterable[str]) -> dict[str, int]:
        """Return the (first) job that a submit with each of these tokens led to, where there was one."""
        one = "SELECT token, job FROM submissions WHERE token = ?"
        rows = self._write(lambda c: [row for token in tokens for row in c.execute(one, (token,))])
        return dict(rows)

    def events(self, since: int, limit: int, job: int | None = None) -> tuple[EventView, ...]:
        """Return events after number `since`, the oldest first; for a negative `since` the last that many."""
        if since > INTEGER_MAX or not -INTEGER_MAX <= (job or 0) <= INTEGER_MAX:
            return ()
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

    def _refuse_another_kind(self) -> None:
        with plainly(self.path, "read"):
            rows = self._writer.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        tables = {name for (name,) in rows}
        if tables and self._head not in tables:
            other = next((kind for kind in ("host", "fleet") if kind in tables), "another program")
            raise StoreError(
                f"{self.path} belongs to a {other}, not to a {self._head}",
                hint="name another state folder with --state-dir",
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


def text_of(value: object) -> str:
    """Return a value as it is kept: JSON."""
    return encode(value).decode()


def insert_event(
    connection: sqlite3.Connection,
    now: float,
    *,
    name: str,
    job: int | None,
    text: str,
    data: Mapping[str, Any],
) -> EventView:
    """Add a line to the story, within the transaction that is under way."""
    done = connection.execute(
        "INSERT INTO events (at, name, job, text, data) VALUES (?, ?, ?, ?, ?)",
        (now, name, job, text, text_of(data)),
    )
    assert done.lastrowid is not None
    return EventView(seq=done.lastrowid, at=now, name=name, job=job, text=text, data=dict(data))
