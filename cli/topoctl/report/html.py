"""Pieces of a page as HTML text. Every text is escaped here; what is HTML already is a `Html`."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from html import escape
from importlib.resources import files
from typing import Final

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""Nothing may be loaded and no script may run, whatever the page holds."""


@dataclass(frozen=True, slots=True)
class Html:
    """Text that is HTML."""

    text: str


TICKS: Final = 8
"""At most so many texts stand below a chart over time."""
DAY: Final = 86400
TICK_STEPS: Final = (*(60, 300, 900, 1800, 3600, 10800, 21600, 43200), *(DAY, 7 * DAY, 28 * DAY, 84 * DAY))
_NUMBER: Final = re.compile(r"-|[\d.,]+ ?(%|ms|[smhd]|[mhd]\d+[smh])?")
Cell = str | int | float | Html


def page(title: str, body: str) -> str:
    """Return a whole page that needs nothing else."""
    style = (files("topoctl.report") / "style.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str) -> str:
    """Return a table; numbers stand right."""
    kept = [list(row) for row in rows]
    right = [bool(kept) and all(_numeric(row[at]) for row in kept) for at in range(len(heads))]
    top = "".join(
        f'<th scope="col"{_right(one)}>{escape(head)}</th>' for head, one in zip(heads, right, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{_right(one)}>{_cell(cell)}</td>" for cell, one in zip(row, right, strict=True))
        + "</tr>\n"
        for row in kept
    )
    return (
        f'<div class="wide">\n<table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )


def folded(summary: str, inside: str) -> str:
    """Return what is seen once it is asked for, and in print."""
    return f"<details><summary>{escape(summary)}</summary>\n{inside}</details>\n"


def legend(names: Sequence[str], paints: Sequence[str]) -> str:
    """Return which colour is what."""
    items = "".join(
        '<li><svg viewBox="0 0 12 12" aria-hidden="true">'
        f'<rect class="{paint}" width="12" height="12" rx="2"/></svg>'
        f"{escape(name)}</li>"
        for name, paint in zip(names, paints, strict=True)
    )
    return f'<ul class="legend">{items}</ul>\n'


def cards(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return large numbers: what it is, the number, and more about it."""
    inside = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>\n"
        for name, value, more in entries
    )
    return f'<dl class="cards">\n{inside}</dl>\n'


def paragraph(text: str) -> str:
    """Return a paragraph of lesser importance."""
    return f'<p class="soft">{escape(text)}</p>\n'


def items(entries: Iterable[str]) -> Html:
    """Return a list."""
    return Html("<ul>" + "".join(f"<li>{escape(entry)}</li>" for entry in entries) + "</ul>")


def moment(at: float, zone: tzinfo | None, form: str = "%Y-%m-%d %H:%M") -> str:
    """Return a moment in a time zone; None: that of this machine."""
    return datetime.fromtimestamp(at, zone).strftime(form)


def offset(at: float, zone: tzinfo | None) -> float:
    """Return by how many seconds the clocks of a time zone are ahead of UTC."""
    then = datetime.fromtimestamp(at, zone or UTC)
    told = (then if zone else then.astimezone()).utcoffset()
    return told.total_seconds() if told is not None else 0.0


def ticks(times: Sequence[float], zone: tzinfo | None) -> list[tuple[int, str]]:
    """Return below which columns of a chart over time which text stands: at round times of the clock."""
    span, ahead = times[-1] - times[0], offset(times[0], zone)
    apart = next((step for step in TICK_STEPS if span / step <= TICKS), span)
    short = "%H:%M" if span <= DAY else "%d %b %H:%M"
    form = "%d %b" if apart % DAY == 0 else short
    round_ = [at for at, when in enumerate(times[:-1]) if (when + ahead) % apart < 1]
    return [(at, moment(times[at], zone, form)) for at in round_]


def _numeric(cell: Cell) -> bool:
    return isinstance(cell, int | float) or (isinstance(cell, str) and _NUMBER.fullmatch(cell) is not None)


def _right(one: bool) -> str:
    return ' class="right"' if one else ""


def _cell(cell: Cell) -> str:
    match cell:
        case Html(text):
            return text
        case float():
            return f"{cell:,.2f}"
        case int():
            return f"{cell:,}"
        case str():
            return escape(cell)
