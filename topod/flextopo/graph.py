"""The host as a graph (FlexTopo): what contains what, what is local to what, how GPUs and NICs are linked."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from topod.model.cpuset import CpuSet
from topod.model.links import LinkClass
from topod.model.topology import Topology


class NodeKind(StrEnum):
    """What a node of the graph is."""

    SOCKET = "socket"
    NUMA = "numa"
    CORE_GROUP = "core-group"
    CORE = "core"
    CPU = "cpu"
    GPU = "gpu"
    NIC = "nic"


class EdgeKind(StrEnum):
    """What an edge of the graph says."""

    CONTAINS = "contains"
    LOCAL = "local"
    LINK = "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node; `key` is unique in its graph: `numa0`, `cpu17`, `gpu3`, `nic0`."""

    kind: NodeKind
    key: str
    name: str = ""
    """What people call it where that differs from `key`: a GPU's UUID, a NIC's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One edge between two node keys. `link` and `nvlinks` (bonded NVLinks) are set on links only."""

    kind: EdgeKind
    start: str
    end: str
    link: LinkClass | None = None
    nvlinks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """All nodes and edges of a host; containers come before what they contain. Links are listed once."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class _Level:
    """One level of containment: (key, CPUs) of each node."""

    kind: NodeKind
    members: tuple[tuple[str, CpuSet], ...]


def graph(topology: Topology) -> Graph:
    """Return the graph of `topology`; levels that no source knows are absent from it."""
    levels = _levels(topology)
    nodes = [Node(kind=level.kind, key=key) for level in levels for key, _ in level.members]
    nodes += [Node(kind=NodeKind.GPU, key=f"gpu{gpu.index}", name=gpu.uuid) for gpu in topology.gpus]
    nodes += [Node(kind=NodeKind.NIC, key=f"nic{n}", name=nic.name) for n, nic in enumerate(topology.nics)]
    return Graph(nodes=tuple(nodes), edges=(*_contains(levels), *_local(topology), *_links(topology)))


def _levels(topology: Topology) -> list[_Level]:
    groups: list[tuple[NodeKind, str, Iterable[tuple[int, CpuSet]]]] = [
        (NodeKind.SOCKET, "socket", ((each.id, each.cpus) for each in topology.sockets)),
        (NodeKind.NUMA, "numa", ((each.id, each.cpus) for each in topology.numa_nodes)),
        (NodeKind.CORE_GROUP, "core-group", ((each.id, each.cpus) for each in topology.core_groups)),
        (NodeKind.CORE, "core", ((each.id, each.cpus) for each in topology.cores)),
        (NodeKind.CPU, "cpu", ((cpu, CpuSet.of([cpu])) for cpu in topology.cpus)),
    ]
    levels = [
        _Level(kind, tuple((f"{word}{number}", cpus) for number, cpus in each)) for kind, word, each in groups
    ]
    return [level for level in levels if level.members]


def _contains(levels: list[_Level]) -> list[Edge]:
    """Join every node to the nearest level above that has one node around it.

    Where an L3 cache spans NUMA nodes, its cores hang below their NUMA node too.
    """
    edges: list[Edge] = []
    above_of: dict[str, frozenset[str]] = {}
    for depth, level in enumerate(levels):
        for key, cpus in level.members:
            reached: set[str] = set()
            for above in reversed(levels[:depth]):
                parent = next((up for up, around in above.members if cpus and cpus <= around), None)
                if parent is not None and parent not in reached:
                    edges.append(Edge(kind=EdgeKind.CONTAINS, start=parent, end=key))
                    reached |= {parent} | above_of[parent]
            above_of[key] = frozenset(reached)
    return edges


def _local(topology: Topology) -> list[Edge]:
    known = {node.id for node in topology.numa_nodes}
    places = [(f"gpu{gpu.index}", gpu.numa_node) for gpu in topology.gpus]
    places += [(f"nic{number}", nic.numa_node) for number, nic in enumerate(topology.nics)]
    return [Edge(kind=EdgeKind.LOCAL, start=f"numa{numa}", end=key) for key, numa in places if numa in known]


def _links(topology: Topology) -> list[Edge]:
    edges: list[Edge] = []
    for i, row in enumerate(topology.links):
        for j, link in enumerate(row):
            if link is not None and i < j:
                edge = Edge(
                    kind=EdgeKind.LINK, start=f"gpu{i}", end=f"gpu{j}", link=link.kind, nvlinks=link.lanes
                )
                edges.append(edge)
    for i, row in enumerate(topology.nic_links):
        for n, link in enumerate(row):
            if link is not None:
                edges.append(Edge(kind=EdgeKind.LINK, start=f"gpu{i}", end=f"nic{n}", link=link.kind))
    return edges
