"""On which line of a TOML text each key stands; `tomllib` does not tell.

Rule: the text has been read by `tomllib` before, so that it is TOML; nothing is judged here.
"""

import re
import tomllib
from bisect import bisect_right
from typing import Final

Path = tuple[str | int, ...]
"""Names, and numbers of the elements of lists, counted from 0."""

_BLANK: Final = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_PART: Final = re.compile(r"""[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
_TEXT: Final = re.compile(
    r'''"""(?:[^\\]|\\.)*?""""{0,2}|\'\'\'.*?\'\'\'\'{0,2}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\'''', re.DOTALL
)
_SCALAR: Final = re.compile(r"[^,\]}#\n]+")


def places_in(text: str) -> dict[Path, int]:
    """Return the line (from 1) of each table, key and element of a list."""
    found = _Finder(text.replace("\r\n", "\n"))
    found.run()
    return found.lines


class _Finder:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._many: dict[Path, int] = {}
        """Of arrays of tables: how many elements there are so far."""

    def run(self) -> None:
        table: Path = ()
        while self._skip() < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        start, many = self._at, self._text.startswith("[[", self._at)
        self._at += 2 if many else 1
        *above, last = self._key()
        self._at += 2 if many else 1
        path: Path = ()
        for name in above:
            path = self._element((*path, name))
            self._note(path, start)
        path = (*path, last)
        if not many:
            # A table in an array of tables: `[a]` after `[[a]]` is no TOML, so this is a table of its own.
            self._note(path, start)
            return path
        self._many[path] = self._many.get(path, 0) + 1
        self._note(path, start)
        self._note(self._element(path), start)
        return self._element(path)

    def _element(self, path: Path) -> Path:
        """Return the last element where the path is an array of tables."""
        return (*path, self._many[path] - 1) if path in self._many else path

    def _pair(self, table: Path) -> None:
        start, path = self._at, table
        for name in self._key():
            path = (*path, name)
            self._note(path, start)
        self._at += 1
        self._value(path)

    def _key(self) -> list[str]:
        parts = []
        while match := _PART.match(self._text, self._at):
            raw, self._at = match[1], match.end()
            parts.append(tomllib.loads(f"k = {raw}")["k"] if raw[0] in "\"'" else raw)
            if not self._text.startswith(".", self._at):
                break
            self._at += 1
        return parts

    def _value(self, path: Path) -> None:
        first = self._text[self._skip() : self._at + 1]
        if first == "[":
            self._list(path)
        elif first == "{":
            self._inline(path)
        else:
            match = _TEXT.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
            self._at = match.end() if match else len(self._text)

    def _list(self, path: Path) -> None:
        self._at += 1
        number = 0
        while self._text[self._skip()] != "]":
            self._note((*path, number), self._at)
            self._value((*path, number))
            self._comma()
            number += 1
        self._at += 1

    def _inline(self, path: Path) -> None:
        self._at += 1
        while self._text[self._skip()] != "}":
            self._pair(path)
            self._comma()
        self._at += 1

    def _comma(self) -> None:
        if self._text[self._skip()] == ",":
            self._at += 1

    def _skip(self) -> int:
        """Go on to the next that is neither blank nor a comment, and return where that is."""
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _note(self, path: Path, at: int) -> None:
        self.lines.setdefault(path, bisect_right(self._ends, at - 1) + 1)
