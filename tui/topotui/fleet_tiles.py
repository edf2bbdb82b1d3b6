"""A host of a fleet as one line: its GPUs as tiles in their groups, free groups, what is wrong. Pure.

Every colour has a letter or a sign beside it, so that nothing is said by colour alone.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from rich.segment import Segment
from rich.style import Style

from topoctl.render.jobs import ranges
from topoctl.render.style import printable
from topod.protocol.views import FleetRow, FreeGroup, GpuPlace, KindView
from topotui.palette import BAD_COLOR, color_of

NOTHING: Final = Style()
DIM: Final = Style(color="grey62")
BAD: Final = Style(color=BAD_COLOR, bold=True)
SEPARATOR: Final = Style(color="grey50")
LEVELS: Final = {"nvlink": "NVLink", "pcie": "PCIe", "numa": "NUMA", "socket": "socket", "any": ""}
BLOCKED: Final = {"reserved": "k", "drained": "-", "foreign": "f", "quarantined": "q", "unhealthy": "✗"}
"""The letter of a GPU that is set aside; any other: `x`."""
STATES: Final = {
    "silent": ("✗", BAD),
    "away": ("?", BAD),
    "closed": ("◌", Style(color="#e69f00")),
    "joining": ("…", DIM),
    "drained": ("◐", Style(color="#e69f00")),
    "cordoned": ("◐", Style(color="#e69f00")),
    "ready": ("●", Style(color="#009e73")),
}
"""The sign of each state, what needs somebody first."""
LEGEND: Final = (
    "H N L    a job of high, normal, low priority; small: on its way there\n"
    "·        free            k  kept for a job that waits  -  drained\n"
    "f        foreign use     ✗  unhealthy                  q  quarantined\n"
    "[ ]      joined by NVLink   |  another NUMA node   gap  another switch"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the GPUs of a kind of hosts are drawn: separators, and the indices of GPUs between them."""

    parts: tuple[str | int, ...]

    @property
    def gpus(self) -> int:
        """How many there are."""
        return sum(isinstance(part, int) for part in self.parts)

    def width(self, tile: int) -> int:
        """Return the columns it takes with tiles of that width."""
        return sum(tile if isinstance(part, int) else len(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Tile:
    """One GPU: its letter, how people name the job on it, and its style."""

    letter: str
    name: str
    style: Style


FREE_TILE: Final = Tile("·", "", DIM)


def layout_of(kind: KindView) -> Layout:
    """Return how a kind is drawn: brackets join what NVLink does, a bar parts NUMA nodes, a gap switches."""
    places = kind.gpus
    islands = Counter(place.island for place in places)
    first: dict[object, int] = {}
    for index, place in enumerate(places):
        for group in _groups(place, islands):
            first.setdefault(group, index)
    order = sorted(
        range(len(places)), key=lambda at: [*(first[one] for one in _groups(places[at], islands)), at]
    )
    parts: list[str | int] = []
    before: GpuPlace | None = None
    for index in order:
        parts += [_between(before, places[index], islands), index]
        before = places[index]
    parts.append(_between(before, None, islands))
    return Layout(tuple(part for part in parts if part != ""))


def _groups(place: GpuPlace, islands: Mapping[int, int]) -> list[tuple[int, ...]]:
    """Return the groups that a GPU is drawn in, the outermost first: its island or, without one, its node."""
    outer = (0, place.island) if islands[place.island] > 1 else (1, place.numa)
    return [outer, (*outer, place.numa), (*outer, place.numa, place.switch)]


def _between(before: GpuPlace | None, after: GpuPlace | None, islands: Mapping[int, int]) -> str:
    """Return what is drawn between two GPUs; None: the edge."""
    if before is not None and after is not None and before.island == after.island:
        return "|" if before.numa != after.numa else ""
    left = "]" if before is not None and islands[before.island] > 1 else ""
    right = "[" if after is not None and islands[after.island] > 1 else ""
    if before is None or after is None or (left and right):
        return left + right
    if before.numa != after.numa:
        return f"{left}|{right}"
    return left + right or (" " if before.switch != after.switch else "")


def plain_layout(gpus: int) -> Layout:
    """Return how GPUs are drawn of which only the number is known."""
    return Layout(tuple(range(gpus)))


def tiles_of(row: FleetRow) -> list[Tile]:
    """Return the tiles of a host by index of its GPUs.

    A GPU that is kept for somebody still shows who holds it; what is wrong with one goes before both.
    """
    tiles = [FREE_TILE] * (row.gpus or 0)
    for blocked in row.blocked:
        if blocked.state == "reserved":
            _put(tiles, blocked.gpus, Tile(BLOCKED[blocked.state], "", DIM))
    for held in row.held:
        _put(tiles, held.gpus, _held(held.priority, held.ident, reserved=held.state == "reserved"))
    for blocked in row.blocked:
        if blocked.state != "reserved":
            style = DIM if blocked.state == "drained" else BAD
            _put(tiles, blocked.gpus, Tile(BLOCKED.get(blocked.state, "x"), "", style))
    return tiles


def _put(tiles: list[Tile], mask: int, tile: Tile) -> None:
    while mask:
        index = (mask & -mask).bit_length() - 1
        mask &= mask - 1
        if index < len(tiles):
            tiles[index] = tile


@lru_cache(maxsize=1 << 15)
def _held(priority: int, ident: str, *, reserved: bool) -> Tile:
    color = color_of(priority)
    letter = "H" if priority >= 1000 else "N" if priority >= 500 else "L"
    if reserved:
        return Tile(letter.lower(), ident.partition(" ")[0], Style(color=color, bold=True))
    return Tile(letter, ident.partition(" ")[0], Style(color="black", bgcolor=color))


def strip_of(row: FleetRow, layout: Layout, tile: int) -> list[Segment]:
    """Return the GPUs of a host, each `tile` columns wide: a letter, and with room the job's number."""
    tiles = tiles_of(row)
    segments: list[Segment] = []
    run, run_style = "", NOTHING
    for part in layout.parts:
        if isinstance(part, str):
            text, style = part, SEPARATOR
        else:
            one = tiles[part] if part < len(tiles) else FREE_TILE
            text = one.letter if tile == 1 else f"{one.letter}{one.name[: tile - 1]:<{tile - 1}}"
            style = one.style
        if style is run_style:
            run += text
            continue
        if run:
            segments.append(Segment(run, run_style))
        run, run_style = text, style
    if run:
        segments.append(Segment(run, run_style))
    return segments


def groups_text(groups: Iterable[FreeGroup]) -> str:
    """Return free groups in words: `2x4 NVLink, 1x2 NUMA, 3x1`."""
    return ", ".join(
        f"{group.count}x{group.size} {LEVELS.get(group.affinity, group.affinity)}".rstrip()
        for group in groups
    )


def free_gpus(row: FleetRow) -> int:
    """Return how many GPUs of a host are free."""
    return sum(group.size * group.count for group in row.free)


def alerts_of(row: FleetRow, now: float) -> list[str]:
    """Return what is wrong with a host, in words, the worst first."""
    alerts = []
    if row.state == "silent" and row.heard_at is not None:
        alerts.append(f"not heard of for {max(0, now - row.heard_at):.0f} s")
    elif row.reason:
        alerts.append(row.reason)
    alerts += [
        f"{_gpu_names(one.gpus)} {one.state}: {one.reason}" for one in row.blocked if one.state != "reserved"
    ]
    alerts += row.troubles
    return [printable(alert) for alert in alerts]


def kept_of(row: FleetRow) -> list[str]:
    """Return for whom GPUs of a host are kept, in words."""
    return [
        printable(f"{_gpu_names(one.gpus)} {one.reason}") for one in row.blocked if one.state == "reserved"
    ]


def _gpu_names(mask: int) -> str:
    indices = [index for index in range(mask.bit_length()) if mask >> index & 1]
    return f"GPU{indices[0]}" if len(indices) == 1 else f"GPUs {ranges(indices)}"
