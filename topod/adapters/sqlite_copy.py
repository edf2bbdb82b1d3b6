"""A whole, durable copy of a database that is open, beside it."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path


def write_copy(connection: sqlite3.Connection, target: Path, *, like: Path | None = None) -> None:
    """Write a copy of an open database; all of it is there under that name, durable, or nothing.

    Whoever has `like` may read it, and nobody else; without `like` this user alone. Raises `OSError` and
    `sqlite3.Error`.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        # Private from the first byte: it holds what users wrote into their jobs.
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
        copy = sqlite3.connect(part)
        try:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()
        if like is not None:
            _belong_like(part, like)
        for file in (part, target.parent):
            _sync(file)
        part.rename(target)
        _sync(target.parent)
    finally:
        for left in (part, part.with_name(f"{part.name}-journal")):
            with suppress(OSError):
                left.unlink(missing_ok=True)


def _belong_like(part: Path, like: Path) -> None:
    known, mine = like.stat(), part.stat()
    if (known.st_uid, known.st_gid) != (mine.st_uid, mine.st_gid):
        os.chown(part, known.st_uid, known.st_gid)
    part.chmod(known.st_mode & 0o777)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
