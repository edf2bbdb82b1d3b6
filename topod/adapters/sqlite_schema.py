"""Opening the state database: its settings, its errors in plain words."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from topod.errors import StoreError

BUSY_SECONDS = 10.0


def open_connection(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Return a connection that commits only on request; a writer's commits survive a power cut."""
    with plainly(path, "open"):
        if not read_only:
            _keep_private(path)
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            if read_only:
                connection.execute("PRAGMA query_only = ON")
            else:
                # A damaged file must be refused before anything, the journal mode included, is written to it.
                _check(connection, path)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA journal_size_limit = 16777216")
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def plainly(path: Path, verb: str) -> Iterator[None]:
    """Turn SQLite's exceptions into one line that says what, where and what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        hint = next((hint for words, hint in _HINTS if words in text), None)
        raise StoreError(f"cannot {verb} {path}: {text}", hint=hint) from error


DAMAGED = "move the file away, or restore it from a copy; topod leaves it as it is"
_HINTS = (
    (
        "disk is full",
        "free some space; a topod that runs goes on by itself then, one that could not start must be started",
    ),
    ("readonly", "check the permissions of the state folder and that its file system is writable"),
    ("unable to open", "check that the state folder exists and that this user may write to it"),
    ("not a database", DAMAGED),
    ("malformed", DAMAGED),
    ("locked", "another program holds the database open"),
)


def _keep_private(path: Path) -> None:
    """Make the file its owner's alone; SQLite gives the files beside it the same mode."""
    # What cannot be done here, a full or read-only disk, SQLite tells in its own words. Opened only where it
    # is new: to close a file that SQLite has open elsewhere in this process would drop SQLite's locks.
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        with suppress(OSError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise StoreError(f"{path} is damaged: {verdict}".replace("\n", " "), hint=DAMAGED)
