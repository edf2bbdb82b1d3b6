"""What hosts are made of: a host's document to the tables of its kind, and a name for people.

A fleet has few kinds of hardware: after its own restart a coordinator is told of a thousand hosts within
seconds, and reads a document whole for the first of each kind only.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from topod.discovery.document import alike, load_host
from topod.fleet.kinds import Kinds, structure_key
from topod.flextopo.tables import TopologyTables

ALIKE_MAX: Final = 1000
"""Beyond so many kinds of documents the known ones are forgotten: a key is as long as a document."""
_SOURCE: Final = "the host's document"


class Hardware:
    """The kinds of hardware seen so far. Used from the event loop only."""

    def __init__(self) -> None:
        self._kinds = Kinds()
        self._reading = asyncio.Lock()
        self._marks: dict[TopologyTables, str] = {}
        self._known: dict[bytes, tuple[str, TopologyTables]] = {}

    async def find(self, document: Mapping[str, object]) -> tuple[str, TopologyTables]:
        """Return a short name of the hardware, and its tables. May take a second, in a thread.

        Raises `DataError` for what is no host document, and for a host of more than 20 GPUs.
        """
        data = msgspec.json.encode(document)
        key = alike(data, _SOURCE)
        if (found := self._known.get(key)) is not None:
            return found
        # One at a time: of those of a new kind that come together one is read, and they share its tables.
        async with self._reading:
            if (found := self._known.get(key)) is None:
                found = await asyncio.to_thread(self._read, data)
                if len(self._known) >= ALIKE_MAX:
                    self._known.clear()
                self._known[key] = found
        return found

    def _read(self, data: bytes) -> tuple[str, TopologyTables]:
        topology = load_host(data, _SOURCE).topology
        tables = self._kinds.tables(topology)
        mark = self._marks.get(tables)
        if mark is None:
            mark = hashlib.sha256(repr(structure_key(topology)).encode()).hexdigest()[:6]
            self._marks[tables] = mark
        models = ", ".join(sorted({gpu.name for gpu in topology.gpus}))
        return f"{len(topology.gpus)}x {models} [{mark}]" if models else f"no GPUs [{mark}]", tables
