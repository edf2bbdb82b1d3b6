"""A recording: the answers to `follow` in a file, one JSON line each, to look at again later.

The first line of every part says what it is: `{"format":"topod-recording","version":1,...}`, of a fleet
with `"fleet":true`. Behind it come the answers of topod or the coordinator, the first of them whole.
Each line is written at once, so whatever ends the program leaves lines that can be read; a last line that
was cut short is passed over, and removed by whoever goes on with the file.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

import topod
from topod.errors import ConflictError, DataError, NotFoundError, StoreError
from topod.protocol.replies import Changes, FleetChanges
from topotui.fleet_picture import FleetPicture
from topotui.picture import Picture

FORMAT: Final = "topod-recording"
VERSION: Final = 1
AnyChanges = Changes | FleetChanges
AnyPicture = Picture | FleetPicture
MAX_LINE: Final = 64 << 20
"""Bytes of one line; a longer one is none of ours."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a part."""

    format: str
    version: int
    topod: str = ""
    """The version that wrote it."""
    host: str = ""
    """Empty: of a fleet."""
    fleet: bool = False
    began: float = 0.0
    """topod's clock, epoch seconds."""


_changes: Final = msgspec.json.Decoder(Changes)
_fleet_changes: Final = msgspec.json.Decoder(FleetChanges)
_head: Final = msgspec.json.Decoder(Head)
_encode: Final = msgspec.json.Encoder().encode


class Recorder:
    """Writes what is followed into a file, behind what is there."""

    def __init__(self, path: Path, *, fleet: bool = False) -> None:
        """Open the file, or make it. `fleet`: what is recorded is one.

        Raises `DataError` if it is something else, or of the other kind, `ConflictError` if somebody records
        there, `StoreError` if it cannot be written.
        """
        self.path: Final = path
        self._begun = False
        self._fleet = fleet
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._trim()
            except BaseException:
                os.close(self._file)
                raise
        except BlockingIOError:
            raise ConflictError(f"somebody records to {path} already") from None
        except OSError as error:
            raise _cannot(path, error) from None

    def _trim(self) -> None:
        """Remove a last line that was cut short; a file that is no recording stays as it is."""
        size = os.fstat(self._file).st_size
        if not size:
            return
        start = os.pread(self._file, 4096, 0)
        head = _head_of(start)
        if head is None:
            raise DataError("it is there already, and is no recording", source=str(self.path))
        if head.fleet != self._fleet:
            raise DataError(
                f"it is a recording of {_kind(head.fleet)}, and this is {_kind(self._fleet)}",
                source=str(self.path),
                hint="record to another file",
            )
        end = size
        while end and (at := os.pread(self._file, min(65536, end), max(0, end - 65536))):
            newline = at.rfind(b"\n")
            if newline >= 0:
                end = max(0, end - 65536) + newline + 1
                break
            end = max(0, end - 65536)
        if end != size:
            os.ftruncate(self._file, end)

    def take(self, changes: AnyChanges | None, picture: AnyPicture) -> None:
        """Write an answer; the first time all that is known, its changes included. Raises `StoreError`."""
        name = name_of(picture)
        if name is None:
            return
        if not self._begun:
            self._begun = True
            head = Head(
                format=FORMAT,
                version=VERSION,
                topod=topod.__version__,
                host=name,
                fleet=self._fleet,
                began=picture.now,
            )
            self._write(_encode(head) + b"\n" + _encode(whole(picture)) + b"\n")
        elif changes is not None:
            self._write(_encode(changes) + b"\n")

    def close(self) -> None:
        """Write nothing more."""
        os.close(self._file)

    def _write(self, line: bytes) -> None:
        try:
            if not os.path.samestat(self.path.stat(), os.fstat(self._file)):
                raise StoreError(f"cannot record to {self.path}: another file has its name now")
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise _cannot(self.path, error) from None


def name_of(picture: AnyPicture) -> str | None:
    """Return the name of the host, nothing for a fleet; None: it is not known yet who is followed."""
    if isinstance(picture, FleetPicture):
        return None if picture.about is None else ""
    return None if picture.host is None else picture.host.name


def take_in(picture: AnyPicture, changes: AnyChanges) -> None:
    """Let a picture take in an answer. Raises `TypeError` for one of the other kind."""
    match picture, changes:
        case FleetPicture(), FleetChanges():
            picture.take(changes)
        case Picture(), Changes():
            picture.take(changes)
        case _:
            raise TypeError("an answer of a host among those of a fleet")


def whole(picture: AnyPicture) -> AnyChanges:
    """Return all that a picture shows, as one answer."""
    life, number, _ = picture.cursor
    if isinstance(picture, FleetPicture):
        return FleetChanges(
            life=life,
            number=number,
            now=picture.now,
            whole=True,
            jobs=[*picture.jobs.values(), *picture.ended.values()],
            hosts=list(picture.rows.values()),
            kinds=list(picture.kinds.values()),
            changed=picture.about,
            events=list(picture.events),
        )
    return Changes(
        life=life,
        number=number,
        now=picture.now,
        whole=True,
        jobs=[*picture.jobs.values(), *picture.ended.values()],
        gpus=list(picture.gpus.values()),
        readings=list(picture.readings.values()),
        host=picture.host,
        changed=picture.about,
        events=list(picture.events),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a file holds. `cut`: its last line was cut short, and left out."""

    path: Path
    head: Head
    changes: tuple[AnyChanges, ...]
    parts: frozenset[int]
    """Where in `changes` each part begins: what was known before says nothing about it."""
    cut: bool = False

    def nothing(self) -> AnyPicture:
        """Return the picture before the first answer."""
        return FleetPicture() if self.head.fleet else Picture()


def load(path: Path) -> Recording:
    """Read a recording. Raises `NotFoundError`, `StoreError`, or `DataError` with the number of the line."""
    head: Head | None = None
    parts: set[int] = set()
    found: list[AnyChanges] = []
    picture: AnyPicture = Picture()
    cut = False
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_lines(file.readline), 1):
                if not line.endswith(b"\n") and number > 1:
                    cut = True
                    break
                if number == 1 or b'"format"' in line[:20]:
                    head = _read_head(path, number, line, head)
                    picture = FleetPicture() if head.fleet else Picture()
                    parts.add(len(found))
                    continue
                found.append(_read(path, number, line, picture))
    except FileNotFoundError:
        raise NotFoundError(f"no file {path}") from None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
    if head is None or not found:
        raise DataError("nothing is recorded in it", source=str(path), line=1)
    return Recording(path=path, head=head, changes=tuple(found), parts=frozenset(parts), cut=cut)


def _lines(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while line := read(MAX_LINE):
        yield line


def _read_head(path: Path, number: int, line: bytes, before: Head | None) -> Head:
    try:
        head = _head.decode(line)
    except (msgspec.MsgspecError, ValueError):
        raise DataError("no recording of topoctl top", source=str(path), line=number) from None
    if head.format != FORMAT:
        raise DataError("no recording of topoctl top", source=str(path), line=number)
    if head.version != VERSION:
        hint = "a newer topoctl may read it" if head.version > VERSION else None
        text = f"a recording of version {head.version}, and this reads {VERSION}"
        raise DataError(text, source=str(path), line=number, hint=hint)
    if before is not None and head.fleet != before.fleet:
        text = f"a part of {_kind(head.fleet)} behind one of {_kind(before.fleet)}"
        raise DataError(text, source=str(path), line=number)
    return head


def _kind(fleet: bool) -> str:
    return "a fleet" if fleet else "a host"


def _read(path: Path, number: int, line: bytes, picture: AnyPicture) -> AnyChanges:
    """Return an answer that the picture, which has taken in all before it, can take in too."""
    try:
        changes: AnyChanges = (
            _fleet_changes.decode(line) if isinstance(picture, FleetPicture) else _changes.decode(line)
        )
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DataError(_first_line(error), source=str(path), line=number) from None
    if name_of(picture) is None and not changes.whole:
        raise DataError("a change, and nothing before it that it changes", source=str(path), line=number)
    try:
        take_in(picture, changes)
    except Exception as error:  # noqa: BLE001 - whatever a damaged file holds is told as its fault
        raise DataError(_first_line(error), source=str(path), line=number) from None
    return changes


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _head_of(start: bytes) -> Head | None:
    try:
        head = _head.decode(start.split(b"\n", 1)[0])
    except (msgspec.MsgspecError, ValueError):
        return None
    return head if head.format == FORMAT else None


def _cannot(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot record to {path}: {error.strerror}")
