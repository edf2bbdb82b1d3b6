"""Every key of the configuration that nobody knows, and every value of a wrong kind; not only the first."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from topod.shell.config_file import from_plain
from topod.shell.config_words import in_words
from topod.shell.toml_places import Path as Key

Plain = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """One mistake, at a key."""

    key: Key
    text: str


def wrong_shapes(plain: Plain, kind: type[msgspec.Struct]) -> Iterator[Wrong]:
    """Yield what is wrong in a table, whatever else is."""
    yield from _in_table(plain, kind, (), kind)


def _in_table(
    plain: Plain, kind: type[msgspec.Struct], at: Key, root: type[msgspec.Struct]
) -> Iterator[Wrong]:
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name, value in plain.items():
        key = (*at, name)
        if name in known:
            yield from _in_value(value, known[name].type, key, root)
        else:
            where = f" - at `{_path(at)}`" if at else ""
            said = f"Object contains unknown field `{name}`{where}"
            yield Wrong(key=key, text=in_words(said, root))
    for name, field in known.items():
        if field.required and name not in plain:
            yield Wrong(key=at, text=in_words(f"`{name}` is missing - at `{_path(at)}`", root))


def _in_value(value: object, kind: Any, key: Key, root: type[msgspec.Struct]) -> Iterator[Wrong]:
    section = _section(kind)
    if section is not None and isinstance(value, dict):
        yield from _in_table(value, section, key, root)
        return
    element = _section(get_args(kind)[0]) if get_origin(kind) is tuple else None
    if element is not None and isinstance(value, list):
        for number, one in enumerate(value):
            yield from _in_value(one, element, (*key, number), root)
        return
    try:
        msgspec.convert(value, kind, dec_hook=from_plain)
    except msgspec.ValidationError as error:
        said, _, deeper = str(error).rpartition(" - at `$")
        text = f"{said} - at `{_path(key)}{deeper}" if said else f"{error} - at `{_path(key)}`"
        yield Wrong(key=key, text=in_words(text, root))


def _section(kind: Any) -> type[msgspec.Struct] | None:
    """Return the section that a value of this kind is, or may be."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    found = [part for part in parts if isinstance(part, type) and issubclass(part, msgspec.Struct)]
    return found[0] if found else None


def _path(key: Key) -> str:
    """Return a key as msgspec writes it: `$.quota[0].gpus`."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
