"""A host as a table for people: its link matrix, where its GPUs sit, and the groups they form."""

from collections.abc import Callable, Iterable, Sequence

from topod.discovery.document import gpu_state
from topod.model.cpuset import CpuSet
from topod.model.links import LinkClass
from topod.model.occupancy import Occupancy
from topod.model.topology import Gpu, Topology


def host_table(topology: Topology, occupancy: Occupancy | None = None) -> str:
    """Return the map of a host as text, with the GPUs' state where `occupancy` is known."""
    parts = [_title(topology), "", *_matrix(topology, occupancy)]
    groups = _groups(topology)
    if groups:
        parts += ["", *groups]
    return "\n".join(parts) + "\n"


def _title(topology: Topology) -> str:
    counts = [_count(len(topology.gpus), "GPU")]
    counts += [_count(len(topology.nics), "NIC")] if topology.nics else []
    counts += [_count(len(topology.sockets), "socket")] if topology.sockets else []
    counts += [_count(len(topology.numa_nodes), "NUMA node")] if topology.numa_nodes else []
    counts += [_count(len(topology.cpus), "CPU")] if topology.cpus else []
    return f"{topology.name}{' (emulated)' if topology.emulated else ''}: {', '.join(counts)}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _matrix(topology: Topology, occupancy: Occupancy | None) -> list[str]:
    heads = ["", *(f"GPU{gpu.index}" for gpu in topology.gpus), *(nic.name for nic in topology.nics)]
    heads += ["NUMA", "CPUs", *(["STATE"] if occupancy else [])]
    rows = [heads]
    for gpu in topology.gpus:
        links = [link.token if link else "X" for link in topology.links[gpu.index]]
        nics = (
            [link.token if link else "-" for link in topology.nic_links[gpu.index]]
            if topology.nic_links
            else []
        )
        nics = nics or ["-"] * len(topology.nics)
        state = [gpu_state(occupancy, gpu.index)] if occupancy else []
        rows.append([f"GPU{gpu.index}", *links, *nics, _numa(gpu), _cpus(gpu), *state])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _numa(gpu: Gpu) -> str:
    return "-" if gpu.numa_node is None else str(gpu.numa_node)


def _cpus(gpu: Gpu) -> str:
    return gpu.cpus_text or (str(gpu.cpus) if gpu.cpus else "-")


def _groups(topology: Topology) -> list[str]:
    """Return one line per kind of group that GPUs form, largest group first."""
    nodes = [gpu.numa_node for gpu in topology.gpus]

    def linked(*kinds: LinkClass) -> Callable[[int, int], bool]:
        return lambda a, b: topology.link_class(a, b) in kinds

    kinds = [
        ("NVLink", linked(LinkClass.NVLINK)),
        ("PCIe", linked(LinkClass.PIX, LinkClass.PXB)),
        ("NUMA", lambda a, b: nodes[a] is not None and nodes[a] == nodes[b]),
    ]
    lines = []
    for name, joined in kinds:
        groups = [group for group in _components(range(len(topology.gpus)), joined) if len(group) > 1]
        if groups:
            shown = "  ".join(str(CpuSet.of(group)) for group in sorted(groups, key=lambda g: (-len(g), g)))
            lines.append(f"{name + ' groups':14}{shown}")
    return lines


def _components(members: Iterable[int], joined: Callable[[int, int], bool]) -> list[Sequence[int]]:
    left = list(members)
    groups: list[Sequence[int]] = []
    while left:
        group = [left.pop(0)]
        for member in group:
            near = [other for other in left if joined(member, other)]
            group += near
            left = [other for other in left if other not in near]
        groups.append(sorted(group))
    return groups
