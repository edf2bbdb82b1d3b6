"""What hosts are made of: those made alike share the planner's tables, which are costly."""

import hashlib
from collections.abc import Mapping

import msgspec

from topod.discovery.document import load_host
from topod.flextopo.tables import TopologyTables
from topod.model.topology import Topology


class Kinds:
    """The tables of every kind of hardware seen so far. Nothing is forgotten: a fleet has few."""

    def __init__(self) -> None:
        self._known: dict[str, TopologyTables] = {}

    def find(self, document: Mapping[str, object]) -> tuple[str, TopologyTables]:
        """Return a short name of the hardware, and its tables. May take a second.

        Raises `DataError` for what is no host document, and for a host of more than 20 GPUs.
        """
        topology = load_host(msgspec.json.encode(document), "the host's document").topology
        key = hashlib.sha256(repr(_structure(topology)).encode()).hexdigest()[:6]
        tables = self._known.get(key)
        if tables is None:
            tables = self._known[key] = TopologyTables(topology)
        models = ", ".join(sorted({gpu.name for gpu in topology.gpus}))
        return f"{len(topology.gpus)}x {models} [{key}]" if models else f"no GPUs [{key}]", tables


def _structure(topology: Topology) -> object:
    """Return all that the planner goes by: no names, UUIDs, PCI addresses, memory sizes."""
    return (
        [(gpu.name, gpu.numa_node, gpu.cpus) for gpu in topology.gpus],
        topology.links,
        topology.sockets,
        [(node.id, node.cpus) for node in topology.numa_nodes],
        topology.core_groups,
        topology.cores,
    )
