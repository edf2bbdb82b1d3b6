"""The map of a host: its sockets and NUMA nodes with CPUs and GPUs as tiles, and the links between GPUs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from topoctl.render.jobs import priority_name
from topoctl.render.style import PLAIN, Style, printable
from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.occupancy import Occupancy
from topod.model.topology import Gpu, NumaNode, Topology
from topod.protocol.views import GpuView

UNKNOWN_NODE = -1
_NOWHERE = "on no socket"
_BAD = frozenset({"foreign", "unhealthy", "drained", "quarantined"})
USED_ALL_THE_SAME = "used all the same"
"""How the reason of a GPU begins whose marks an administrator set aside."""
_COLORS = {"held": "green", "releasing": "yellow", "reserved": "cyan", "free": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMap:
    """What the map shows. `pinned`: CPUs that no job can get; `notes`: sentences below the map."""

    topology: Topology
    gpus: Sequence[GpuView]
    pinned: CpuSet = NO_CPUS
    subtitle: str = ""
    notes: Sequence[str] = ()


def host_map(host: HostMap, style: Style) -> str:
    """Return the map as text; only a link matrix of many GPUs can be wider than `style.width`."""
    topology = host.topology
    title = f"{topology.name} ({host.subtitle})" if host.subtitle else topology.name
    lines = [style.paint(printable(title), "bold"), _summary(topology)]
    lines += _places(host, style)
    if len(topology.gpus) > 1:
        lines += ["", *_links(topology, style)]
    notes = [printable(note) for note in _notes(host)]
    lines += ["", *notes] if notes else []
    lines += ["", style.paint(_legend(host, style), "dim")]
    return "\n".join(lines) + "\n"


def views(topology: Topology, occupancy: Occupancy | None) -> list[GpuView]:
    """Return the GPUs of a host read from a file as a live one shows them."""
    return [_view(gpu, occupancy or Occupancy()) for gpu in topology.gpus]


def pinned(occupancy: Occupancy | None) -> CpuSet:
    """Return all CPUs that no job can get: pinned, reserved, or in foreign use."""
    if occupancy is None:
        return NO_CPUS
    taken = [*(holder.cpus for holder in occupancy.holders), *(block.cpus for block in occupancy.blocks)]
    return reduce(or_, taken, NO_CPUS)


def _view(gpu: Gpu, occupancy: Occupancy) -> GpuView:
    state, job, priority, reason = "free", None, None, ""
    for holder in occupancy.holders:
        if holder.gpus >> gpu.index & 1:
            state, priority = "held", holder.priority
            job = int(holder.job) if holder.job.isdecimal() else None
            reason = holder.job
    for block in occupancy.blocks:
        if block.gpus >> gpu.index & 1:
            kind = block.reason.split(":")[0].split()[0] if block.reason else ""
            state, reason = kind if kind in {*_BAD, "reserved"} else "foreign", block.reason
    return GpuView(
        index=gpu.index,
        uuid=gpu.uuid,
        name=gpu.name,
        numa_node=gpu.numa_node,
        state=state,
        job=job,
        priority=priority,
        reason=reason,
    )


def _summary(topology: Topology) -> str:
    models = sorted({gpu.name for gpu in topology.gpus if gpu.name})
    parts = [f"{len(topology.gpus)} x {models[0]}" if len(models) == 1 else _count(len(topology.gpus), "GPU")]
    parts += [_count(len(topology.sockets), "socket")] if topology.sockets else []
    parts += [_count(len(topology.numa_nodes), "NUMA node")] if topology.numa_nodes else []
    parts += [_count(len(topology.cpus), "CPU")] if topology.cpus else []
    return printable(", ".join(parts))


def _places(host: HostMap, style: Style) -> list[str]:
    topology = host.topology
    by_node: dict[int, list[int]] = {}
    for gpu in topology.gpus:
        by_node.setdefault(UNKNOWN_NODE if gpu.numa_node is None else gpu.numa_node, []).append(gpu.index)
    tiles = _tiles(host, style)
    heads = _heads(host, style)
    # Tiles stand behind their node where that fits for every node, else on lines of their own.
    beside = max((len(head) for head in heads.values()), default=0) + 3
    widest = max((len(row) for row in _plain_rows(by_node, heads, tiles)), default=0)
    inline = beside + widest <= style.width
    lines: list[str] = []
    placed: set[int] = set()
    for title, nodes in _sections(topology):
        lines += ["", *([style.paint(title, "bold")] if title else [])]
        for node in nodes:
            placed.add(node.id)
            own = [tiles[index] for index in by_node.get(node.id, [])]
            if not inline or not own:
                lines += [heads[node.id], *_rows(own, style)]
            else:
                lines.append(heads[node.id].ljust(beside) + _row(own, _tile_width(own), style))
        empty = _ids(node for node in topology.numa_nodes if not node.cpus and not by_node.get(node.id))
        if title == _NOWHERE and empty:
            lines.append(f"  NUMA {empty}  memory only")
    loose = [index for node, indices in by_node.items() if node not in placed for index in indices]
    if loose:
        title = "GPUs whose NUMA node is unknown" if topology.numa_nodes else "GPUs"
        lines += ["", style.paint(title, "bold"), *_rows([tiles[index] for index in loose], style)]
    return lines


def _sections(topology: Topology) -> list[tuple[str, list[NumaNode]]]:
    """Return the NUMA nodes by socket; those of no socket last, without the ones that hold memory only."""
    used = {gpu.numa_node for gpu in topology.gpus}
    sections = []
    left = list(topology.numa_nodes)
    for socket in topology.sockets:
        nodes = [node for node in left if node.cpus and node.cpus <= socket.cpus]
        left = [node for node in left if node not in nodes]
        sections.append((f"socket {socket.id}", nodes))
    if left:
        shown = [node for node in left if node.cpus or node.id in used]
        sections.append((_NOWHERE if topology.sockets else "", shown))
    return sections


def _heads(host: HostMap, style: Style) -> dict[int, str]:
    """Return the text of each NUMA node, in columns: its CPUs, how many are free, its core groups."""
    rows = {}
    for node in host.topology.numa_nodes:
        groups = [group.cpus for group in host.topology.core_groups if group.cpus <= node.cpus]
        free = len(node.cpus - host.pinned)
        rows[node.id] = (
            f"  NUMA {node.id}",
            f"CPUs {node.cpus}" if node.cpus else "memory only",
            f"{free}/{len(node.cpus)} free" if node.cpus else "",
            "".join(_meter(group, host.pinned, style) for group in groups),
        )
    widths = [max((len(row[column]) for row in rows.values()), default=0) for column in range(4)]
    return {
        ident: "  ".join(
            (row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2].rjust(widths[2]), row[3])
        ).rstrip()
        for ident, row in rows.items()
    }


def _plain_rows(
    by_node: Mapping[int, Sequence[int]], heads: Mapping[int, str], tiles: Mapping[int, "_Tile"]
) -> list[str]:
    rows = []
    for node, indices in by_node.items():
        own = [tiles[index] for index in indices]
        if node in heads and own:
            rows.append(_row(own, _tile_width(own), PLAIN))
    return rows


def _ids(nodes: Iterable[NumaNode]) -> str:
    return str(CpuSet.of(node.id for node in nodes))


def _meter(group: CpuSet, held: CpuSet, style: Style) -> str:
    """Return one sign for a core group: free, partly pinned, all pinned."""
    taken = len(group & held)
    signs = "▯▥▮" if style.unicode else ".+#"
    return signs[0] if not taken else signs[2] if taken == len(group) else signs[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tile:
    text: str
    color: str


def _tiles(host: HostMap, style: Style) -> dict[int, _Tile]:
    return {gpu.index: _tile(gpu, style) for gpu in host.gpus}


def _tile(gpu: GpuView, style: Style) -> _Tile:
    held, free, arrow = ("▮", "▯", "→") if style.unicode else ("#", ".", ">")
    job = printable(gpu.ident or str(gpu.job))
    who = job if gpu.job is not None else printable(gpu.reason)[:12]
    prio = "" if gpu.priority is None else f" {priority_name(gpu.priority)}"
    following = "" if gpu.next_job is None else f"{arrow}{printable(gpu.next_ident or str(gpu.next_job))}"
    match gpu.state:
        case "free":
            text = f"{free} free"
        case "held" | "starting":
            text = f"{held}{who}{following}{prio}"
        case "releasing":
            text = f"{held}{who}{following or arrow}{prio}"
        case "reserved":
            text = f"{free}{following or arrow + who}{prio}"
        case _:
            owner = f" {held}{job}" if gpu.job is not None else ""
            text = f"{'✗' if style.unicode else '!'} {gpu.state}{owner}"
    # A mark beside its job: it goes on, and nobody comes after it.
    if gpu.marks and gpu.state not in _BAD:
        text += f" {'✗' if style.unicode else '!'}{gpu.marks[0]}"
    color = "red" if gpu.marks else _COLORS.get(gpu.state, "red")
    return _Tile(text=f"GPU{gpu.index} {text}", color=color)


def _rows(tiles: Sequence[_Tile], style: Style) -> list[str]:
    if not tiles:
        return []
    width = _tile_width(tiles)
    # Four a line where they fit: pairs and quads of GPUs stand together.
    fit = max(1, (style.width - 4) // width)
    fit = 4 if fit >= 4 else 2 if fit >= 2 else 1
    rows = [tiles[start : start + fit] for start in range(0, len(tiles), fit)]
    return ["    " + _row(row, width, style) for row in rows]


def _tile_width(tiles: Sequence[_Tile]) -> int:
    return max(len(tile.text) for tile in tiles) + 3


def _row(tiles: Sequence[_Tile], width: int, style: Style) -> str:
    painted = [style.paint(tile.text, tile.color) + " " * (width - len(tile.text)) for tile in tiles]
    return "".join(painted).rstrip()


def _links(topology: Topology, style: Style) -> list[str]:
    tokens = [[link.token if link else "-" for link in row] for row in topology.links]
    kinds = {token for i, row in enumerate(tokens) for j, token in enumerate(row) if i != j}
    if len(kinds) == 1:
        return [f"{style.paint('links', 'bold')}  {next(iter(kinds))} between all GPUs"]
    heads = [str(gpu.index) for gpu in topology.gpus]
    width = max(len(token) for token in (*kinds, *heads)) + 1
    lines = [style.paint("links", "bold") + " " + "".join(head.rjust(width) for head in heads)]
    for head, row in zip(heads, tokens, strict=True):
        cells = (style.paint(t.rjust(width), "green") if t.startswith("NV") else t.rjust(width) for t in row)
        lines.append(f"GPU{head:<2} " + "".join(cells))
    return lines


def _legend(host: HostMap, style: Style) -> str:
    held, partly, free = ("▮", "▥", "▯") if style.unicode else ("#", "+", ".")
    text = f"GPUs: {held}job priority, {free} free"
    if host.topology.core_groups:
        text += f"; core groups: {free} free, {partly} partly pinned, {held} pinned"
    return text


def _notes(host: HostMap) -> Iterable[str]:
    for gpu in host.gpus:
        # A GPU that is held can be drained as well; one that is unwell can be used all the same.
        told = gpu.reason.startswith((*_BAD, USED_ALL_THE_SAME))
        if gpu.reason and (gpu.state in _BAD or told):
            yield f"GPU{gpu.index} {gpu.reason if told else f'{gpu.state}: {gpu.reason}'}"
    yield from host.notes


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
