"""Charts as SVG text. Every text is escaped here; colours are CSS classes of the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 720
LEFT: Final = 52
RIGHT: Final = 12
TOP: Final = 18
BOTTOM: Final = 26
ROW: Final = 26
TEXT: Final = 7.0
"""About as wide is a letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """A chart of columns, each a stack of values. `titles` say of each column what it holds.

    `ticks`: below which column stands which text. `line`: a level that is drawn across, with its name.
    """

    stacks: Sequence[Sequence[float]]
    paints: Sequence[str]
    titles: Sequence[str]
    ticks: Sequence[tuple[int, str]]
    line: tuple[float, str] | None = None
    height: int = 220
    whole: bool = False
    """There are no halves of what is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A row of a chart of bars: its name, its parts in their colours, and what stands behind them."""

    name: str
    parts: Sequence[tuple[str, float]]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A row of a chart of ranges: from `low` to `high`, with a dot at `middle`."""

    name: str
    low: float
    middle: float
    high: float
    text: str


def columns(chart: Columns, label: str) -> str:
    """Return a chart of stacked columns."""
    top = max([sum(stack) for stack in chart.stacks] + ([chart.line[0]] if chart.line else []), default=0.0)
    top, step = scale(top, whole=chart.whole)
    low, high = chart.height - BOTTOM, TOP

    def level(value: float) -> float:
        return low - (low - high) * value / top

    parts = []
    for count in range(round(top / step) + 1):
        y = level(count * step)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(count * step)}</text>')
    span = (WIDTH - LEFT - RIGHT) / max(1, len(chart.stacks))
    gap = min(4.0, span * 0.18)
    for at, stack in enumerate(chart.stacks):
        x, base, drawn = LEFT + at * span, 0.0, []
        for paint, value in zip(chart.paints, stack, strict=True):
            if value > 0:
                y, bottom = level(base + value), level(base)
                drawn.append(
                    f'<rect class="{paint}" x="{x + gap / 2:.1f}" y="{y:.1f}" width="{span - gap:.1f}"'
                    f' height="{max(0.5, bottom - y):.1f}"/>'
                )
            base += value
        cover = f'<rect class="cover" x="{x:.1f}" y="{high}" width="{span:.1f}" height="{low - high}"/>'
        parts.append(f"<g><title>{escape(chart.titles[at])}</title>{''.join(drawn)}{cover}</g>")
    for at, text in chart.ticks:
        x = LEFT + at * span
        if x + TEXT * len(text) > WIDTH and at:
            continue  # it would be cut off
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{low}" y2="{low + 4}"/>')
        parts.append(f'<text x="{x + 3:.1f}" y="{low + 16}">{escape(text)}</text>')
    if chart.line is not None:
        y = level(chart.line[0])
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        name = escape(chart.line[1])
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{y - 4:.1f}" text-anchor="end">{name}</text>')
    return _svg("".join(parts), chart.height, label)


def bars(rows: Sequence[Bar], label: str, *, most: float | None = None) -> str:
    """Return a chart of horizontal bars; `most`: what the whole width stands for."""
    whole = most or max((sum(value for _, value in row.parts) for row in rows), default=0.0) or 1.0
    left, room = 150, WIDTH - 150 - 150
    parts = []
    for at, row in enumerate(rows):
        y, x = at * ROW + 4, float(left)
        drawn = []
        for paint, value in row.parts:
            width = room * value / whole
            if value > 0:
                drawn.append(
                    f'<rect class="{paint}" x="{x:.1f}" y="{y}" width="{max(1.0, width - 1):.1f}"'
                    f' height="{ROW - 8}"/>'
                )
            x += width
        parts.append(
            f"<g><title>{escape(f'{row.name}: {row.text}')}</title>{''.join(drawn)}"
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(short(row.name, 20))}</text>'
            f'<text x="{x + 8:.1f}" y="{y + 14}">{escape(row.text)}</text></g>'
        )
    return _svg("".join(parts), len(rows) * ROW + 4, label)


def ranges(rows: Sequence[Range], label: str, *, unit: str) -> str:
    """Return a chart of ranges on a logarithmic scale; zero stands at its beginning."""
    positive = [value for row in rows for value in (row.low, row.middle, row.high) if value > 0]
    first = math.floor(math.log10(min(positive, default=1.0)))
    last = max(first + 1, math.ceil(math.log10(max(positive, default=10.0))))
    left, room = 150, WIDTH - 150 - 250
    height = len(rows) * ROW + BOTTOM

    def place(value: float) -> float:
        exponent = math.log10(value) if value > 0 else first
        return left + room * (max(exponent, first) - first) / (last - first)

    parts = []
    for exponent in range(first, last + 1):
        x = place(10.0**exponent)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - BOTTOM}"/>')
        text = f"{number(10.0**exponent)} {unit}"
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{escape(text)}</text>')
    for at, row in enumerate(rows):
        y = at * ROW + ROW / 2
        begin, middle, end = place(row.low), place(row.middle), place(row.high)
        parts.append(
            f"<g><title>{escape(f'{row.name}: {row.text}')}</title>"
            f'<rect class="span" x="{begin:.1f}" y="{y - 4}" width="{max(1.0, end - begin):.1f}" height="8"/>'
            f'<circle class="dot" cx="{middle:.1f}" cy="{y}" r="6"/>'
            f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(row.name)}</text>'
            f'<text x="{left + room + 20}" y="{y + 4}">{escape(row.text)}</text></g>'
        )
    return _svg("".join(parts), height, label)


def scale(most: float, *, whole: bool = False) -> tuple[float, float]:
    """Return the end of an axis that holds `most`, and the step of its lines: 1, 2 or 5 times 10**n."""
    if most <= 0:
        return 1.0, 1.0
    rough = most / 4
    if whole:
        rough = max(1.0, rough)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return math.ceil(most / step - 1e-9) * step, step


def number(value: float) -> str:
    """Return a number as people read it: three digits, no zeros behind the point."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def short(text: str, most: int) -> str:
    """Return text of at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _svg(inside: str, height: float, label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">{inside}</svg>'
