"""Brings a database to the schema of this topod: forward only, all at once, a copy of it as it was beside it.

Rule: what a newer topod wrote is refused before anything is opened, created or written. A process that is
killed leaves the old schema or the new one; the copy is durable before the first change.
"""

import re
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from topod.adapters.sqlite_copy import write_copy
from topod.adapters.sqlite_schema import plainly
from topod.errors import NewerStateError, StoreError

COPIES_KEPT: Final = 3
_MAGIC: Final = b"SQLite format 3\0"
_VERSION_AT: Final = 60
"""Where the header of a database has its `user_version`, 4 bytes, the highest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """What was done to a database."""

    before: int
    after: int
    copy: Path

    def __str__(self) -> str:
        return f"schema {self.before} to {self.after}; as it was: {self.copy}"


def refuse_newer(path: Path, schema: str, head: str) -> None:
    """Raise `NewerStateError` for a database of a newer topod; only reads, and creates nothing.

    `schema` names the folder of migrations, `head` a table that only such databases have.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_VERSION_AT + 4)
    except OSError:
        return  # it is not there, or SQLite says why it cannot be read
    version, newest = int.from_bytes(header[_VERSION_AT:]), max(_scripts(schema))
    if header.startswith(_MAGIC) and version > newest and _holds(path, head):
        _check(path, version, newest)


def migrate(connection: sqlite3.Connection, path: Path, schema: str) -> Upgrade | None:
    """Apply the migrations of a folder that the database has not seen, all or none; None: there are none.

    Raises `NewerStateError`, and `StoreError` where the copy or the change fails: then nothing was changed.
    """
    scripts = _scripts(schema)
    newest = max(scripts)
    with plainly(path, "read"):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    # The header is older than the journal where a newer topod was killed right after its upgrade.
    _check(path, version, newest)
    if version == newest:
        return None
    # A new file has nothing to keep.
    copy = _kept(connection, path, version) if version else None
    with plainly(path, "upgrade"):
        steps = "\n".join(scripts[number] for number in range(version + 1, newest + 1))
        connection.executescript(f"BEGIN IMMEDIATE;\n{steps}\nPRAGMA user_version = {newest};\nCOMMIT;")
    with suppress(sqlite3.Error):
        # From the journal into the file: there an older topod looks first.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return None if copy is None else Upgrade(before=version, after=newest, copy=copy)


def copy_of(path: Path, version: int) -> Path:
    """Return where the copy of a database is kept that had this schema."""
    return path.with_name(f"{path.name}.schema-{version}")


def _holds(path: Path, table: str) -> bool:
    look = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
    # Immutable: no lock is taken, and no journal made beside it.
    with (
        plainly(path, "read"),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as connection,
    ):
        return bool(connection.execute(look, (table,)).fetchone()[0])


def _check(path: Path, version: int, newest: int) -> None:
    if version > newest:
        older = [copy for copy in _copies(path) if _schema_of(copy) <= newest]
        back = f", put {older[-1].name} in its place (without what came later)" if older else ""
        raise NewerStateError(
            f"{path} was written by a newer topod: schema {version}, this topod knows {newest}",
            hint=f"start the newer topod{back}, or name another state folder with --state-dir",
        )


def _kept(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    """Keep the database as it is; of such copies the newest few."""
    copy = copy_of(path, version)
    try:
        write_copy(connection, copy, like=path)
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"cannot upgrade {path}: a copy of it as it is cannot be written to {copy}: {why}",
            hint="free some space there; nothing was changed, and the topod from before still works with it",
        ) from error
    for old in [other for other in _copies(path) if other != copy][: 1 - COPIES_KEPT]:
        with suppress(OSError):
            old.unlink()
    return copy


def _copies(path: Path) -> list[Path]:
    """Return the copies that are kept, the oldest first."""
    found = [one for one in path.parent.glob(f"{path.name}.schema-*") if _schema_of(one)]
    return sorted(found, key=lambda one: (one.stat().st_mtime_ns, _schema_of(one)))


def _schema_of(copy: Path) -> int:
    """Return the schema that a copy's name tells; 0: it is none."""
    number = copy.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _scripts(schema: str) -> dict[int, str]:
    folder = resources.files("topod.adapters.sql") / schema
    found = {}
    for entry in folder.iterdir():
        if match := re.fullmatch(r"(\d{4})_\w+\.sql", entry.name):
            found[int(match[1])] = _for_this_sqlite(entry.read_text())
    return found


def _for_this_sqlite(script: str) -> str:
    # STRICT tables came with SQLite 3.37 (2021); older ones run the same schema unchecked.
    return script if sqlite3.sqlite_version_info >= (3, 37) else script.replace(") STRICT;", ");")
