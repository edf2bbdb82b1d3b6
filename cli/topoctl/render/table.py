"""Columns of text: as wide as their content, the last one cut to the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from topoctl.render.style import Style


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. `most`: never wider than this; `colors`: by cell text."""

    head: str
    right: bool = False
    most: int | None = None
    colors: Mapping[str, str] | None = None


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], style: Style, *, whole: bool) -> str:
    """Return head and rows as lines that fit `style.width`, unless piped; with `whole`, nothing is cut.

    Where the last column would be cut, the columns move closer together first.
    """
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
    gap = "  "
    if not whole and not style.piped:
        gap = gap if sum(widths) + 2 * (len(columns) - 1) <= style.width else " "
        before = sum(widths[:-1]) + len(gap) * (len(columns) - 1)
        widths[-1] = max(len(columns[-1].head), min(widths[-1], style.width - before))
    heads = _cells(columns, [column.head for column in columns], widths, style)
    lines = [style.paint(gap.join(heads).rstrip(), "bold")]
    lines += [gap.join(_cells(columns, row, widths, style, color=True)).rstrip() for row in cut]
    return "\n".join(lines) + "\n"


def _cells(
    columns: Sequence[Column],
    cells: Sequence[str],
    widths: Sequence[int],
    style: Style,
    *,
    color: bool = False,
) -> list[str]:
    shown = []
    for column, cell, width in zip(columns, cells, widths, strict=True):
        text = style.cut(cell, width)
        padding = " " * (width - len(text))
        code = column.colors.get(cell) if color and column.colors is not None else None
        painted = style.paint(text, code) if code is not None else text
        shown.append(padding + painted if column.right else painted + padding)
    return shown
