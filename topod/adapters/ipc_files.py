"""The files of Unix sockets: made for their group only, never in the place of one where somebody listens."""

import grp
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topod.errors import ConflictError, UsageError

MAX_PATH_BYTES: Final = 100
"""The kernel's limit is 107; the event stream's name is 7 longer."""
GROUP: Final = "topod"
"""Its members may talk to a topod of root, where the group exists."""
MODE: Final = 0o660
BACKLOG: Final = 100
"""Connections that may wait to be taken, as libzmq has it."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A descriptor that listens, the path it was given and which file that made."""

    fd: int
    path: Path
    file: tuple[int, int]
    """Device and inode; no other file gets them while the descriptor is open."""

    def in_place(self) -> bool:
        """Whether the path still leads here; where nobody can look, it is taken to."""
        try:
            return _identity(self.path) == self.file
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def remove(self) -> None:
        """Remove the file, unless it is another's by now."""
        try:
            if _identity(self.path) == self.file:
                self.path.unlink()
        except OSError:
            return  # gone, with its folder perhaps


def listen(path: Path, gid: int | None, mode: int) -> Listener:
    """Listen at a path; who takes the descriptor closes it. The folder is made where there is none.

    Raises `UsageError` where that cannot be, `ConflictError` when somebody listens there.
    """
    _make_folder(path.parent, gid, mode)
    _clear(path)
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        wire.setblocking(False)
        # Nobody gets in before the file has its group and its mode: it is made with the descriptor's.
        os.fchmod(wire.fileno(), 0o600)
        wire.bind(str(path))
        wire.listen(BACKLOG)
        listener = Listener(wire.fileno(), path, _identity(path))
    except OSError as error:
        wire.close()
        raise UsageError(f"cannot listen at {path}: {error.strerror or error}") from error
    try:
        _share(path, gid, mode)
    except UsageError:
        listener.remove()
        wire.close()
        raise
    wire.detach()
    return listener


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def check_path(path: Path) -> None:
    """Raise `UsageError` when no socket can have this path."""
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise UsageError(
            f"the socket's path has {length} bytes, {MAX_PATH_BYTES} are allowed: {path}",
            hint="name a shorter one with --socket or TOPOD_SOCKET",
        )


def gid_of(group: str) -> int | None:
    """Return the group that shares the sockets; None: nobody does.

    A user's own daemon is shared only where the user's present group is that: being in it is not enough.
    """
    try:
        gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        if group == GROUP:
            return None
        raise UsageError(f"there is no group {group}", hint=f"groupadd --system {group}") from None
    mine = os.geteuid() == 0 or gid == os.getegid()
    return None if group == GROUP and not mine else gid


def _make_folder(folder: Path, gid: int | None, mode: int) -> None:
    if not folder.is_dir():
        try:
            folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise UsageError(f"cannot create the socket's folder {folder}: {error.strerror}") from error
        _share(folder, gid, 0o755 if mode & 0o007 else 0o750)
    found = folder.stat().st_mode
    if found & 0o002 and not found & stat.S_ISVTX:
        raise UsageError(
            f"everybody may replace files in the socket's folder {folder}", hint=f"chmod o-w {folder}"
        )


def _share(path: Path, gid: int | None, mode: int) -> None:
    """Give a file its group, then its mode: never the mode while the group is another one."""
    if gid is None:
        mode &= ~0o070
    else:
        try:
            os.chown(path, -1, gid, follow_symlinks=False)
        except OSError as error:
            raise UsageError(f"cannot give {path} to group {gid}: {error.strerror}") from error
    path.chmod(mode)


def _clear(path: Path) -> None:
    """Remove the socket of a daemon that is gone."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise UsageError(f"{path} is in the way: it is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"cannot use {path}: {error.strerror or error}") from error
    raise ConflictError(
        f"another topod listens at {path}", hint="stop it, or name another socket with --socket"
    )
