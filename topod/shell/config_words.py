"""What msgspec says of a wrong configuration in the words of the file: where, what is meant, what is near."""

import re
from difflib import get_close_matches
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

_PLACED = re.compile(r"(?P<text>.*) - at `(?P<place>[^`]*)`", re.DOTALL)
_MISTYPED: Final = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<got>[^`]+)`")
_NO_SUCH_WORD: Final = re.compile(r"Invalid enum value (?P<got>.*)", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`(?: - at `(?P<place>[^`]*)`)?")
_KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
"""TOML's kinds of values in plain words."""


def in_words(text: str, root: type[msgspec.Struct]) -> str:
    """Return msgspec's complaint about a `root` in plain words, with the nearest known key."""
    found = _UNKNOWN.search(text)
    if found is None:
        said = _PLACED.fullmatch(text)
        return (
            text if said is None else f"{_place(said['place'])}: {_plain(said['text'], said['place'], root)}"
        )
    place = _path(found["place"] or "$")
    section = _type_at(place, root)
    known = [field.encode_name for field in msgspec.structs.fields(section)] if _is_struct(section) else []
    near = get_close_matches(found["name"], known, n=1)
    where = f" in [{'.'.join(place)}]" if place else ""
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known) or 'none'}"
    return f"unknown key {found['name']!r}{where}{hint}"


def _plain(text: str, place: str, root: type[msgspec.Struct]) -> str:
    """Return `a whole number is expected, not a text` for msgspec's "Expected `int`, got `str`"."""
    word = _NO_SUCH_WORD.fullmatch(text)
    if word is not None and (allowed := _words(_type_at(_path(place), root))):
        return f"one of {', '.join(allowed)} is expected, not {word['got']}"
    found = _MISTYPED.fullmatch(text)
    if found is None or found["got"] not in _KINDS:
        return text
    wanted = [kind for kind in found["wanted"].split(" | ") if kind != "null"]
    if not all(kind in _KINDS for kind in wanted):
        return text
    return f"{' or '.join(_KINDS[kind] for kind in wanted)} is expected, not {_KINDS[found['got']]}"


def _place(path: str) -> str:
    """Return `quota 2.gpus` for `$.quota[1].gpus`: people count from 1, as the other refusals do."""
    counted = re.sub(r"\[(\d+)\]", lambda at: f" {int(at[1]) + 1}", path.removeprefix("$").removeprefix("."))
    return counted.replace("[...]", "") or "the file"


def _path(place: str) -> list[str]:
    """Return the names of `$.security.jobs` or `$.quota[1]`."""
    plain = re.sub(r"\[.*?\]", "", place).removeprefix("$").removeprefix(".")
    return plain.split(".") if plain else []


def _type_at(path: list[str], root: type[msgspec.Struct]) -> Any:
    """Return what kind of value belongs there; None: nobody knows."""
    kind: Any = root
    for name in path:
        kind = get_type_hints(kind).get(name) if _is_struct(kind) else None
        parts = [part for part in get_args(kind) if _is_struct(part)]
        kind = parts[0] if parts else kind
    return kind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _words(kind: Any) -> list[str]:
    """Return the words that a value may be, itself or each of a list."""
    if isinstance(kind, type) and hasattr(kind, "__members__"):
        return [str(member.value) for member in kind]  # type: ignore[attr-defined]  # an Enum
    if get_origin(kind) is Literal:
        return [str(word) for word in get_args(kind)]
    return [word for part in get_args(kind) for word in _words(part)]
