"""Files that `topoctl install` writes: known again by a stamp, and kept where somebody changed them."""

import hashlib
import os
import re
import shutil
import tempfile
from enum import Enum, auto
from pathlib import Path

from topod.errors import StoreError

_STAMP = re.compile(r"# topoctl install wrote this .*sha256 ([0-9a-f]{32})\)\n")


class Found(Enum):
    """What is where a file of ours is to be."""

    NOTHING = auto()
    SAME = auto()
    OURS = auto()
    """Of another version, as it was written."""
    CHANGED = auto()
    """Somebody changed it, or it never was ours."""


def stamped(text: str) -> str:
    """Return the text below a line by which a later version knows that nobody has changed it."""
    digest = _digest(text)
    return f"# topoctl install wrote this and replaces it, unless it was changed (sha256 {digest})\n{text}"


def look(path: Path, text: str) -> Found:
    """Return what is at `path`, where `stamped(text)` is to be. Raises `StoreError`."""
    if path.is_symlink():  # a unit that is masked leads to /dev/null
        return Found.CHANGED
    try:
        there = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return Found.NOTHING
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
    if there == stamped(text):
        return Found.SAME
    stamp = _STAMP.match(there)
    ours = stamp is not None and stamp[1] == _digest(there[stamp.end() :])
    return Found.OURS if ours else Found.CHANGED


def put(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file at once and durably: a reader finds the old one or the new one. Raises `StoreError`."""
    temporary: Path | None = None
    try:
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", hint=AGAIN) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder that everybody can read, and those above it. Raises `StoreError`."""
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.is_dir():
                folder.mkdir()
                folder.chmod(0o755)  # whatever the umask
    except OSError as error:
        raise StoreError(f"cannot make {path}: {error.strerror}", hint=AGAIN) from None


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it. Raises `StoreError`."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot remove {path}: {error.strerror}", hint=AGAIN) from None


AGAIN = "what was done before it stays; the same command goes on from there"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
