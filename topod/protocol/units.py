"""Sizes and durations as people write them, and back: `8G`, `512m`, `90`, `5m`, `1-12:00:00`."""

import re
from typing import Final

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:i?b)?|b)?", re.IGNORECASE)
_SHIFTS: Final = {"k": 10, "m": 20, "g": 30, "t": 40}
_MAX_SIZE: Final = 1 << 62

_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")
_SECONDS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?")
_DAYS_HOURS = re.compile(r"(\d+)-(\d{1,2})")
_MAX_SECONDS: Final = 10 * 366 * 86400


def parse_size(text: str) -> int:
    """Return bytes. Units are powers of 1024 in either case, as in Docker: `8G` = `8GiB` = 8 x 1024**3.

    Raises `ValueError` on anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a size: {text!r} (write 512m, 8G or a number of bytes)")
    number, unit = match.groups()
    size = round(float(number) * (1 << _SHIFTS[unit.lower()])) if unit else _whole(number, text)
    if size > _MAX_SIZE:
        raise ValueError(f"not a size: {text!r} is more than any host has")
    return size


def parse_duration(text: str) -> float:
    """Return seconds: `90`, `90s`, `5m`, `1h30m`, `2d`, or as Slurm writes it.

    A bare number counts seconds. Slurm writes `MM:SS`, `HH:MM:SS`,
    `D-HH`, `D-HH:MM` and `D-HH:MM:SS`.

    Raises `ValueError` on anything else, and above ten years.
    """
    seconds = _duration(text.strip().lower())
    if seconds is None:
        raise ValueError(f"not a duration: {text!r} (write 90, 30s, 5m, 2h or 1-12:00:00)")
    if seconds > _MAX_SECONDS:
        raise ValueError(f"not a duration: {text!r} is more than ten years")
    return seconds


def format_size(size: int) -> str:
    """Return a size as people read it: `8G`, `1.5G`, `700B`; at most one digit after the point."""
    for unit, shift in reversed(_SHIFTS.items()):
        if size >= 1 << shift:
            return f"{size / (1 << shift):.1f}".removesuffix(".0") + unit.upper()
    return f"{size}B"


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units: `42s`, `3m12s`, `5h07m`, `2d03h`; below 1 s `0s`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def _whole(number: str, text: str) -> int:
    if "." in number:
        raise ValueError(f"not a size: {text!r} is not a whole number of bytes")
    return int(number)


def _duration(text: str) -> float | None:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if match := _CLOCK.fullmatch(text):
        return _clock(*match.groups())
    if match := _DAYS_HOURS.fullmatch(text):
        days, hours = (int(part) for part in match.groups())
        return days * 86400.0 + hours * 3600.0 if hours < 24 else None
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    units = [unit for _, unit in parts]
    # Largest first and each once, so that a typo such as 5m5m is no duration.
    if units != sorted(set(units), key="dhms".index):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _clock(days: str | None, first: str, second: str, third: str | None) -> float | None:
    """Slurm's `MM:SS` and `HH:MM:SS`; behind days two parts are `HH:MM`."""
    if third is None and days is None:
        hours, minutes, seconds = 0, int(first), int(second)
    else:
        hours, minutes, seconds = int(first), int(second), int(third or 0)
        if minutes >= 60 or (days is not None and hours >= 24):
            return None
    if seconds >= 60:
        return None
    return int(days or 0) * 86400.0 + hours * 3600.0 + minutes * 60.0 + seconds
