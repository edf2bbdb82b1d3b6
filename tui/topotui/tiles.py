"""One GPU as a tile: who has it, what it measures, whether it is well. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rich.cells import cell_len

from topoctl.render.jobs import priority_name
from topoctl.render.style import printable
from topod.model.cpuset import NO_CPUS, CpuSet
from topod.protocol.views import GpuReading, GpuView
from topotui.blocks import Block, Part, block, fit
from topotui.palette import BAD, FRAME, FREE, TAKEN, color_of

GIB: Final = 1 << 30
SMALL: Final = 18
BIG: Final = 22
"""Columns of a tile with its border, the small and the big one."""
BAD_STATES: Final = frozenset({"foreign", "unhealthy", "drained", "quarantined"})
TALLEST: Final = 6
"""Lines of a big tile."""
_HEAD: Final = re.compile(r"[┌╔][─═] GPU(\d+)[^┐╗]*[┐╗]")
_SIGNS: Final = {"releasing": "◐", "reserved": "◌"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What a plan does on a host: indices of GPUs that it takes, and that jobs lose which it stops; CPUs."""

    taken: frozenset[int] = frozenset()
    stopped: frozenset[int] = frozenset()
    cpus: CpuSet = NO_CPUS


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuNow:
    """All that a tile shows of a GPU."""

    index: int
    view: GpuView | None = None
    reading: GpuReading | None = None
    memory_bytes: int | None = None
    """As the host's document says it, for a GPU that nobody reads."""
    island: str = ""
    """The letter of its NVLink island."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Names of jobs by their numbers."""


def tile(gpu: GpuNow, marks: Marks, *, big: bool) -> Block:
    """Return the tile: four lines, a big one six."""
    width = BIG if big else SMALL
    who, style = _who(gpu, marks)
    name = _name(gpu)
    inner: list[list[Part]]
    if big:
        inner = [
            [(fit(who, width - 2), style)],
            [(fit(f"  {name}" if name else "", width - 2), style)],
            *_bars(gpu, width - 2),
        ]
    else:
        inner = [
            [(fit(f"{who} {name}".rstrip(), width - 2), style)],
            [(fit(_measures(gpu), width - 2), _calm(gpu))],
        ]
    edge = style if marks.taken or marks.stopped else FRAME if style == FREE else style
    return block(_framed(gpu, inner, marks, edge, width), width)


def gpu_at(picture: Block, column: int, line: int) -> int | None:
    """Return the index of the GPU on whose tile in a picture this cell is; None: on nobody's."""
    rows = [_cells("".join(part for part, _ in one)) for one in picture.lines]
    for top in range(min(line, picture.height - 1), max(-1, line - TALLEST), -1):
        for head in _HEAD.finditer(rows[top]):
            if head.start() <= column < head.end():
                foot = next((at for at in range(top, picture.height) if rows[at][head.start()] in "└╚"), top)
                return int(head[1]) if line <= foot else None
    return None


def notes(views: Mapping[int, GpuView], readings: Mapping[int, GpuReading]) -> list[str]:
    """Return what is wrong with GPUs, in sentences."""
    lines = []
    for index, view in sorted(views.items()):
        if view.marks or (view.state in BAD_STATES and view.reason):
            lines.append(f"✗ GPU{index} {printable(view.reason or view.state)}")
    for index, reading in sorted(readings.items()):
        if reading.problem:
            lines.append(f"✗ GPU{index} cannot be read: {printable(reading.problem)}")
        elif reading.slowdown:
            lines.append(f"! GPU{index} is slowed down: {printable(reading.slowdown)}")
    return lines


def health(gpu: GpuNow) -> str:
    """Return how a GPU is, in a word or two: `ok`, `✗ unhealthy`, `! slow`."""
    view, reading = gpu.view, gpu.reading
    if view is not None and view.marks:
        return f"✗ {view.marks[0]}"
    if reading is not None and reading.problem:
        return "✗ unreadable"
    if reading is not None and reading.slowdown:
        return "! slow"
    if view is not None and view.idle_since is not None:
        return "idle"
    return "ok" if view is not None else "?"


def _cells(text: str) -> str:
    """Return a text with a character for each column: a wide one is followed by a blank."""
    return "".join(char.ljust(cell_len(char)) for char in text)


def _framed(gpu: GpuNow, inner: list[list[Part]], marks: Marks, edge: str, width: int) -> list[list[Part]]:
    taken = gpu.index in marks.taken
    left, across, right, down, low_left, low_right = "╔═╗║╚╝" if taken else "┌─┐│└┘"
    sign = "" if not taken else " ★ takes" if width == BIG else " ★"
    head = f"{left}{across} GPU{gpu.index}{sign} "
    tail = f" {gpu.island} {across}{right}" if gpu.island else right
    head += across * (width - len(head) - len(tail)) + tail
    word = f" {health(gpu)} "
    foot = low_left + across * (width - 3 - len(word)) + word + across + low_right
    frame = TAKEN if taken else edge
    lines: list[list[Part]] = [[(head, frame)]]
    lines += [[(down, frame), *line, (down, frame)] for line in inner]
    bad = word.startswith((" ✗", " !"))
    return [*lines, [(foot, BAD if bad and not taken else frame)]]


def _who(gpu: GpuNow, marks: Marks) -> tuple[str, str]:
    view = gpu.view
    if view is None:
        return "?", FREE
    name = printable(view.ident or ("" if view.job is None else str(view.job)))
    coming = "" if view.next_job is None else f"→{printable(view.next_ident or str(view.next_job))}"
    priority = "" if view.priority is None else f" {priority_name(view.priority)}"
    if gpu.index in marks.stopped:
        return f"✗ stops {name}{priority}", BAD
    if view.state in BAD_STATES:
        return f"✗ {view.state} {name}".rstrip(), BAD
    if view.priority is None:
        return "▯ free", FREE
    return f"{_SIGNS.get(view.state, '▮')} {name}{coming}{priority}", color_of(view.priority)


def _name(gpu: GpuNow) -> str:
    job = None if gpu.view is None else gpu.view.job
    return "" if job is None else printable(gpu.names.get(job, ""))


def _calm(gpu: GpuNow) -> str:
    return BAD if gpu.reading is not None and gpu.reading.problem else "" if gpu.reading else FREE


def _measures(gpu: GpuNow) -> str:
    """Return utilisation, memory and temperature in 16 columns: `100% 128/141G 61°`."""
    reading = gpu.reading
    if reading is None:
        return f"{gpu.memory_bytes / GIB:.0f} GiB" if gpu.memory_bytes else ""
    if reading.problem:
        return reading.problem
    words = []
    if reading.utilisation_percent is not None:
        words.append(f"{reading.utilisation_percent}%")
    if (memory := _memory(gpu)) is not None:
        words.append(f"{memory}G")
    if reading.temperature_celsius is not None:
        words.append(f"{reading.temperature_celsius}°")
    return " ".join(words)


def _bars(gpu: GpuNow, width: int) -> list[list[Part]]:
    reading = gpu.reading
    if reading is None or reading.problem:
        return [[(fit(_measures(gpu), width), _calm(gpu))], [(" " * width, "")]]
    used, share, memory = reading.utilisation_percent, _share(gpu), _memory(gpu)
    warm = "" if reading.temperature_celsius is None else f"{reading.temperature_celsius}°C"
    first = "" if used is None else f"{_bar(used / 100)} {used:>3}%"
    second = "" if memory is None else f"{memory}G" if share is None else f"{_bar(share)} {memory}G"
    rows = [f"{fit(first, width - len(warm) - 1)} {warm}" if first or warm else "", second]
    # What measures nothing leaves its line to what does.
    return [[(fit(row, width), "")] for row in sorted(rows, key=lambda row: not row)]


def _bar(share: float) -> str:
    full = round(8 * min(1.0, max(0.0, share)))
    return "█" * full + "░" * (8 - full)


def _share(gpu: GpuNow) -> float | None:
    reading, whole = gpu.reading, _whole(gpu)
    if reading is None or reading.memory_used_bytes is None or not whole:
        return None
    return reading.memory_used_bytes / whole


def _memory(gpu: GpuNow) -> str | None:
    reading, whole = gpu.reading, _whole(gpu)
    if reading is None or reading.memory_used_bytes is None:
        return None
    used = f"{reading.memory_used_bytes / GIB:.0f}"
    return f"{used}/{whole / GIB:.0f}" if whole else used


def _whole(gpu: GpuNow) -> int | None:
    return (gpu.reading.memory_bytes if gpu.reading else None) or gpu.memory_bytes
