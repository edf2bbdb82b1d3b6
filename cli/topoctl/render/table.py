"""Columns of text: as wide as their content, the last one cut to the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from topoctl.render.style import Style

GAP = "  "


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. `most`: never wider than this; `colors`: by cell text."""

    head: str
    right: bool = False
    most: int | None = None
    colors: Mapping[str, str] | None = None


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], style: Style, *, whole: bool) -> str:
    """Return head and rows as lines that fit `style.width`; with `whole`, nothing is cut."""
    cut = [
        [
            cell if whole or column.most is None else style.cut(cell, column.most)
            for column, cell in zip(columns, row, strict=True)
        ]
        for row in rows
    ]
    widths = [
        max(len(column.head), *(len(row[index]) for row in cut)) if cut else len(column.head)
        for index, column in enumerate(columns)
    ]
    before = sum(widths[:-1]) + len(GAP) * (len(columns) - 1)
    if not whole:
        widths[-1] = max(len(columns[-1].head), min(widths[-1], style.width - before))
    lines = [style.paint(_line(columns, [column.head for column in columns], widths, style), "bold")]
    lines += [_line(columns, row, widths, style, color=True) for row in cut]
    return "\n".join(lines) + "\n"


def _line(
    columns: Sequence[Column],
    cells: Sequence[str],
    widths: Sequence[int],
    style: Style,
    *,
    color: bool = False,
) -> str:
    shown = []
    for column, cell, width in zip(columns, cells, widths, strict=True):
        text = style.cut(cell, width)
        padding = " " * (width - len(text))
        code = column.colors.get(cell) if color and column.colors is not None else None
        painted = style.paint(text, code) if code is not None else text
        shown.append(padding + painted if column.right else painted + padding)
    return GAP.join(shown).rstrip()
