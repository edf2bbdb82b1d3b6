"""Whether the database that SQLite has open is still the one at its path.

SQLite goes on reading and writing a file that was removed or replaced by name; all of that is gone once it is
closed. So every transaction looks first; and where the file is gone, what is still there to be read is copied
beside it, under a name that nobody has.
"""

import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Final

from topod.adapters.sqlite_copy import write_copy
from topod.errors import StoreError

RESCUED: Final = ".rescued"
"""Ends the name of the copy."""
ROOM_BYTES: Final = 128 << 10
"""An outcome of some hundred events has room in it."""
_Identity = tuple[int, int]


class Place:
    """The files of an open database, by device and inode. Every method may block on the disk."""

    def __init__(self, path: Path) -> None:
        """Remember the files as they are now; the database has been opened and read."""
        self.path: Final = path
        self.copy: Final = rescued(path)
        files = (path, path.with_name(f"{path.name}-wal"))
        self._files = {file: found for file in files if (found := _identity(file)) is not None}
        self._kept = False

    def gone(self) -> str:
        """Say which file is not the open one any more; empty where all are in their place.

        Raises `StoreError` where it cannot be told.
        """
        for file, known in self._files.items():
            try:
                found = _identity(file)
            except OSError as error:
                raise StoreError(
                    f"cannot look at {file}: {error.strerror}",
                    hint="check the permissions of the state folder and its file system",
                ) from error
            if found != known:
                return f"{file} was {'removed' if found is None else 'replaced'} while topod has it open"
        return ""

    def well(self) -> None:
        """All files are in their place: a copy would be older than they are from now on."""
        if self._kept:
            self.copy.unlink(missing_ok=True)
            self._kept = False

    def lost(self, gone: str, connection: sqlite3.Connection) -> StoreError:
        """Keep a copy of what is still open, once, and return the error that says what to do.

        `connection` is in no transaction.
        """
        if not self._kept or not self.copy.exists():
            try:
                write_copy(connection, self.copy)
            except (OSError, sqlite3.Error) as error:
                hint = f"do not stop topod: what it knows cannot be copied to {self.copy} yet ({error})"
                return StoreError(gone, hint=hint)
            self._kept = True
        return StoreError(
            gone, hint=f"what it held is in {self.copy}: stop topod, {put_back(self.path)}, start topod"
        )


def rescued(path: Path) -> Path:
    """Return where the copy of a database that was taken away is kept."""
    return path.with_name(path.name + RESCUED)


def put_back(path: Path) -> str:
    """Say how a copy becomes the database again."""
    # A journal of the old file would be played into the new one.
    return f"rename {rescued(path).name} to {path.name}, remove {path.name}-wal and {path.name}-shm"


def refuse_beside_copy(path: Path) -> None:
    """Raise `StoreError` where an earlier topod had to keep a copy: what it knew is not at the path."""
    if rescued(path).exists():
        raise StoreError(
            f"{path} was taken from a running topod, which kept what it knew in {rescued(path)}",
            hint=f"{put_back(path)}; or, to go on with what is at {path} now, move the copy away",
        )


def refuse_without_room(path: Path) -> None:
    """Raise `StoreError` where the disk of a database has no room for what a decision may write."""
    try:
        with tempfile.TemporaryFile(dir=path.parent, buffering=0) as file:
            left = ROOM_BYTES
            while left:
                left -= file.write(bytes(left)) or 0
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"cannot write beside {path}: {error.strerror}", hint="free some space") from error


def _identity(file: Path) -> _Identity | None:
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
