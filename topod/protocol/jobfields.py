"""One parser per field of a job: what a flag, YAML or TOML gives, to the value that `JobSpec` holds.

Rule: every parser raises `ValueError` with a text that says what was expected; `jobfile` adds where.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from topod.model.image import is_reference
from topod.model.job import Device, Mount, RestartPolicy
from topod.model.request import AUTO, PRIORITIES
from topod.protocol.units import parse_duration, parse_size

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_ENV_NAME = re.compile(r"[^=\s\0]+")
_ULIMIT = re.compile(r"[a-z]+")
_LINE: Final = 120
E = TypeVar("E", bound=StrEnum)
Parser = Callable[[object], object]


def text(value: object) -> str:
    """Read any text that is UTF-8 and without a NUL character."""
    if not isinstance(value, str):
        raise ValueError(f"must be text: {_show(value)} (write it in quotes)")  # noqa: TRY004 - one kind of error for callers
    if "\0" in value:
        raise ValueError("holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:  # Python keeps the bytes of a command line that are no text as lone surrogates
        raise ValueError(f"not UTF-8 text: {_show(value)}") from None
    return value


def nonempty(value: object) -> str:
    """Read text that is not blank."""
    found = text(value)
    if not found.strip():
        raise ValueError("is empty")
    return found


def image(value: object) -> str:
    """Read the name of an image, by Docker's grammar."""
    found = nonempty(value)
    if not is_reference(found):
        raise ValueError(f"not the name of an image: {_show(found)} (write ubuntu:24.04, or HOST:5000/lab/x)")
    return found


def name(value: object) -> str:
    """Read a job's name."""
    found = nonempty(value)
    if not NAME.fullmatch(found):
        raise ValueError(
            f"not a job name: {_show(found)} (letters, digits, `_`, `.` and `-`, at most 63, no sign first)"
        )
    return found


def flag(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false: {_show(value)}")  # noqa: TRY004 - one kind of error for callers
    return value


def count(value: object) -> int:
    """Read a whole number, 0 or more."""
    number = integer(value)
    if number < 0:
        raise ValueError(f"must be 0 or more: {number}")
    return number


def integer(value: object) -> int:
    """Read a whole number, as a number or as its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value.strip()):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+", value.strip()):
        raise ValueError(f"too large: {_show(value)}")
    raise ValueError(f"must be a whole number: {_show(value)}")


def cpus(value: object) -> int | str:
    """Read a number of CPUs, or `auto`."""
    return AUTO if value == AUTO else count(value)


def priority(value: object) -> int:
    """Read an integer or one of the names `low`, `normal`, `high`."""
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    try:
        return integer(value)
    except ValueError:
        names = ", ".join(PRIORITIES)
        raise ValueError(
            f"must be {names} or a whole number: {_show(value)}{near(str(value), PRIORITIES)}"
        ) from None


def size(value: object) -> int:
    """Read a size in bytes: a number, or text such as `8G`."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"not a size: {_show(value)} (write 512m or 8G)")  # noqa: TRY004 - one kind of error for callers
    return parse_size(str(value))


def positive_size(value: object) -> int:
    """Read a size that is not 0."""
    found = size(value)
    if found == 0:
        raise ValueError("must be more than 0")
    return found


def duration(value: object) -> float:
    """Read a duration in seconds: a number, or text such as `5m`."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"not a duration: {_show(value)} (write 90 or 5m)")  # noqa: TRY004 - one kind of error for callers
    return parse_duration(str(value))


def positive_duration(value: object) -> float:
    """Read a duration that is not 0."""
    found = duration(value)
    if found == 0:
        raise ValueError("must be more than 0")
    return found


def choice(kind: type[E]) -> Callable[[object], E]:
    """Return a parser of the words of an enumeration."""

    def parse(value: object) -> E:
        words = [str(member) for member in kind]
        word = value.strip().lower().replace("_", "-") if isinstance(value, str) else value
        if word not in words:
            raise ValueError(f"must be one of {', '.join(words)}: {_show(value)}{near(str(value), words)}")
        return kind(word)

    return parse


def restart(value: object) -> tuple[RestartPolicy, int | None]:
    """Read `never`, `on-failure` or Docker's `on-failure:3`: the policy, and the number if given."""
    word, colon, number = nonempty(value).partition(":")
    if word == "no":
        word = RestartPolicy.NEVER
    words = [*map(str, RestartPolicy), "on-failure:N"]
    word = word.strip().lower().replace("_", "-")
    if word in ("always", "unless-stopped"):
        raise ValueError(
            f"{_show(value)} is refused, since exit code 0 says that a job is done; "
            "on-failure restarts a service whenever it fails"
        )
    if word not in words[:-1]:
        raise ValueError(f"must be one of {', '.join(words)}: {_show(value)}{near(word, words)}")
    policy = RestartPolicy(word)
    if not colon:
        return policy, None
    if policy is not RestartPolicy.ON_FAILURE:
        raise ValueError(f"`{policy}` takes no number: {_show(value)}")
    return policy, count(number)


def command(value: object) -> tuple[str, ...]:
    """Read words: a list, or one text that is split as a shell would (without expanding anything)."""
    if isinstance(value, str):
        try:
            words: list[object] = list(shlex.split(value))
        except ValueError as error:
            raise ValueError(f"not a command: {_show(value)} ({str(error).lower()})") from None
    elif isinstance(value, list | tuple):
        words = list(value)
    else:
        raise ValueError(f"must be a list of words or one text: {_show(value)}")  # noqa: TRY004 - one kind of error for callers
    return tuple(str(word) if type(word) in {int, float} else text(word) for word in words)


def script(value: object) -> tuple[str, ...]:
    """Read a command that may use the shell: one text is run by `sh -c`, a list of words as it is."""
    return ("sh", "-c", text(value)) if isinstance(value, str) and value.strip() else command(value)


def pairs(value: object, *, what: str) -> dict[str, str | None]:
    """Read `NAME=VALUE` texts or a mapping; a name alone gives None."""
    found: dict[str, str | None] = {}
    if isinstance(value, Mapping):
        for key, item in value.items():
            found[_pair_name(key, what)] = None if item is None else _scalar(str(key), item)
        return found
    for item in [value] if isinstance(value, str) else _items(value, f"{what}s as NAME=VALUE"):
        key, equals, rest = text(item).partition("=")
        found[_pair_name(key, what)] = rest if equals else None
    return found


def ulimits(value: object) -> dict[str, int]:
    """Read `name=limit` each, -1 or `unlimited` for no limit."""
    limits: dict[str, int] = {}
    for key, item in pairs(value, what="ulimit").items():
        if item is None or not _ULIMIT.fullmatch(key):
            raise ValueError(f"not a ulimit: {_show(key)} (write memlock=-1 or nofile=65536)")
        limit = -1 if item == "unlimited" else integer(item)
        if limit < -1:
            raise ValueError(f"ulimit {key} must be -1 (unlimited) or more: {limit}")
        limits[key] = limit
    return limits


def mounts(value: object, base: Path) -> tuple[Mount, ...]:
    """Read `src:dst[:ro|rw]` texts, or mappings with `source`, `target`, `read_only`; relative to `base`."""
    items = [value] if isinstance(value, str) else _items(value, "src:dst[:ro]")
    return tuple(_mount(item, base) for item in items)


def capabilities(value: object) -> tuple[str, ...]:
    """Read names such as `IPC_LOCK`; `CAP_` before them and the case do not matter."""
    items = [value] if isinstance(value, str) else _items(value, "capabilities")
    found = [text(item).strip().upper().removeprefix("CAP_") for item in items]
    for word in found:
        if not re.fullmatch(r"[A-Z]+(_[A-Z]+)*", word):
            raise ValueError(f"not a capability: {_show(word)} (write IPC_LOCK)")
    return tuple(dict.fromkeys(found))


def devices(value: object) -> tuple[Device, ...]:
    """Read `path[:path in the container][:rwm]` texts."""
    items = [value] if isinstance(value, str) else _items(value, "devices")
    return tuple(_device(text(item)) for item in items)


def _device(item: str) -> Device:
    source, *more = item.split(":")
    permissions = more.pop() if more and re.fullmatch(r"[rwm]{1,3}", more[-1]) else "rwm"
    target = more.pop() if more else source
    if more or not source.startswith("/") or not target.startswith("/"):
        raise ValueError(f"not a device: {_show(item)} (write /dev/infiniband or /dev/fuse:/dev/fuse:rw)")
    return Device(source=source, target=target, permissions=permissions)


def near(word: str, words: "Mapping[str, object] | list[str]") -> str:
    """Return ` (did you mean ...?)`, or nothing when nothing is near."""
    found = get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f" (did you mean {found[0]}?)" if found else ""


def _mount(item: object, base: Path) -> Mount:
    if isinstance(item, Mapping):
        unknown = [str(key) for key in item if key not in {"source", "target", "read_only", "read-only"}]
        if unknown:
            raise ValueError(f"a volume has source, target and read_only, not {_show(unknown[0])}")
        read_only = flag(item.get("read_only", item.get("read-only", False)))
        return _checked(nonempty(item.get("source")), nonempty(item.get("target")), read_only, base)
    parts = text(item).split(":")
    if len(parts) not in {2, 3} or (len(parts) == 3 and parts[2] not in {"ro", "rw"}) or not all(parts):
        raise ValueError(f"not a volume: {_show(item)} (write src:dst or src:dst:ro)")
    return _checked(parts[0], parts[1], parts[2:] == ["ro"], base)


def _checked(source: str, target: str, read_only: bool, base: Path) -> Mount:
    if not source.startswith(("/", ".", "~")):
        raise ValueError(f"not a path: {_show(source)} (for a folder here write ./{source})")
    if not target.startswith("/"):
        raise ValueError(f"the path in the container must start with /: {_show(target)}")
    path = Path(source).expanduser()
    return Mount(
        source=str(path if path.is_absolute() else (base / path).resolve()),
        target=target,
        read_only=read_only,
    )


def _pair_name(key: object, what: str) -> str:
    if not isinstance(key, str) or not _ENV_NAME.fullmatch(key):
        raise ValueError(f"not the name of a {what}: {_show(key)}")
    return key


def _scalar(key: str, item: object) -> str:
    # YAML reads yes, on and true alike: which text the user wrote is lost.
    if isinstance(item, bool):
        raise ValueError(f"{key}: write true or false in quotes")  # noqa: TRY004 - one kind of error for callers
    return str(item) if isinstance(item, int | float) else text(item)


def _items(value: object, what: str) -> list[object]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list of {what}: {_show(value)}")  # noqa: TRY004 - one kind of error for callers
    return list(value)


def _show(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _LINE else shown[: _LINE - 3] + "..."
