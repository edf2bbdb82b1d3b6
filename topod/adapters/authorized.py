"""The file of those who may connect to a coordinator: one public key a line, as `sshd` has it.

    topod-public:KEY  host NAME
    topod-public:KEY  user NAME  roles=view,submit  max-priority=normal   # added for the vision team

Rule: a line that cannot be meant refuses the whole file: nobody is let in, or kept out, by half of it.
"""

import fcntl
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topod.adapters.curve_keys import replace_file
from topod.errors import ConflictError, DataError, NotFoundError, TopodError, UsageError
from topod.model.roles import Role
from topod.protocol import jobfields
from topod.protocol.curve import PUBLIC, Kind, check_name, read_public

MAX_BYTES: Final = 16 << 20
"""Some 100,000 keys."""
HINT: Final = "topoctl keys authorize FILE --as host:NAME --in AUTHORIZED writes such lines"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key that may connect, and as whom."""

    public: str
    kind: Kind
    """`HOST` or `USER`."""
    name: str
    roles: frozenset[Role] = frozenset()
    """Of a user: with every role that the written ones include."""
    max_priority: int | None = None
    comment: str = ""

    @property
    def who(self) -> str:
        """Return `host:NAME` or `user:NAME`."""
        return f"{self.kind}:{self.name}"


def parse_who(text: str) -> tuple[Kind, str]:
    """Return kind and name of `host:NAME` or `user:NAME`. Raises `ValueError`."""
    kind, colon, name = text.partition(":")
    if not colon or kind not in {Kind.HOST, Kind.USER}:
        raise ValueError(f"host:NAME or user:NAME, not {text[:80]!r}")
    return Kind(kind), check_name(name)


def parse_roles(text: str) -> frozenset[Role]:
    """Return the roles of `view,submit`, with those that they include. Raises `ValueError`."""
    words = text.split(",")
    unknown = [word for word in words if word not in {*Role}]
    if unknown:
        raise ValueError(f"roles are {', '.join(Role)}, not {unknown[0][:40]!r}")
    order = list(Role)
    most = max(order.index(Role(word)) for word in words)
    return frozenset(order[: most + 1])


def parse_entry(line: str) -> Entry:
    """Return what one line says. Raises `ValueError`."""
    # A key may hold `#`, a comment stands behind a space.
    word, *rest = line.split()
    public = read_public(word)
    ends = next((at for at, part in enumerate(rest) if part.startswith("#")), len(rest))
    said, comment = rest[:ends], " ".join(rest[ends:]).lstrip("# ")
    if len(said) < 2:
        raise ValueError("after the key: `host NAME`, or `user NAME roles=view,submit`")
    kind, name = parse_who(f"{said[0]}:{said[1]}")
    options: dict[str, str] = {}
    for part in said[2:]:
        key, equals, value = part.partition("=")
        if not equals or key in options:
            raise ValueError(f"{'said twice' if equals else 'not KEY=VALUE'}: {part[:80]!r}")
        options[key] = value
    allowed = {"roles", "max-priority"} if kind is Kind.USER else set()
    unknown = [key for key in options if key not in allowed]
    if unknown:
        raise ValueError(
            f"a {kind} has no {unknown[0][:40]!r}" + (f": {', '.join(allowed)}" if allowed else "")
        )
    if kind is Kind.USER and "roles" not in options:
        raise ValueError(f"user {name} has no roles: roles=view,submit")
    return Entry(
        public=public,
        kind=kind,
        name=name,
        roles=parse_roles(options["roles"]) if "roles" in options else frozenset(),
        max_priority=jobfields.priority(options["max-priority"]) if "max-priority" in options else None,
        comment=comment,
    )


def format_entry(entry: Entry) -> str:
    """Return the line that `parse_entry` reads."""
    parts = [f"{PUBLIC}{entry.public}", entry.kind, entry.name]
    if entry.kind is Kind.USER:
        most = [role for role in Role if role in entry.roles][-1]
        parts.append(f"roles={','.join(_written(most))}")
    if entry.max_priority is not None:
        parts.append(f"max-priority={entry.max_priority}")
    return "  ".join([*parts, *([f"# {entry.comment}"] if entry.comment else [])])


def _written(most: Role) -> list[str]:
    order = list(Role)
    return [role.value for role in order[: order.index(most) + 1]]


def parse_authorized(text: str, source: str) -> dict[str, Entry]:
    """Return the entries by public key. Raises `DataError` with the line of the first mistake."""
    found: dict[str, tuple[int, Entry]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            entry = parse_entry(line)
        except ValueError as error:
            raise DataError(str(error), source=source, line=number, hint=HINT) from None
        if entry.public in found:
            first, other = found[entry.public]
            text = f"the key of line {first} ({other.who}) again"
            raise DataError(text, source=source, line=number, hint="one key is one host or one user")
        found[entry.public] = (number, entry)
    return {public: entry for public, (_, entry) in found.items()}


def read_authorized(path: Path) -> dict[str, Entry]:
    """Return the entries of a file by public key.

    Raises `NotFoundError`, and `DataError` for a file with a mistake, or one that others can write.
    """
    return _read(path)[0]


Stamp = tuple[int, int, int, int]


def _read(path: Path) -> tuple[dict[str, Entry], Stamp]:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError(f"no such file of authorised keys: {path}", hint=HINT) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", source=str(path)) from None
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        text = f"others can write it (mode {stat.S_IMODE(found.st_mode):04o}) and let anybody in"
        raise DataError(text, source=str(path), hint=f"chmod go-w {path}")
    if len(data) > MAX_BYTES:
        raise DataError(f"longer than {MAX_BYTES >> 20} MiB", source=str(path))
    try:
        entries = parse_authorized(data.decode(), str(path))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text at byte {error.start}", source=str(path)) from None
    return entries, _stamp(found)


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class AuthorizedKeys:
    """The entries of a file, read again when it changes. Used from one thread."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises as `read_authorized` does: nobody is let in by half a file."""
        self.path: Final = path
        self._entries, self._stamp = _read(path)
        self.trouble: str = ""
        """Why the file is not in force as it is now; empty: it is."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Everybody who may connect, by public key, as last read."""
        return self._entries

    def find(self, public: str) -> Entry | None:
        """Return who has a key, as last read."""
        return self._entries.get(public)

    def refresh(self) -> bool:
        """Read the file again if it changed; return whether other entries are in force now.

        A file that is gone or has a mistake changes nothing: the last good one stays in force, and the log
        and `trouble` say so.
        """
        try:
            stamp = _stamp(self.path.stat())
        except OSError as error:
            stamp = (0, 0, 0, error.errno or 0)
        if stamp == self._stamp:
            return False
        try:
            entries, self._stamp = _read(self.path)
        except TopodError as error:
            self._stamp = stamp
            self.trouble = f"{error.message}; the keys read before stay in force"
            log.warning("keys.refused", extra={"error": self.trouble})
            return False
        self.trouble = ""
        changed = entries != self._entries
        self._entries = entries
        if changed:
            log.info("keys.read", extra={"detail": f"{self.path}: {len(entries)} keys"})
        return changed


def authorize(path: Path, entry: Entry) -> None:
    """Add a line to the file, which is made where there is none.

    Raises `ConflictError` for a key that is in it already, `DataError` for a file with a mistake.
    """
    with _locked(path):
        text = _text(path)
        other = parse_authorized(text, str(path)).get(entry.public)
        if other is not None:
            hint = f"topoctl keys revoke {other.who} --in {path} first"
            raise ConflictError(f"{path} has this key already, as {other.who}", hint=hint)
        if text and not text.endswith("\n"):
            text += "\n"
        replace_file(path, f"{text}{format_entry(entry)}\n")


def revoke(path: Path, wanted: Iterable[str]) -> list[Entry]:
    """Take the keys `wanted` (by name `host:NAME`, `user:NAME`, or by public key) out; return their entries.

    Raises `NotFoundError` when one of them names nobody: then nothing is changed.
    """
    names = {word.removeprefix(PUBLIC) for word in wanted}
    with _locked(path):
        text = _text(path)
        gone = [
            one
            for one in parse_authorized(text, str(path)).values()
            if one.who in names or one.public in names
        ]
        missing = names - {one.who for one in gone} - {one.public for one in gone}
        if missing:
            hint = f"topoctl keys list --in {path}"
            raise NotFoundError(f"{path} has no key of {min(missing)}", hint=hint)
        words = {f"{PUBLIC}{one.public}" for one in gone}
        kept = [line for line in text.split("\n") if line.split()[:1] == [] or line.split()[0] not in words]
        replace_file(path, "\n".join(kept))
    return gone


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text at byte {error.start}", source=str(path)) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", source=str(path)) from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep two who change the file from each other; the folder is locked, since the file is replaced."""
    try:
        handle = os.open(Path(os.path.realpath(path)).parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UsageError(f"cannot open the folder of {path}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
