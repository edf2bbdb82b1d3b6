"""The graph of a host as JSON."""

import msgspec

from topod.discovery.document import API_VERSION
from topod.flextopo.graph import graph
from topod.model.topology import Topology


def graph_json(topology: Topology) -> bytes:
    """Return nodes and edges as compact JSON; links carry their class and the number of bonded NVLinks."""
    host = graph(topology)
    document = {
        "apiVersion": API_VERSION,
        "kind": "HostGraph",
        "name": topology.name,
        "nodes": [{"key": node.key, "kind": node.kind, "name": node.name or node.key} for node in host.nodes],
        "edges": [
            {
                "kind": edge.kind,
                "from": edge.start,
                "to": edge.end,
                "link": None if edge.link is None else edge.link.name,
                "nvlinks": edge.nvlinks,
            }
            for edge in host.edges
        ],
    }
    return msgspec.json.encode(document)
