"""Rectangles of styled text that are put beside and above one another. Pure.

Widths are columns of the terminal: a CJK letter counts two.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TypeAlias

from rich.cells import cell_len, set_cell_size
from rich.text import Text

Part: TypeAlias = tuple[str, str]
"""A text and its style."""
Line: TypeAlias = Sequence[Part]


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of one width."""

    lines: tuple[Line, ...]
    width: int

    @property
    def height(self) -> int:
        """How many lines it has."""
        return len(self.lines)


def block(lines: Iterable[Line], width: int | None = None) -> Block:
    """Return lines as a block, cut or filled up to `width` columns; None: to the widest."""
    rows = [tuple(line) for line in lines]
    wide = max((width_of(row) for row in rows), default=0) if width is None else width
    return Block(tuple(_sized(row, wide) for row in rows), wide)


def beside(blocks: Sequence[Block], gap: int = 1) -> Block:
    """Return blocks from left to right, their first lines level."""
    height = max((one.height for one in blocks), default=0)
    lines = []
    for at in range(height):
        line: list[Part] = []
        for number, one in enumerate(blocks):
            if number and gap:
                line.append((" " * gap, ""))
            line += one.lines[at] if at < one.height else [(" " * one.width, "")]
        lines.append(tuple(line))
    return Block(tuple(lines), sum(one.width for one in blocks) + gap * max(0, len(blocks) - 1))


def above(blocks: Iterable[Block], gap: int = 0) -> Block:
    """Return blocks from top to bottom, with `gap` empty lines between them."""
    lines: list[Line] = []
    for one in blocks:
        lines += [(("", ""),)] * (gap if lines else 0)
        lines += one.lines
    return block(lines)


def flow(blocks: Sequence[Block], width: int, gap: int = 1) -> Block:
    """Return blocks from left to right in rows of at most `width` columns, the same number in each row."""
    if not blocks:
        return Block((), 0)
    widest = max(one.width for one in blocks)
    across = max(1, min(len(blocks), (width + gap) // (widest + gap)))
    while across > 1 and across & (across - 1):
        across -= 1  # pairs and quads stand together
    rows = [blocks[start : start + across] for start in range(0, len(blocks), across)]
    return above(beside(row, gap) for row in rows)


def indent(inner: Block, columns: int = 1) -> Block:
    """Return a block moved to the right."""
    return Block(tuple(((" " * columns, ""), *line) for line in inner.lines), inner.width + columns)


def flowing(items: Sequence[Line], width: int, gap: int) -> list[Line]:
    """Return items in lines, as many in each as fit, with `gap` columns between them."""
    lines: list[list[Part]] = [[]]
    used = 0
    for item in items:
        size = width_of(item)
        if used and used + gap + size > width:
            lines.append([])
            used = 0
        elif used:
            lines[-1].append((" " * gap, ""))
            used += gap
        lines[-1] += item
        used += size
    return list(lines)


def folded(line: Line, width: int) -> Block:
    """Return a line as a block that fits: words of one style go on below, indented."""
    if len(line) != 1 or width_of(line) <= width:
        return block([line], min(width, width_of(line)))
    ((words, style),) = line
    return block([[(part, style)] for part in wrap(words, width, subsequent_indent="    ")])


def fit(text: str, width: int) -> str:
    """Return a text cut, with an ellipsis, or filled up to `width` columns."""
    if cell_len(text) > width > 0:
        text = f"{set_cell_size(text, width - 1)}…"
    return set_cell_size(text, max(0, width))


def text_of(one: Block) -> Text:
    """Return a block as text for the screen; blanks at the ends of its lines are left out."""
    text = Text(no_wrap=True, end="")
    for number, line in enumerate(one.lines):
        if number:
            text.append("\n")
        for part, style in _without_tail(line):
            text.append(part, style or None)
    return text


def width_of(line: Line) -> int:
    """Return the columns of a line."""
    return sum(cell_len(part) for part, _ in line)


def _sized(line: Line, width: int) -> Line:
    missing = width - width_of(line)
    if missing > 0:
        return (*line, (" " * missing, ""))
    if not missing:
        return line
    parts: list[Part] = []
    left = width
    for part, style in line:
        if left <= 0:
            break
        parts.append((part if cell_len(part) <= left else fit(part, left), style))
        left -= cell_len(part)
    return tuple(parts)


def _without_tail(line: Line) -> list[Part]:
    parts = list(line)
    while parts and not parts[-1][0].strip():
        parts.pop()
    if parts:
        last, style = parts[-1]
        parts[-1] = (last.rstrip(), style)
    return parts
