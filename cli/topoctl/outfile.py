"""Writes what a command made to where the user said."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from topod.errors import StoreError

STREAMS: Final = ("/dev/", "/proc/")
"""What lies there names what somebody has open already: /dev/stdout, /dev/fd/3."""


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all. Raises `StoreError`.

    A link is followed: the file that it names is written. What is no file (a device, a FIFO) is written to as
    it is, never replaced.
    """
    try:
        if _is_replaceable(path):
            _replace(Path(os.path.realpath(path)), text)
        else:
            with path.open("w", encoding="utf-8", errors="replace") as file:
                file.write(text)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from None


def _is_replaceable(path: Path) -> bool:
    """Whether another file may take its place: it is a regular one, or none is there yet."""
    if os.path.abspath(path).startswith(STREAMS):  # noqa: PTH100 - Path.resolve would follow links
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


def _replace(path: Path, text: str) -> None:
    draft = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="replace", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            draft = Path(file.name)
            file.write(text)
            os.fchmod(file.fileno(), _mode(path))
        draft.replace(path)
    except OSError:
        if draft is not None:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
        raise


def _mode(path: Path) -> int:
    """Return the permissions that the file has, or that a new one gets."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
