"""The CPUs of a host as areas (NUMA nodes), core groups (shared L3) and cores, to take whole ones first."""

from topod.model.topology import Topology


class CoreMap:
    """Areas, groups and cores as CPU masks; without data a CPU is a core and an area is one group."""

    __slots__ = ("_cut", "_layout", "areas", "cores")

    def __init__(self, topology: Topology, cpus: int) -> None:
        self.cores = _complete([core.cpus.mask & cpus for core in topology.cores], cpus, single=True)
        groups = [group.cpus.mask & cpus for group in topology.core_groups]
        nodes = [node.cpus.mask & cpus for node in topology.numa_nodes]
        self.areas = _complete(nodes, cpus, single=False)
        """NUMA nodes with CPUs, and the CPUs of no node as one more."""
        self._layout: dict[int, tuple[tuple[int, tuple[int, ...]], ...]] = {}
        self._cut = tuple(mask for mask in groups if mask)

    def groups(self, area: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Return the core groups of an area of CPUs, lowest CPU first, each with its cores."""
        if area not in self._layout:
            parts = _complete([mask & area for mask in self._cut], area, single=False)
            self._layout[area] = tuple(
                (part, tuple(core & part for core in self.cores if core & part)) for part in parts
            )
        return self._layout[area]


def _complete(parts: list[int], whole: int, *, single: bool) -> tuple[int, ...]:
    """Return the parts, and what of `whole` lies in none of them: each CPU alone, or all as one part."""
    rest = whole
    for part in parts:
        rest &= ~part
    found = [part for part in parts if part]
    if single:
        while rest:
            found.append(rest & -rest)
            rest &= rest - 1
    elif rest:
        found.append(rest)
    return tuple(sorted(found, key=lambda part: part & -part))
