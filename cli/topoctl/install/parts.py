"""What comes with topod for a machine: units, groups and folders, and the programs that they start."""

import grp
import os
import pwd
import re
import stat
import sys
import sysconfig
from pathlib import Path
from typing import Final

from topod.errors import ConflictError, NotFoundError

UNITS: Final = "/etc/systemd/system"
SHARED: Final = {
    "topod.sysusers": "/etc/sysusers.d/topod.conf",
    "topod.tmpfiles": "/etc/tmpfiles.d/topod.conf",
}
HOST: Final = {name: f"{UNITS}/{name}" for name in ("topod-jobs.slice", "topod.service")}
COORDINATOR: Final = {"topod-coordinator.service": f"{UNITS}/topod-coordinator.service"}
PACKAGED: Final = ("/usr/lib/systemd/system/topod.service", "/lib/systemd/system/topod.service")
"""Where the unit of a package of the system lies; what is in `/etc` would hide it."""
PROGRAMS: Final = ("topod", "topod-coordinator")
_PACKAGE = Path(sys.modules["topod"].__file__ or "").resolve().parent
_FOLDERS = (_PACKAGE / "_systemd", _PACKAGE.parent / "systemd")
"""Inside an installed wheel, else in the checkout."""
_BY_PATH: Final = "ExecStart=/usr/bin/env "
_PLAIN = re.compile(r"[\w./+@-]+", re.ASCII)
_HOMES: Final = ("/home", "/root", "/run/user")


def part(name: str, programs: Path) -> str:
    """Return the text of one file of `systemd/`; a unit starts the program of that folder."""
    for folder in _FOLDERS:
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8")
            return text.replace(_BY_PATH, f"ExecStart={programs}/")
    raise NotFoundError(f"this topod came without {name}", hint="install the whole package again")


def program_folder() -> Path:
    """Return where the programs of this very installation are, such as a virtual environment.

    Raises `NotFoundError` where they are not beside this one.
    """
    folder = Path(sys.prefix) / "bin"
    if sys.prefix == sys.base_prefix:
        folder = Path(sysconfig.get_path("scripts"))
    missing = [name for name in PROGRAMS if not (folder / name).is_file()]
    if missing:
        raise NotFoundError(
            f"{folder / missing[0]} is not there: units have nothing to start",
            hint="python3 -m venv /opt/topod && /opt/topod/bin/pip install topod",
        )
    return folder


def check_programs(folder: Path, *, coordinator: bool) -> None:
    """Refuse programs that a service cannot start, or that somebody else than root could change.

    Raises `ConflictError`.
    """
    hint = "install it as root, for example into a virtual environment in /opt/topod"
    if not _PLAIN.fullmatch(str(folder)):
        raise ConflictError(f"a unit cannot start what is in {folder}: odd characters in the path", hint=hint)
    for path in (folder, _PACKAGE, Path(sys.base_prefix), Path(os.path.realpath(sys.executable))):
        if coordinator and any(path.is_relative_to(home) for home in _HOMES):
            raise ConflictError(
                f"the coordinator's user cannot reach {path}: it is in somebody's home", hint=hint
            )
        for one in (path, *path.parents):
            if (whose := _others(one)) is not None:
                raise ConflictError(f"{whose} can change {one}, and root would run it", hint=hint)


def _others(path: Path) -> str | None:
    """Return who beside root can change a file or what is in a folder; None: nobody."""
    found = path.stat()
    if found.st_uid != 0:
        return f"user {found.st_uid}"
    if found.st_mode & stat.S_ISVTX:  # as in /tmp: nobody can replace what is another's
        return None
    if found.st_mode & stat.S_IWOTH:
        return "everybody"
    shared = found.st_mode & stat.S_IWGRP and found.st_gid != 0
    # Debian's /usr/local belongs to the group staff, which has nobody in it.
    return f"group {found.st_gid}" if shared and _has_members(found.st_gid) else None


def _has_members(group: int) -> bool:
    if any(one.pw_gid == group for one in pwd.getpwall()):
        return True
    return any(one.gr_gid == group and one.gr_mem for one in grp.getgrall())
