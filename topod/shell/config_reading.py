"""Reads the configuration: one file and what lies in `conf.d` beside it; every mistake is told with its line.

`docs/reference/configuration.md` says how the files come together.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from topod.errors import DataError, NotFoundError
from topod.protocol.curve import PRIVATE
from topod.shell.config_file import ConfigFile, from_plain, mistakes_in
from topod.shell.config_shape import Plain, wrong_shapes
from topod.shell.toml_places import Path as Key
from topod.shell.toml_places import places_in

DEFAULT_PATH: Final = Path("/etc/topod/topod.toml")
FOLDER: Final = "conf.d"
"""Beside the file."""
CHECK: Final = "topoctl config check"


_SECRET: Final = re.compile(rf"{PRIVATE}[^\s\"']+")
"""A private key where it does not belong, quoted in a mistake."""


class ConfigError(DataError):
    """The configuration has mistakes: all of them, each a line `FILE:LINE: what is wrong`."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(_SECRET.sub(f"{PRIVATE}...", _one_line(mistake)) for mistake in mistakes)
        more = len(self.mistakes) - 1
        super().__init__(self.mistakes[0] + (f" (and {more} more: {CHECK})" if more else ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration, and where it is from."""

    config: ConfigFile = field(default_factory=ConfigFile)
    origins: Mapping[Key, str] = field(default_factory=dict)
    """`FILE:LINE` of each table and key that a file names."""
    files: tuple[str, ...] = ()
    """In the order in which they were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """One file: what it says, and on which lines."""

    source: str
    plain: Plain
    lines: Mapping[Key, int]

    def place(self, key: Key) -> str:
        """Return where a key, or the nearest table around it, stands."""
        while key and key not in self.lines:
            key = key[:-1]
        return f"{self.source}:{self.lines[key]}" if key else self.source


def load_config(path: Path | None) -> Loaded:
    """Return the configuration of `path` and of `conf.d` beside it.

    None takes the default path; what does not exist there says nothing. Raises `NotFoundError` for a named
    file that is not there, `ConfigError` for what cannot be read or cannot be meant.
    """
    main = DEFAULT_PATH if path is None else path
    texts, mistakes = [], list[str]()
    for file in (*_main(main, named=path is not None), *_beside(main, mistakes)):
        try:
            texts.append(_parsed(_read(file), str(file)))
        except DataError as error:
            mistakes.append(error.message)
    return _merged(texts, mistakes)


def read_config(path: Path | None) -> ConfigFile:
    """Return the configuration of `path` and of `conf.d` beside it; raises what `load_config` raises."""
    return load_config(path).config


def parse_config(text: str, source: str) -> ConfigFile:
    """Return the configuration that one text describes. Raises `DataError`."""
    return _merged([_parsed(text, source)], []).config


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _main(path: Path, *, named: bool) -> list[Path]:
    try:
        path.stat()
    except FileNotFoundError:
        if named:
            raise NotFoundError(f"no such configuration file: {path}") from None
        return []
    except OSError:
        pass  # told when it is read
    return [path]


def _beside(main: Path, mistakes: list[str]) -> list[Path]:
    """Return the files of the folder in the order of their names; not what editors and packagers leave."""
    folder = main.parent / FOLDER
    try:
        entries = sorted(entry.name for entry in folder.iterdir())
        stranger = _stranger(folder, main)
    except FileNotFoundError:
        return []
    except OSError as error:
        mistakes.append(f"{folder}: cannot be read: {error.strerror}")
        return []
    if stranger is not None:
        mistakes.append(
            f"{folder}: belongs to user {stranger}, who could configure topod by it: chown it, or remove it"
        )
        return []
    return [folder / name for name in entries if name.endswith(".toml") and not name.startswith(".")]


def _stranger(folder: Path, main: Path) -> int | None:
    """Return who owns the folder, where that is neither root, nor this user, nor whoever owns the file.

    Beside a file in /tmp anybody could put one.
    """
    owner, trusted = folder.stat().st_uid, {0, os.geteuid()}
    with suppress(OSError):
        trusted.add(main.stat().st_uid)
    return None if owner in trusted else owner


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text at byte {error.start}", source=str(path)) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", source=str(path)) from None


def _parsed(text: str, source: str) -> _Text:
    """Return what a text says. Raises `DataError` where it is no TOML."""
    try:
        return _Text(source=source, plain=tomllib.loads(text), lines=places_in(text))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError too
        at = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        line, column = (int(at[1]), int(at[2])) if at else (None, None)
        said = str(error)[: at.start()] if at else str(error)
        raise ConfigError(
            [DataError(f"not TOML: {said}", source=source, line=line, column=column).message]
        ) from None


def _merged(texts: list[_Text], mistakes: list[str]) -> Loaded:
    """Return all texts as one. Raises `ConfigError`."""
    # What seems to be missing may stand in a file that cannot be read.
    unread, bad = bool(mistakes), set[str]()
    for text in texts:
        for wrong in wrong_shapes(text.plain, ConfigFile):
            mistakes.append(f"{text.place(wrong.key)}: {wrong.text}")
            bad.add(str(wrong.key[0]))
    whole = _Whole()
    for text in texts:
        whole.add(text, without=bad)
    config = msgspec.convert(whole.plain, ConfigFile, dec_hook=from_plain)
    if not unread:
        sections = [name for name in ConfigFile.__struct_fields__ if name not in bad]
        mistakes += [_placed(said, whole.origins, texts) for said in mistakes_in(config, sections)]
    if mistakes:
        raise ConfigError(mistakes)
    return Loaded(config=config, origins=whole.origins, files=tuple(text.source for text in texts))


class _Whole:
    """What several texts say together: tables key by key, arrays of tables joined; else the later counts."""

    def __init__(self) -> None:
        self.plain: Plain = {}
        self.origins: dict[Key, str] = {}

    def add(self, text: _Text, *, without: set[str]) -> None:
        """Put what a text says over what is here."""
        said = {name: value for name, value in text.plain.items() if name not in without}
        self._add(self.plain, said, ((), ()), text)

    def _add(self, whole: Plain, more: Plain, at: tuple[Key, Key], text: _Text) -> None:
        """`at` is where the tables are, in the whole and in the text."""
        for name, value in more.items():
            (key, own), before = ((*at[0], name), (*at[1], name)), whole.get(name)
            if isinstance(value, dict):
                self.origins[key] = text.place(own)
                self._add(whole.setdefault(name, {}), value, (key, own), text)
            elif _are_tables(value) and _are_tables(before or []):
                joined = before or []
                whole[name] = [*joined, *value]
                for number in range(len(value)):
                    self.origins[*key, len(joined) + number] = text.place((*own, number))
            else:
                whole[name] = value
                self.origins[key] = text.place(own)


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _placed(said: str, origins: Mapping[Key, str], texts: list[_Text]) -> str:
    """Return `FILE:LINE: place: what is wrong` for `place: what is wrong`."""
    place = said.partition(":")[0]
    return f"{_place_of(_key(place), origins) or ', '.join(text.source for text in texts)}: {said}"


def _place_of(key: Key, origins: Mapping[Key, str]) -> str:
    while key and key not in origins:
        key = key[:-1]
    return origins[key] if key else ""


def _key(place: str) -> Key:
    """Return the path of `fairness.hold_step` or `quota 2`."""
    counted = re.fullmatch(r"(\w+) (\d+)", place)
    return (counted[1], int(counted[2]) - 1) if counted else tuple(place.split("."))


def lines_of(error: DataError) -> Iterator[str]:
    """Yield the mistakes that an error tells, a line each."""
    yield from error.mistakes if isinstance(error, ConfigError) else (error.message,)
