"""What hosts are made of: a host's document to the tables of its kind, and a name for people."""

import hashlib
from collections.abc import Mapping
from threading import Lock

import msgspec

from topod.discovery.document import load_host
from topod.fleet.kinds import Kinds, structure_key
from topod.flextopo.tables import TopologyTables


class Hardware:
    """The kinds of hardware seen so far. May be asked by several threads."""

    def __init__(self) -> None:
        self._kinds = Kinds()
        self._lock = Lock()
        self._marks: dict[TopologyTables, str] = {}

    def find(self, document: Mapping[str, object]) -> tuple[str, TopologyTables]:
        """Return a short name of the hardware, and its tables. May take a second.

        Raises `DataError` for what is no host document, and for a host of more than 20 GPUs.
        """
        topology = load_host(msgspec.json.encode(document), "the host's document").topology
        # One at a time: two hosts of a new kind that come together are to share its tables.
        with self._lock:
            tables = self._kinds.tables(topology)
            mark = self._marks.get(tables)
            if mark is None:
                mark = hashlib.sha256(repr(structure_key(topology)).encode()).hexdigest()[:6]
                self._marks[tables] = mark
        models = ", ".join(sorted({gpu.name for gpu in topology.gpus}))
        return f"{len(topology.gpus)}x {models} [{mark}]" if models else f"no GPUs [{mark}]", tables
