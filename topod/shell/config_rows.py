"""The configuration key by key: what each value is, and where it came from. Secrets are left out."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from topod.protocol.curve import PRIVATE
from topod.protocol.replies import ConfigRow
from topod.shell.config_kinds import Seconds, Size
from topod.shell.config_reading import Loaded
from topod.shell.options import DEFAULT, Given
from topod.shell.toml_places import Path as Key

HIDDEN: Final = "(hidden)"
_SECRET: Final = re.compile(rf"{PRIVATE}|://[^/@\s]*:[^/@\s]*@")
"""A private key where it does not belong, or a password in an address."""
_TIMES: Final = ((3600, "h"), (60, "m"), (1, "s"))
_SIZES: Final = ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"))


def rows_of(loaded: Loaded, given: Given) -> dict[str, ConfigRow]:
    """Return every value that a program has with these files and options, by key."""
    options = dict(_options(given))
    found = {row.key: row for row in options.values() if row.key.startswith("--")}
    for name in loaded.config.__struct_fields__:
        for row in _section(getattr(loaded.config, name), (name,), loaded.origins):
            if not _is_foreign(row.key, given.program.foreign):
                above = options.get(row.key)
                # The default of an option counts where the files say nothing.
                wins = above is not None and (above.origin != DEFAULT or (not row.value and above.value))
                found[row.key] = above if above is not None and wins else row
    return found


def _is_foreign(key: str, foreign: frozenset[str]) -> bool:
    parts = key.partition(" ")[0].split(".")
    return any(".".join(parts[:length]) in foreign for length in range(1, len(parts) + 1))


def is_live(key: str, live: Mapping[str, frozenset[str]]) -> bool:
    """Say whether a reload takes the key."""
    section, _, name = key.partition(" ")[0].partition(".")
    return section in live and (not live[section] or name in live[section])


def _options(given: Given) -> Iterator[tuple[str, ConfigRow]]:
    """Yield a row for each option, by the key that it is shown under."""
    for option in given.program.options:
        if option.text is not None:
            value: object = given.values[option.name]
            if not value and option.fallback is not None:
                value = str(option.fallback(given.environ))
            key = option.key or f"--{option.name}"
            yield key, _row(key, value or None, given.origins[option.name])
    for name in given.program.flags:
        on = name in given.flags
        yield f"--{name}", _row(f"--{name}", on, f"--{name}" if on else DEFAULT)


def _section(value: Any, key: Key, origins: Mapping[Key, str]) -> Iterator[ConfigRow]:
    if isinstance(value, msgspec.Struct) and not isinstance(key[-1], int):
        for name in value.__struct_fields__:
            yield from _section(getattr(value, name), (*key, name), origins)
    elif value and isinstance(value, tuple) and isinstance(value[0], msgspec.Struct):
        for number, one in enumerate(value):
            yield from _section(one, (*key, number), origins)
    elif value != () or len(key) > 1:
        yield _row(_name(key), value, _origin(key, origins))


def _name(key: Key) -> str:
    """Return `logs.keep_days` or `quota 1`."""
    last = key[-1]
    return f"{key[0]} {last + 1}" if isinstance(last, int) else ".".join(map(str, key))


def _origin(key: Key, origins: Mapping[Key, str]) -> str:
    """Return where a value stands; where a table is from several files, all of them."""
    below = [place for at, place in origins.items() if at[: len(key)] == key and len(at) > len(key)]
    if below and not isinstance(key[-1], int):
        return ", ".join(dict.fromkeys(below))
    return origins.get(key, DEFAULT)


def _row(key: str, value: object, origin: str) -> ConfigRow:
    plain = _plain(value)
    return ConfigRow(key=key, value=plain, text=_text(value, plain), origin=origin)


def _plain(value: object) -> Any:
    if isinstance(value, msgspec.Struct):
        fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
        return {name: _plain(one) for name, one in fields if one is not None}
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        # A priority or a duration is a number as well.
        return int(value) if isinstance(value, int) else float(value)
    return HIDDEN if _SECRET.search(str(value)) else str(value)


def _text(value: Any, plain: Any) -> str:
    """Return a value as it is written in a file."""
    if isinstance(value, Seconds | Size):
        return _in_units(value, _TIMES if isinstance(value, Seconds) else _SIZES)
    if plain is None:
        return "-"
    if isinstance(plain, dict):
        pairs = (f"{_bare(key)} = {_text(None, one)}" for key, one in plain.items())
        return f"{{ {', '.join(pairs)} }}" if plain else "{}"
    if isinstance(plain, list):
        return f"[{', '.join(_text(None, one) for one in plain)}]"
    return json.dumps(plain, ensure_ascii=False)


def _in_units(value: float, units: tuple[tuple[int, str], ...]) -> str:
    exact = [f'"{value / size:.0f}{unit}"' for size, unit in units if value and value % size == 0]
    return exact[0] if exact else f"{value:g}"


def _bare(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
