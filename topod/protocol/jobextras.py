"""Parsers of the fields that relate a job to other jobs, to secrets and to signals.

Rule: as in `jobfields`, every parser raises `ValueError` with a text that says what was expected.
"""

import re
from pathlib import Path
from typing import Final

from topod.model.arrays import ArrayPlan
from topod.model.job import AfterCondition, Dependency, JobId, Secret, Signal
from topod.protocol.jobfields import near, pairs, text
from topod.protocol.units import parse_duration

ARRAY_MAX: Final = 1000
"""Members of one array."""
INDEX_MAX: Final = 1_000_000
AFTER_MAX: Final = 100
_REFERENCE = re.compile(r"([1-9][0-9]{0,17})(?:\[([0-9]{1,7})\])?")
_RANGE = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7})(?::([0-9]{1,7}))?)?")
_SECRET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_CONDITIONS: Final = {
    **{condition.value: condition for condition in AfterCondition},
    # As Slurm writes them.
    "afterok": AfterCondition.OK,
    "afterany": AfterCondition.ANY,
    "afternotok": AfterCondition.FAILED,
}
CHECKPOINT_SIGNALS: Final = (Signal.USR1, Signal.USR2, Signal.HUP, Signal.INT)


def after(value: object) -> tuple[Dependency, ...]:
    """Read `12`, `12,13`, `any:12`, `failed:12[3]`, or as Slurm writes it `afterok:12:13,afterany:14`."""
    items = value if isinstance(value, list | tuple) else [value]
    parts = [part for item in items for part in _job_text(item).split(",")]
    found = [wanted for part in parts for wanted in _dependency(part.strip())]
    if len(found) > AFTER_MAX:
        raise ValueError(f"names {len(found)} jobs; {AFTER_MAX} are allowed (a whole array counts as one)")
    for number, wanted in enumerate(found):
        if any(other.job == wanted.job and other.index == wanted.index for other in found[:number]):
            raise ValueError(f"job {wanted.job} is named twice")
    return tuple(found)


def array(value: object) -> ArrayPlan:
    """Read `0-9`, `0-9%2`, `1,3,5-9:2`: the indices, and how many may run at a time."""
    written = str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)
    ranges, percent, most = written.partition("%")
    if percent and not (most.isascii() and most.isdecimal() and 0 < int(most) <= INDEX_MAX):
        raise ValueError(f"not an array: {written!r} (behind % stands how many run at a time, from 1 on)")
    return ArrayPlan(indices=indices(ranges), limit=int(most) if percent else None)


def indices(written: str) -> tuple[int, ...]:
    """Read `0-9`, `1,3,5-9:2` as increasing numbers; at most `ARRAY_MAX`."""
    found: set[int] = set()
    for part in written.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"not an array: {written!r} (write 0-9, 0-9%2 or 1,3,5-9:2)")
        low, high, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if high < low or step < 1 or high > INDEX_MAX:
            raise ValueError(f"not a range of indices: {part.strip()!r} (0 to {INDEX_MAX}, upwards)")
        if (high - low) // step >= ARRAY_MAX:
            raise ValueError(f"an array has at most {ARRAY_MAX} jobs: {written!r}")
        found.update(range(low, high + 1, step))
    if len(found) > ARRAY_MAX:
        raise ValueError(f"an array has at most {ARRAY_MAX} jobs: {written!r} are {len(found)}")
    return tuple(sorted(found))


def secrets(value: object, base: Path) -> tuple[Secret, ...]:
    """Read `NAME=FILE` texts or a mapping; a relative file is relative to `base`."""
    found = []
    for name, source in pairs(value, what="secret").items():
        if not _SECRET_NAME.fullmatch(name):
            raise ValueError(f"not the name of a secret: {name!r} (letters, digits, `_`, `.`, `-`)")
        if not source:
            raise ValueError(f"secret {name} has no file (write {name}=FILE)")
        path = Path(source).expanduser()
        found.append(Secret(name=name, source=str(path if path.is_absolute() else (base / path).resolve())))
    return tuple(found)


def checkpoint_signal(value: object) -> tuple[Signal, float | None]:
    """Read `USR1` or `USR1:60`: the signal, and for how long the job may save, in seconds."""
    word, colon, seconds = text(value).partition(":")
    name = word.strip().upper().removeprefix("SIG")
    names = [signal.name for signal in CHECKPOINT_SIGNALS]
    if name in ("TERM", "KILL"):
        raise ValueError(f"{name} ends a job; to save upon SIGTERM takes nothing but a longer grace")
    if name not in names:
        raise ValueError(f"must be one of {', '.join(names)}: {word!r}{near(name, names)}")
    if not colon:
        return Signal[name], None
    length = parse_duration(seconds)
    if length == 0:
        raise ValueError("the time to save must be more than 0")
    return Signal[name], length


def reference(written: str) -> tuple[int, int | None]:
    """Read `12` or `12[3]`: a job's number, and the index in the array that it is the first of."""
    match = _REFERENCE.fullmatch(written.strip())
    if match is None:
        raise ValueError(f"not a job: {written!r} (write 12, or 12[3] for one job of an array)")
    return int(match[1]), None if match[2] is None else int(match[2])


def _job_text(item: object) -> str:
    return str(item) if isinstance(item, int) and not isinstance(item, bool) else text(item)


def _dependency(part: str) -> list[Dependency]:
    head, colon, rest = part.partition(":")
    if not colon:
        words, condition = [head], AfterCondition.OK
    else:
        key = head.strip().lower()
        if key not in _CONDITIONS:
            raise ValueError(f"must be ok, any or failed before the colon: {head!r}{near(key, _CONDITIONS)}")
        words, condition = rest.split(":"), _CONDITIONS[key]
    found = [reference(word) for word in words]
    return [Dependency(job=JobId(job), condition=condition, index=index) for job, index in found]
