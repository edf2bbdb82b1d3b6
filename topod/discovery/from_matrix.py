"""From a matrix of `nvidia-smi topo -m` to a Topology: what the matrix says, and nothing it does not say."""

from typing import Final

from topod.discovery.parse_smi_topo import GpuRow, Matrix
from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.links import Link
from topod.model.topology import Fact, Gpu, Nic, NumaNode, Topology

SOURCE: Final = "nvidia-smi topo -m"
_SHORTENED: Final = 3
"""So many CPUs listed one by one: nvidia-smi may have cut the list, its cell holds 15 characters."""


def topology_from_matrix(matrix: Matrix, name: str) -> Topology:
    """Return the host called `name` as far as `matrix` describes it.

    UUIDs are made up (`matrix:<name>:<index>`). NUMA nodes are those that GPUs name, with the CPUs beside
    their GPUs where these are not also beside another node's; sockets and cores are unknown.
    """
    gpus = tuple(_gpu(row, name) for row in matrix.gpus)
    devices = dict(matrix.nic_devices)
    nodes, ambiguous = _numa_nodes(gpus)
    return Topology(
        name=name,
        gpus=gpus,
        links=tuple(tuple(_link(token) for token in row) for row in matrix.links),
        nics=tuple(Nic(name=nic, device=devices.get(nic)) for nic in matrix.nics),
        nic_links=tuple(tuple(_link(token) for token in row) for row in matrix.nic_links),
        numa_nodes=nodes,
        facts=(*_facts(matrix), *ambiguous),
    )


def _gpu(row: GpuRow, name: str) -> Gpu:
    return Gpu(
        index=row.index,
        uuid=f"matrix:{name}:{row.index}",
        numa_node=row.numa_node,
        cpus=None if row.cpus is None else CpuSet.parse(row.cpus),
        cpus_text=row.cpus,
    )


def _link(cell: str) -> Link | None:
    return None if cell == "X" else Link.parse(cell)


def _numa_nodes(gpus: tuple[Gpu, ...]) -> tuple[tuple[NumaNode, ...], tuple[Fact, ...]]:
    beside: dict[int, CpuSet] = {}
    for gpu in gpus:
        if gpu.numa_node is not None:
            beside[gpu.numa_node] = beside.get(gpu.numa_node, NO_CPUS) | (gpu.cpus or NO_CPUS)
    facts: list[Fact] = []
    nodes: list[NumaNode] = []
    for node, cpus in sorted(beside.items()):
        sharers = [other for other, theirs in sorted(beside.items()) if other != node and theirs & cpus]
        if sharers:
            said = tuple(f"NUMA node {other} has some of the same CPUs" for other in sharers)
            facts.append(Fact(subject=f"numa{node}.cpus", source="unknown: ambiguous", disagrees=said))
        nodes.append(NumaNode(id=node, cpus=NO_CPUS if sharers else cpus))
    return tuple(nodes), tuple(facts)


def _facts(matrix: Matrix) -> tuple[Fact, ...]:
    facts = [Fact(subject="gpus", source=SOURCE), Fact(subject="links", source=SOURCE)]
    if matrix.nics:
        facts.append(Fact(subject="nics", source=SOURCE))
    for row in matrix.gpus:
        if row.numa_node is not None:
            facts.append(Fact(subject=f"gpu{row.index}.numa_node", source=SOURCE))
        if row.cpus is not None:
            entries = row.cpus.split(",")
            cut = len(entries) >= _SHORTENED and all(entry.isdecimal() for entry in entries)
            source = f"{SOURCE}, which may have cut the list" if cut else SOURCE
            facts.append(Fact(subject=f"gpu{row.index}.cpus", source=source))
    return tuple(facts)
