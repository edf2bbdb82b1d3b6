"""Whether a job's secrets can be had: files of the host that the user who submitted the job may read.

Looked at when the job is submitted and again before each of its containers is made. Nobody reads them here.
"""

import os
import pwd
import stat
from dataclasses import replace
from pathlib import Path
from typing import Final

from topod.errors import JobRejectedError
from topod.model.job import JobSpec, Secret

_READ: Final = 4
_SEARCH: Final = 1


def checked_secrets(spec: JobSpec) -> dict[str, str]:
    """Return the real path of each secret by its name.

    Raises `JobRejectedError` for one that is no file, or that the job's user may not read.
    """
    found = {}
    for secret in spec.secrets:
        path = os.path.realpath(secret.source)
        if why := _refusal(secret, path, spec.user):
            hint = "a secret is a file of this host that the user of the job may read"
            raise JobRejectedError(f"secret {secret.name}: {why}", hint=hint)
        if secret.name in found:
            raise JobRejectedError(f"secret {secret.name} is given twice")
        found[secret.name] = path
    return found


def with_real_secrets(spec: JobSpec) -> JobSpec:
    """Return the job with the real paths of its secrets. Raises what `checked_secrets` raises."""
    paths = checked_secrets(spec)
    return replace(spec, secrets=tuple(replace(one, source=paths[one.name]) for one in spec.secrets))


def _refusal(secret: Secret, path: str, user: str) -> str | None:
    if not secret.source.startswith("/"):
        return f"its path must start with /: {secret.source!r}"
    if "/" in secret.name or secret.name in ("", ".", ".."):
        return f"not a name: {secret.name!r}"
    who = _identity(user)
    # From the top down, so that nobody learns what is in a folder that he may not search.
    for folder in reversed(Path(path).parents):
        if not _may(str(folder), who, _SEARCH):
            return f"user {user or 'nobody'} may not read {secret.source}, or it is not there"
    try:
        regular = stat.S_ISREG(Path(path).stat().st_mode)
    except OSError as error:
        return f"{secret.source}: {(error.strerror or str(error)).lower()}"
    if not regular:
        return f"{secret.source} is no file"
    return None if _may(path, who, _READ) else f"user {user or 'nobody'} may not read {secret.source}"


def _identity(user: str) -> tuple[int, frozenset[int]] | None:
    """Return the user's number and groups; None for one who is not known here, who is like others."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return (int(user), frozenset()) if user.isdecimal() else None
    return entry.pw_uid, frozenset(os.getgrouplist(user, entry.pw_gid))


def _may(path: str, who: tuple[int, frozenset[int]] | None, right: int) -> bool:
    """Say whether the permission bits give `who` that right; access lists are not looked at."""
    try:
        state = Path(path).stat()
    except OSError:
        return True  # that it is not there is told when all folders above it may be searched
    if who is not None and who[0] == 0:
        return True
    if who is not None and who[0] == state.st_uid:
        return bool(state.st_mode >> 6 & right)
    if who is not None and state.st_gid in who[1]:
        return bool(state.st_mode >> 3 & right)
    return bool(state.st_mode & right)
