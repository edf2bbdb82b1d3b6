"""The picture of one machine as text: sockets, NUMA nodes with their cores, GPUs as tiles, links as a matrix.

Every colour has a letter or a sign beside it, so that nothing is said by colour alone.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from rich.text import Text

from topoctl.render.jobs import priority_name
from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.topology import NumaNode, Topology
from topod.protocol.views import GpuReading, GpuView, JobLine
from topotui.picture import Picture

TILE: Final = 18
MIB: Final = 1 << 20
GIB: Final = 1 << 30
PRIORITY_COLORS: Final = ((1000, "#e69f00"), (500, "#56b4e9"), (0, "#009e73"))
"""From which priority on a tile has which colour (Okabe and Ito's, that all can tell apart)."""
FREE: Final = "grey62"
BAD: Final = "bold #d55e00"
LINK_COLORS: Final = {
    "NV": "#009e73",
    "PIX": "#56b4e9",
    "PXB": "#56b4e9",
    "PHB": "#e69f00",
    "NOD": "#e69f00",
    "SYS": "#cc79a7",
}
_BAD_STATES: Final = frozenset({"foreign", "unhealthy", "drained", "quarantined"})


def machine(picture: Picture, width: int, *, taken: Iterable[int] = (), victims: Iterable[int] = ()) -> Text:
    """Return the machine in at most `width` columns.

    GPUs that a plan takes are marked as `taken`, those of whom it stops as `victims`.
    """
    topology = picture.topology
    if topology is None:
        return Text("waiting for topod ...", style="dim")
    pinned = _pinned(picture.jobs.values())
    text = Text(no_wrap=True)
    planned, red = frozenset(taken), frozenset(victims)
    shown: set[int] = set()
    for title, nodes in _sections(topology):
        if title:
            text.append(f"{title} ", style="bold").append(
                "─" * max(0, min(width, 100) - len(title) - 1) + "\n", style="dim"
            )
        for node in nodes:
            _node(text, topology, node, pinned)
            own = [gpu.index for gpu in topology.gpus if gpu.numa_node == node.id]
            shown.update(own)
            _tiles(text, picture, own, width, planned=planned, victims=red)
    loose = [gpu.index for gpu in topology.gpus if gpu.index not in shown]
    if loose:
        if topology.numa_nodes:
            text.append("NUMA node unknown\n", style="bold")
        _tiles(text, picture, loose, width, planned=planned, victims=red)
    return text


def holders(picture: Picture) -> Text:
    """Return who holds which GPUs and cores, a line each."""
    text = Text(no_wrap=True)
    for job in picture.running():
        gpus = str(CpuSet.of(job.gpu_indices)) if job.gpu_indices else "-"
        text.append(f"{job.id:>5} ", style="bold").append(f"{job.name[:16]:<16} ")
        text.append(f"{priority_name(job.priority):<7}", style=color_of(job.priority))
        text.append(f"GPUs {gpus:<9} CPUs {job.cpu_list or 'shared'}\n")
    return text if text.plain else Text("no job holds anything\n", style="dim")


def matrix(topology: Topology) -> Text:
    """Return the link matrix: the class by colour and by its letters."""
    count = len(topology.gpus)
    if count < 2:
        return Text()
    text = Text(
        "links  " + "".join(f"{index:>5}" for index in range(count)) + "\n", style="bold", no_wrap=True
    )
    for row, links in enumerate(topology.links):
        text.append(f"GPU{row:<4}")
        for link in links:
            token = link.token if link else "·"
            text.append(f"{token:>5}", style=_link_color(token))
        text.append("\n")
    return text


def color_of(priority: int) -> str:
    """Return the colour of a priority."""
    return next(color for least, color in PRIORITY_COLORS if priority >= least) if priority >= 0 else FREE


def _link_color(token: str) -> str:
    return next((color for head, color in LINK_COLORS.items() if token.startswith(head)), "dim")


def _sections(topology: Topology) -> list[tuple[str, list[NumaNode]]]:
    left = list(topology.numa_nodes)
    sections = []
    for socket in topology.sockets:
        own = [node for node in left if node.cpus and node.cpus <= socket.cpus]
        left = [node for node in left if node not in own]
        sections.append((f"socket {socket.id}", own))
    used = {gpu.numa_node for gpu in topology.gpus}
    rest = [node for node in left if node.cpus or node.id in used]
    return [*sections, ("", rest)] if rest else sections


def _pinned(jobs: Iterable[JobLine]) -> CpuSet:
    pinned = NO_CPUS
    for job in jobs:
        if job.cpu_list and job.state != "pending":
            pinned |= CpuSet.parse(job.cpu_list)
    return pinned


def _node(text: Text, topology: Topology, node: NumaNode, pinned: CpuSet) -> None:
    free = len(node.cpus - pinned)
    text.append(f" NUMA {node.id}", style="bold")
    text.append(f"  CPUs {node.cpus}  {free}/{len(node.cpus)} free  " if node.cpus else "  memory only")
    for group in topology.core_groups:
        if group.cpus <= node.cpus:
            held = len(group.cpus & pinned)
            sign = "▯" if not held else "▮" if held == len(group.cpus) else "▥"
            text.append(sign, style=FREE if not held else "#56b4e9")
    text.append("\n")


def _tiles(
    text: Text,
    picture: Picture,
    indices: Sequence[int],
    width: int,
    *,
    planned: frozenset[int],
    victims: frozenset[int],
) -> None:
    across = max(1, (width - 1) // TILE)
    across = 8 if across >= 8 else 4 if across >= 4 else 2 if across >= 2 else 1
    for start in range(0, len(indices), across):
        rows: list[list[tuple[str, str]]] = [
            _tile(
                picture.gpus.get(index),
                picture.readings.get(index),
                index,
                planned=index in planned,
                victim=index in victims,
            )
            for index in indices[start : start + across]
        ]
        for line in range(4):
            text.append(" ")
            for tile in rows:
                text.append(*tile[line])
            text.append("\n")


def _tile(
    gpu: GpuView | None, reading: GpuReading | None, index: int, *, planned: bool, victim: bool
) -> list[tuple[str, str]]:
    """Return the four lines of one GPU with their styles, each `TILE` columns wide."""
    who, style = _who(gpu)
    if victim:
        who, style = f"✗ stop {who.lstrip('▮ ')}", BAD
    elif planned:
        who, style = f"★ {who}", "bold"
    inner = TILE - 3
    mark = "═" if planned or victim else "─"
    head = f"┌{mark} GPU{index} "
    head += mark * (TILE - 2 - len(head)) + "┐"
    foot = "└" + mark * (TILE - 3) + "┘"
    return [
        (head + " ", style),
        (f"│{who[:inner]:<{inner}}│ ", style),
        (f"│{_measures(reading)[:inner]:<{inner}}│ ", style),
        (foot + " ", style),
    ]


def _who(gpu: GpuView | None) -> tuple[str, str]:
    if gpu is None:
        return "?", FREE
    name = gpu.ident or ("" if gpu.job is None else str(gpu.job))
    coming = "" if gpu.next_job is None else f"→{gpu.next_ident or gpu.next_job}"
    if gpu.marks and gpu.state in _BAD_STATES:
        return f"✗ {gpu.state} {name}".rstrip(), BAD
    if gpu.priority is None:
        return "▯ free", FREE
    prio, color = priority_name(gpu.priority), color_of(gpu.priority)
    sign = {"releasing": "◐", "reserved": "◌"}.get(gpu.state, "▮")
    mark = " ✗" if gpu.marks else ""
    return f"{sign} {name}{coming} {prio}{mark}", color


def _measures(reading: GpuReading | None) -> str:
    if reading is None:
        return ""
    if reading.problem:
        return reading.problem
    words = []
    if reading.utilisation_percent is not None:
        words.append(f"{reading.utilisation_percent}%")
    if reading.memory_used_bytes is not None:
        used = f"{reading.memory_used_bytes / GIB:.0f}"
        words.append(f"{used}/{reading.memory_bytes / GIB:.0f}G" if reading.memory_bytes else f"{used}G")
    if reading.temperature_celsius is not None:
        words.append(f"{reading.temperature_celsius}°")
    return " ".join(words)


def free_groups(picture: Picture) -> str:
    """Return how many GPUs are free."""
    free = [gpu.index for gpu in picture.gpus.values() if gpu.state == "free"]
    return f"{len(free)} of {len(picture.gpus)} GPUs free" if picture.gpus else ""
