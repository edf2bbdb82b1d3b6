"""The host document: one JSON object per host, versioned, that can be exported, read back and planned on.

Rule: `load_host(dump_host(x))` gives `x` back exactly; the fields are described in
`docs/reference/host-document.md`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from topod.discovery.document_entries import (
    BlockEntry,
    FactEntry,
    GpuEntry,
    GroupEntry,
    HostEntry,
    JobEntry,
    NicEntry,
    NumaEntry,
    OccupancyEntry,
)
from topod.discovery.document_loader import Loader, uuid_of
from topod.errors import DataError
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Occupancy
from topod.model.topology import Core, CoreGroup, Gpu, Socket, Topology

API_VERSION: Final = "topod/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDocument:
    """A host read from a file. `occupancy` is None where the file does not say who holds what."""

    topology: Topology
    occupancy: Occupancy | None = None


_DECODER: Final = msgspec.json.Decoder(HostEntry)
_ENCODER: Final = msgspec.json.Encoder()


def dump_host(topology: Topology, occupancy: Occupancy | None = None) -> bytes:
    """Return the document of a host as compact JSON (UTF-8, no line feed at the end)."""
    return _ENCODER.encode(
        HostEntry(
            api_version=API_VERSION,
            kind="Host",
            name=topology.name,
            emulated=topology.emulated,
            gpus=tuple(_dump_gpu(gpu, occupancy) for gpu in topology.gpus),
            links=tuple(tuple(link.token if link else "X" for link in row) for row in topology.links),
            nics=tuple(nic.name for nic in topology.nics),
            nic_devices=tuple(
                NicEntry(name=n.name, device=n.device, pci_address=n.pci_address, numa_node=n.numa_node)
                for n in topology.nics
            ),
            nic_links=tuple(
                tuple(link.token if link else None for link in row) for row in topology.nic_links
            ),
            sockets=_dump_groups(topology.sockets),
            numa_nodes=tuple(
                NumaEntry(id=n.id, cpus=str(n.cpus), memory_bytes=n.memory_bytes, distances=n.distances)
                for n in topology.numa_nodes
            ),
            core_groups=_dump_groups(topology.core_groups),
            cores=_dump_groups(topology.cores),
            facts=tuple(
                FactEntry(subject=f.subject, source=f.source, disagrees=f.disagrees) for f in topology.facts
            ),
            occupancy=_dump_occupancy(occupancy),
        )
    )


def load_host(data: bytes, source: str) -> HostDocument:
    """Return the host of a document. Raises `DataError` that names `source` and the JSON path."""
    entry = _decoded(data, source)
    loader = Loader(source)
    topology = loader.topology(entry)
    occupancy = None if entry.occupancy is None else loader.occupancy(entry.occupancy, len(topology.gpus))
    return HostDocument(topology=topology, occupancy=occupancy)


def alike(data: bytes, source: str) -> bytes:
    """Return a key of a document: hosts with equal keys differ in names, identities and memory sizes only.

    Where `load_host` takes one of them it takes all, with equal structure. A tenth of its work.
    Raises `DataError` for what is not even the form of a document.
    """
    entry = _decoded(data, source)
    uuids = [uuid_of(gpu, entry.name) for gpu in entry.gpus]
    for gpu, uuid in zip(entry.gpus, uuids, strict=True):
        # Whether two are the same is what matters.
        gpu.uuid, gpu.pci_address, gpu.memory_bytes = str(uuids.index(uuid)), None, None
    for nic in () if isinstance(entry.nic_devices, msgspec.UnsetType) else entry.nic_devices:
        nic.device = nic.pci_address = None
    for node in entry.numa_nodes:
        node.memory_bytes = None
    entry.name, entry.facts = "", ()
    return _ENCODER.encode(entry)


def _decoded(data: bytes, source: str) -> HostEntry:
    try:
        return _DECODER.decode(data)
    except msgspec.ValidationError as error:
        raise DataError(f"not a host document: {error}", source=source) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not JSON: {error}", source=source) from error
    except RecursionError as error:
        raise DataError("not a host document: nested too deeply", source=source) from error


def _dump_gpu(gpu: Gpu, occupancy: Occupancy | None) -> GpuEntry:
    cpus = None if gpu.cpus is None else str(gpu.cpus)
    shown = cpus if gpu.cpus_text is None else gpu.cpus_text
    entry = GpuEntry(
        index=gpu.index,
        uuid=gpu.uuid,
        name=gpu.name,
        pci_address=gpu.pci_address,
        memory_bytes=gpu.memory_bytes,
        numa_node=gpu.numa_node,
        cpus=shown,
    )
    if gpu.cpus_text != shown:
        entry.cpus_text = gpu.cpus_text
    if not _says(shown, gpu.cpus):
        entry.cpu_list = cpus
    if occupancy is not None:
        entry.state = gpu_state(occupancy, gpu.index)
    return entry


def gpu_state(occupancy: Occupancy, index: int) -> str:
    """Return what a GPU is doing, in words: `free`, `held by job 3`, or why it is blocked."""
    for block in occupancy.blocks:
        if block.gpus >> index & 1:
            return block.reason
    held = [holder.job for holder in occupancy.holders if holder.gpus >> index & 1]
    return f"held by job {held[0]}" if held else "free"


def _says(text: str | None, cpus: CpuSet | None) -> bool:
    """Return whether reading `text` back gives `cpus`."""
    try:
        return (None if text is None else CpuSet.parse(text)) == cpus
    except ValueError:
        return False


def _dump_groups(groups: Iterable[Socket | CoreGroup | Core]) -> tuple[GroupEntry, ...]:
    return tuple(GroupEntry(id=group.id, cpus=str(group.cpus)) for group in groups)


def _dump_occupancy(occupancy: Occupancy | None) -> OccupancyEntry | None:
    if occupancy is None:
        return None
    return OccupancyEntry(
        jobs=tuple(
            JobEntry(
                id=holder.job,
                priority=holder.priority,
                gpus=tuple(CpuSet(holder.gpus)),
                cpus=str(holder.cpus),
                preemptible=holder.evictable,
                protection=holder.protection,
                gpu_milliseconds=holder.work,
            )
            for holder in occupancy.holders
        ),
        blocks=tuple(
            BlockEntry(reason=block.reason, gpus=tuple(CpuSet(block.gpus)), cpus=str(block.cpus))
            for block in occupancy.blocks
        ),
    )
