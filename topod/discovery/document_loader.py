"""From the entries of a host document to values; every error names the JSON path."""

from collections.abc import Sequence

import msgspec

from topod.discovery.document_entries import GpuEntry, HostEntry, NumaEntry, OccupancyEntry
from topod.errors import DataError
from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.links import Link
from topod.model.occupancy import Block, Holder, Occupancy
from topod.model.topology import Core, CoreGroup, Fact, Gpu, Nic, NumaNode, Socket, Topology


class Loader:
    """Turns entries into values; knows what to call the file in errors."""

    def __init__(self, source: str) -> None:
        self._source = source

    def _wrong(self, path: str, message: str) -> DataError:
        return DataError(f"not a host document: {message} - at `{path}`", source=self._source)

    def topology(self, entry: HostEntry) -> Topology:
        """Return the hardware that `entry` describes."""
        nodes = {node.id for node in entry.numa_nodes}
        for at, gpu in enumerate(entry.gpus):
            # A host known from a matrix alone has no list of nodes, only what its GPUs say.
            if nodes and gpu.numa_node is not None and gpu.numa_node not in nodes:
                raise self._wrong(f"$.gpus[{at}].numa_node", f"no NUMA node {gpu.numa_node} is listed")
        try:
            return Topology(
                name=entry.name,
                emulated=entry.emulated,
                gpus=tuple(self._gpu(gpu, at, entry.name) for at, gpu in enumerate(entry.gpus)),
                links=self._links(entry.links, "$.links"),
                nics=self._nics(entry),
                nic_links=self._links(entry.nic_links, "$.nic_links"),
                sockets=tuple(
                    Socket(id=each.id, cpus=self._cpus(each.cpus, f"$.sockets[{at}].cpus"))
                    for at, each in enumerate(entry.sockets)
                ),
                numa_nodes=tuple(self._numa(node, at) for at, node in enumerate(entry.numa_nodes)),
                core_groups=tuple(
                    CoreGroup(id=each.id, cpus=self._cpus(each.cpus, f"$.core_groups[{at}].cpus"))
                    for at, each in enumerate(entry.core_groups)
                ),
                cores=tuple(
                    Core(id=each.id, cpus=self._cpus(each.cpus, f"$.cores[{at}].cpus"))
                    for at, each in enumerate(entry.cores)
                ),
                facts=tuple(
                    Fact(subject=each.subject, source=each.source, disagrees=each.disagrees)
                    for each in entry.facts
                ),
            )
        except ValueError as error:
            raise self._wrong("$", str(error)) from error

    def _cpus(self, text: str, path: str) -> CpuSet:
        try:
            return CpuSet.parse(text)
        except ValueError as error:
            raise self._wrong(path, str(error)) from error

    def _links(self, rows: Sequence[Sequence[str | None]], path: str) -> tuple[tuple[Link | None, ...], ...]:
        return tuple(
            tuple(self._link(cell, f"{path}[{i}][{j}]") for j, cell in enumerate(row))
            for i, row in enumerate(rows)
        )

    def _link(self, cell: str | None, path: str) -> Link | None:
        if cell is None or cell == "X":
            return None
        try:
            return Link.parse(cell)
        except ValueError as error:
            raise self._wrong(path, str(error)) from error

    def _gpu(self, entry: GpuEntry, at: int, name: str) -> Gpu:
        path = f"$.gpus[{at}]"
        key, text = "cpu_list", entry.cpu_list
        if isinstance(text, msgspec.UnsetType):
            key, text = "cpus", entry.cpus
        return Gpu(
            index=entry.index,
            uuid=uuid_of(entry, name),
            name=entry.name,
            pci_address=entry.pci_address,
            memory_bytes=entry.memory_bytes,
            numa_node=entry.numa_node,
            cpus=None if text is None else self._cpus(text, f"{path}.{key}"),
            cpus_text=entry.cpus if isinstance(entry.cpus_text, msgspec.UnsetType) else entry.cpus_text,
        )

    def _nics(self, entry: HostEntry) -> tuple[Nic, ...]:
        if isinstance(entry.nic_devices, msgspec.UnsetType):
            return tuple(Nic(name=name) for name in entry.nics)
        if tuple(nic.name for nic in entry.nic_devices) != entry.nics:
            raise self._wrong("$.nic_devices", "the names are not those of `nics`, in the same order")
        return tuple(
            Nic(name=n.name, device=n.device, pci_address=n.pci_address, numa_node=n.numa_node)
            for n in entry.nic_devices
        )

    def _numa(self, entry: NumaEntry, at: int) -> NumaNode:
        return NumaNode(
            id=entry.id,
            cpus=self._cpus(entry.cpus, f"$.numa_nodes[{at}].cpus"),
            memory_bytes=entry.memory_bytes,
            distances=entry.distances,
        )

    def occupancy(self, entry: OccupancyEntry, count: int) -> Occupancy:
        """Return who holds what on a host with `count` GPUs."""
        path = "$.occupancy"
        holders: list[Holder] = []
        taken_gpus, taken_cpus = 0, NO_CPUS
        for at, job in enumerate(entry.jobs):
            where = f"{path}.jobs[{at}]"
            gpus = self._mask(job.gpus, count, f"{where}.gpus")
            cpus = self._cpus(job.cpus, f"{where}.cpus")
            if gpus & taken_gpus:
                raise self._wrong(f"{where}.gpus", "a GPU is held by two jobs")
            if cpus & taken_cpus:
                raise self._wrong(f"{where}.cpus", "a CPU is held by two jobs")
            if any(holder.job == job.id for holder in holders):
                raise self._wrong(f"{where}.id", f"two jobs have the id {job.id!r}")
            taken_gpus, taken_cpus = taken_gpus | gpus, taken_cpus | cpus
            holders.append(
                Holder(
                    job=job.id,
                    priority=job.priority,
                    gpus=gpus,
                    cpus=cpus,
                    evictable=job.preemptible,
                    protection=job.protection,
                    work=job.gpu_milliseconds,
                )
            )
        blocks = tuple(
            Block(
                reason=block.reason,
                gpus=self._mask(block.gpus, count, f"{path}.blocks[{at}].gpus"),
                cpus=self._cpus(block.cpus, f"{path}.blocks[{at}].cpus"),
            )
            for at, block in enumerate(entry.blocks)
        )
        return Occupancy(holders=tuple(holders), blocks=blocks)

    def _mask(self, indices: tuple[int, ...], count: int, path: str) -> int:
        mask = 0
        for index in indices:
            if not 0 <= index < count:
                raise self._wrong(path, f"this host has GPUs 0 to {count - 1}, not {index}")
            mask |= 1 << index
        return mask


def uuid_of(gpu: GpuEntry, host: str) -> str:
    """Return the identity of a GPU of a host, made up where the document does not tell it."""
    return f"document:{host}:{gpu.index}" if gpu.uuid is None else gpu.uuid
