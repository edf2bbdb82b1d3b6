"""Hosts of one kind share the planner's tables, which are costly: a fleet has few kinds of hardware."""

from collections.abc import Hashable

from topod.flextopo.tables import TopologyTables
from topod.model.topology import Topology


def structure_key(topology: Topology) -> Hashable:
    """Return a key that is equal for hosts whose hardware the planner cannot tell apart.

    What differs from host to host of one kind is left out: names, UUIDs, PCI addresses, memory sizes, NICs.
    The model of the GPUs is kept, so that a kind has one.
    """
    return (
        tuple((gpu.name, gpu.numa_node, gpu.cpus) for gpu in topology.gpus),
        topology.links,
        topology.sockets,
        tuple((node.id, node.cpus) for node in topology.numa_nodes),
        topology.core_groups,
        topology.cores,
    )


class Kinds:
    """The tables of every kind of hardware seen so far. Nothing is forgotten: there are few."""

    __slots__ = ("_tables",)

    def __init__(self) -> None:
        self._tables: dict[Hashable, TopologyTables] = {}

    def __len__(self) -> int:
        return len(self._tables)

    def tables(self, topology: Topology) -> TopologyTables:
        """Return the tables of a host: those of the first host of its kind.

        Raises `DataError` for a host of more than 20 GPUs.
        """
        key = structure_key(topology)
        found = self._tables.get(key)
        if found is None:
            found = self._tables[key] = TopologyTables(topology)
        return found
