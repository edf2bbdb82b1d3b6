r"""Lines of a capture without terminal escapes, that still know where each character stood.

Captures come from terminals, logs and web forms: the escapes that underline the header occur as real
sequences, as caret text (`^[[4m`), as source text (`\x1b[4m`) and without their ESC byte (`[4m`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from topod.errors import DataError

_ESCAPE: Final = re.compile(
    r"(?:\x1b|\u241b|\^\[|\\x1[bB]|\\033|\\e|\\u001[bB])\[[0-9;?]*[A-Za-z]"  # real, caret or source text
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # window titles that shells set
    r"|\x1b[()][A-Z0-9]"
    r"|\[\d[\d;]*m"  # the ESC byte was lost
    r"|[\ufeff\u200b\u200c\u200d\x07\x0f\x0e]"
)
_BLANKS: Final = str.maketrans(dict.fromkeys("\xa0\u2002\u2003\u2007\u2009\u202f\x0b\x0c", " "))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line: `text` has no escapes; `number` and `columns` lead back to the original (from 1)."""

    number: int
    text: str
    columns: Sequence[int]
    """The original column of each character of `text`, and of its end."""

    def column(self, position: int) -> int:
        """Return the original column of the character at `position` of `text`."""
        return self.columns[min(position, len(self.columns) - 1)]


def read_lines(text: str) -> tuple[Line, ...]:
    """Split `text` at line feeds (or at carriage returns where there are no line feeds)."""
    rows = text.split("\n") if "\n" in text else text.split("\r")
    return tuple(_line(number, row) for number, row in enumerate(rows, start=1))


def _line(number: int, row: str) -> Line:
    row = row.rstrip("\r").translate(_BLANKS)
    if not _ESCAPE.search(row):
        return Line(number=number, text=row, columns=range(1, len(row) + 2))
    kept: list[int] = []
    at = 0
    for escape in _ESCAPE.finditer(row):
        kept.extend(range(at, escape.start()))
        at = escape.end()
    kept.extend(range(at, len(row)))
    columns = (*(index + 1 for index in kept), len(row) + 1)
    return Line(number=number, text="".join(row[index] for index in kept), columns=columns)


def damaged(source: str, line: Line, position: int, message: str) -> DataError:
    """Return the error that points at `position` of `line`."""
    return DataError(message, source=source, line=line.number, column=line.column(position))
