"""The hosts of a fleet as lines of a table: which of them, in which order, in which columns. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from rich.segment import Segment
from rich.style import Style

from topoctl.render.jobs import priority_name
from topoctl.render.style import printable
from topod.protocol.views import FleetRow, FreeGroup, JobLine
from topotui.blocks import fit
from topotui.fleet_tiles import (
    BAD,
    DIM,
    NOTHING,
    STATES,
    Layout,
    alerts_of,
    free_gpus,
    groups_text,
    plain_layout,
    strip_of,
)

SORTS: Final = ("host", "state", "free", "group", "jobs", "alerts")
"""What the lines can be sorted by; a key goes from one to the next."""
HEAD: Final = Style(bold=True, reverse=True)
_RANK: Final = {state: number for number, state in enumerate(STATES)}
_DIGITS: Final = re.compile(r"(\d+)")
STATE_WIDTH: Final = 10
JOBS_WIDTH: Final = 6
ALERTS_LEAST: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """How wide what is. Between two columns lies one that is empty."""

    width: int
    name: int
    tile: int
    tiles: int
    free: int

    @property
    def alerts(self) -> int:
        """What is left to say what is wrong."""
        return max(0, self.width - self.name - STATE_WIDTH - self.tiles - self.free - JOBS_WIDTH - 5)


def columns_for(width: int, name: int, layouts: Iterable[Layout]) -> Columns:
    """Return the columns for a line of that width; `name`: of the longest name. With room tiles are wide."""
    layouts = list(layouts)
    name = min(max(name, 4), 24 if width >= 120 else 12)
    free = 34 if width >= 160 else 24 if width >= 110 else 18
    rest = width - name - STATE_WIDTH - free - JOBS_WIDTH - 5
    for tile in (5, 4, 1):
        tiles = max([4, *(layout.width(tile) for layout in layouts)])
        if tiles + (ALERTS_LEAST if tile == 1 else 2 * ALERTS_LEAST) <= rest or tile == 1:
            return Columns(width=width, name=name, tile=tile, tiles=min(tiles, max(4, rest)), free=free)
    raise AssertionError("the last width is always taken")


def heading(columns: Columns, sort: str, *, backwards: bool) -> list[Segment]:
    """Return the first line; the column by which the others are sorted has a mark."""
    mark = "▲" if backwards else "▼"

    def title(name: str, text: str, width: int) -> str:
        return f"{(text + mark if sort == name else text)[:width]:<{width}}"

    parts = [
        title("host", "HOST", columns.name),
        title("state", "STATE", STATE_WIDTH),
        title("", "GPUS", columns.tiles),
        title(
            "free" if sort == "free" else "group", "FREE" if sort == "free" else "FREE GROUPS", columns.free
        ),
        title("jobs", "JOBS", JOBS_WIDTH),
        title("alerts", "ALERTS", columns.alerts),
    ]
    return [Segment(" ".join(parts)[: columns.width].ljust(columns.width), HEAD)]


def line_of(row: FleetRow, layouts: Mapping[str, Layout], columns: Columns, now: float) -> list[Segment]:
    """Return the line of one host."""
    sign, style = STATES.get(row.state, ("?", BAD))
    gone = row.state in ("silent", "away")
    segments = [
        Segment(f"{fit(printable(row.name), columns.name)} ", DIM if gone else NOTHING),
        Segment(f"{sign} {row.state:<{STATE_WIDTH - 2}} "[: STATE_WIDTH + 1], style),
    ]
    if row.gpus is None:
        segments.append(Segment(f"{'?':<{columns.tiles}} ", DIM))
    else:
        layout = layouts.get(row.kind)
        if layout is None or layout.gpus != row.gpus:
            layout = plain_layout(row.gpus)
        strip = strip_of(row, layout, columns.tile)
        pad = columns.tiles - sum(len(segment.text) for segment in strip)
        segments += strip if pad >= 0 else _cut(strip, columns.tiles)
        segments.append(Segment(" " * (max(0, pad) + 1)))
    free = "" if row.gpus is None or gone else groups_text(row.free) or "-"
    segments.append(Segment(f"{fit(free, columns.free)} "))
    jobs = f"{row.jobs}+{row.waiting}" if row.waiting else str(row.jobs or "")
    segments.append(Segment(f"{jobs:<{JOBS_WIDTH}} "))
    segments.append(Segment(fit("; ".join(alerts_of(row, now)), columns.alerts), BAD if gone else NOTHING))
    return segments


def _cut(strip: list[Segment], width: int) -> list[Segment]:
    found = []
    for text, style, _ in strip:
        if width <= 0:
            break
        found.append(Segment(text[:width], style))
        width -= len(text)
    return found


# --- which, and in which order ------------------------------------------------------------------------------


def fits(row: FleetRow, words: Iterable[str]) -> bool:
    """Say whether a host has all these words (lower case); `job:12` is on the host of that job."""
    text = _text(row)
    return all(
        word in text or any(word == f"job:{held.ident.lower()}" for held in row.held) for word in words
    )


def _text(row: FleetRow) -> str:
    parts = [row.name, row.state, row.kind, row.reason, *row.troubles]
    parts += [f"{key}={value}" for key, value in row.labels.items()]
    parts += [f"{one.state} {one.reason}" for one in row.blocked]
    return " ".join(parts).lower()


@lru_cache(maxsize=1 << 14)
def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that puts `gpu-9` before `gpu-10`."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(name))


def order(rows: Mapping[str, FleetRow], text: str, sort: str, *, backwards: bool) -> list[str]:
    """Return the names of the hosts that have the words of `text`, in the order of a column."""
    words = text.lower().split()
    found = [row for row in rows.values() if fits(row, words)] if words else list(rows.values())
    found.sort(key=lambda row: natural(row.name))
    if sort != "host":
        found.sort(key=lambda row: _weight(row, sort))
    if backwards:
        found.reverse()
    return [row.name for row in found]


def _weight(row: FleetRow, sort: str) -> tuple[int, ...]:
    """Return what lines are sorted by before their names; the lowest first."""
    match sort:
        case "state":
            return (_RANK.get(row.state, -1),)
        case "free":
            return (-free_gpus(row),)
        case "group":
            largest = max((group.size for group in row.free if group.affinity != "any"), default=0)
            return (-largest, -free_gpus(row))
        case "jobs":
            return (-row.jobs,)
        case _:
            wrong = sum(1 for one in row.blocked if one.state not in ("reserved", "drained"))
            return (_RANK.get(row.state, -1), -wrong - len(row.troubles))


# --- the whole fleet ----------------------------------------------------------------------------------------


def fleet_words(rows: Mapping[str, FleetRow]) -> tuple[str, str]:
    """Return how the hosts stand and how many GPUs of those that take jobs are free; and in which groups."""
    states = Counter(row.state for row in rows.values())
    groups: Counter[tuple[str, int]] = Counter()
    for row in rows.values():
        if row.state == "ready":
            for group in row.free:
                groups[group.affinity, group.size] += group.count
    gpus = sum(row.gpus or 0 for row in rows.values() if row.state == "ready")
    free = sum(size * count for (_, size), count in groups.items())
    told = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    some = groups_text(
        FreeGroup(affinity, size, count)
        for (affinity, size), count in sorted(groups.items(), key=lambda one: (-one[0][1], one[0][0]))
    )
    hosts = "1 host" if len(rows) == 1 else f"{len(rows)} hosts"
    return f"{hosts}: {told or 'none'} · {free}/{gpus} GPUs free", some


def queue_words(jobs: Iterable[JobLine], *, brief: bool = False) -> str:
    """Return how many jobs run and wait; unless it is to be brief, those by priority."""
    waiting: Counter[int] = Counter()
    on = 0
    for job in jobs:
        if job.state == "pending":
            waiting[job.effective_priority or job.priority] += 1
        else:
            on += 1
    by = ", ".join(
        f"{count} {priority_name(priority)}" for priority, count in sorted(waiting.items(), reverse=True)[:4]
    )
    count = f"{on} on, {sum(waiting.values())} waiting"
    return count if brief else f"jobs: {count}{f' ({by})' if by else ''}"
