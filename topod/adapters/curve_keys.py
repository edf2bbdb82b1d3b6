"""Files of keys: a private one that its owner alone can read, a public one for whoever asks."""

import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Final

from topod.errors import ConflictError, DataError, NotAllowedError, NotFoundError, UsageError
from topod.protocol.curve import (
    MAX_KEY_FILE_BYTES,
    PRIVATE,
    PUBLIC,
    KeyLine,
    KeyPair,
    Kind,
    new_pair,
    read_text,
)

STDIN: Final = Path("-")


def create_key_file(path: Path, kind: Kind, name: str) -> KeyPair:
    """Write a new private key, readable for its owner only, in a folder made for it if need be; return it.

    An existing file is never touched, and nobody ever finds half a key.

    Raises `ConflictError` for a file that exists, `UsageError` where none can be made.
    """
    pair = new_pair()
    text = (
        f"# Private key of {kind} {name}. Whoever has it is {name}: give nobody this file.\n"
        f"# Its public line: topoctl keys show {path}\n"
        f"{PRIVATE}{pair.secret} {kind} {name}\n"
    )
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _link_new(path, text)
    except FileExistsError:
        hint = "name another file, or remove this one: who uses its key then needs a new one"
        raise ConflictError(f"{path} exists; a key is never overwritten", hint=hint) from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    return pair


def _link_new(path: Path, text: str) -> None:
    """Make a file that its owner alone can read, whole or not at all; `FileExistsError` if it exists."""
    if os.path.lexists(path):
        raise FileExistsError
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def read_key_file(path: Path) -> KeyLine:
    """Return the key of a file, public or private; `-` is stdin.

    Raises `NotFoundError`, `DataError`, and `NotAllowedError` for a private key that others can read.
    """
    if path == STDIN:
        return read_text(sys.stdin.read(MAX_KEY_FILE_BYTES), "stdin")
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_KEY_FILE_BYTES + 1)
    except FileNotFoundError:
        hint = f"topoctl keys new NAME --out {path} makes one"
        raise NotFoundError(f"no such key file: {path}", hint=hint) from None
    except PermissionError:
        raise NotAllowedError(f"no permission to read the key {path}") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", source=str(path)) from None
    if len(data) > MAX_KEY_FILE_BYTES:
        raise DataError("too long for a key file", source=str(path))
    try:
        line = read_text(data.decode(), str(path))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text at byte {error.start}", source=str(path)) from None
    if line.pair is not None and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise NotAllowedError(
            f"others can read the private key {path} (mode {stat.S_IMODE(mode):04o}); it is not used so",
            hint=f"chmod 600 {path}, and make a new key if somebody may have read it",
        )
    return line


def read_private(path: Path, kind: Kind) -> KeyPair:
    """Return the private key of a file, which is of that kind where it says so.

    Raises as `read_key_file` does, and `DataError` for a public key or one of somebody else.
    """
    line = read_key_file(path)
    if line.kind not in (None, kind):
        raise DataError(
            f"holds the key of {line.kind} {line.name}; a {kind}'s is needed here",
            source=str(path),
            hint=f"topoctl keys new NAME --{kind} --out FILE makes one",
        )
    if line.pair is None:
        raise DataError(
            "holds a public key; the private one is needed here",
            source=str(path),
            hint=f"the file that topoctl keys new made has a line {PRIVATE}...",
        )
    return line.pair


def public_line(line: KeyLine) -> str:
    """Return the line that may be given to everybody."""
    whose = f" {line.kind} {line.name}" if line.kind else ""
    return f"{PUBLIC}{line.public}{whose}"


def replace_file(path: Path, text: str) -> None:
    """Give a file a new content at once and durably: a reader sees the old one or the new one.

    Owner, group and mode stay; a new file has 0644. Raises `UsageError`.
    """
    target = Path(os.path.realpath(path))
    try:
        old = target.stat()
    except FileNotFoundError:
        old = None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if old is not None:
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
            else:
                os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
