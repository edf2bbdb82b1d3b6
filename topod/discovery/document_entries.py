"""The fields of a host document, as they stand in its JSON."""

from typing import Literal

import msgspec


class GpuEntry(msgspec.Struct, kw_only=True):
    """One GPU of a document. `cpus_text` and `cpu_list` are there only where `cpus` alone is not exact."""

    index: int
    uuid: str | None = None
    name: str = ""
    pci_address: str | None = None
    memory_bytes: int | None = None
    numa_node: int | None = None
    cpus: str | None = None
    cpus_text: str | msgspec.UnsetType | None = msgspec.UNSET
    cpu_list: str | msgspec.UnsetType | None = msgspec.UNSET
    state: str | msgspec.UnsetType = msgspec.UNSET


class NicEntry(msgspec.Struct, kw_only=True):
    """One NIC of a document."""

    name: str
    device: str | None = None
    pci_address: str | None = None
    numa_node: int | None = None


class GroupEntry(msgspec.Struct, kw_only=True):
    """A socket, core group or core of a document."""

    id: int
    cpus: str


class NumaEntry(msgspec.Struct, kw_only=True):
    """One NUMA node of a document. `distances` are (other node, distance)."""

    id: int
    cpus: str = ""
    memory_bytes: int | None = None
    distances: tuple[tuple[int, int], ...] = ()


class FactEntry(msgspec.Struct, kw_only=True):
    """Where a fact of a document came from."""

    subject: str
    source: str
    disagrees: tuple[str, ...] = ()


class JobEntry(msgspec.Struct, kw_only=True):
    """A job that holds GPUs (by index) or CPUs."""

    id: str
    priority: int
    gpus: tuple[int, ...] = ()
    cpus: str = ""
    preemptible: bool = True
    protection: str = ""
    gpu_milliseconds: int = 0


class BlockEntry(msgspec.Struct, kw_only=True):
    """GPUs (by index) and CPUs that nobody may take. `reason` begins with what they are."""

    reason: str
    gpus: tuple[int, ...] = ()
    cpus: str = ""


class OccupancyEntry(msgspec.Struct, kw_only=True):
    """Who holds what."""

    jobs: tuple[JobEntry, ...] = ()
    blocks: tuple[BlockEntry, ...] = ()


class HostEntry(msgspec.Struct, kw_only=True, rename={"api_version": "apiVersion"}):
    """The whole document."""

    api_version: Literal["topod/v1"]
    kind: Literal["Host"]
    name: str
    emulated: bool = False
    gpus: tuple[GpuEntry, ...]
    links: tuple[tuple[str, ...], ...]
    nics: tuple[str, ...] = ()
    nic_devices: tuple[NicEntry, ...] | msgspec.UnsetType = msgspec.UNSET
    nic_links: tuple[tuple[str | None, ...], ...] = ()
    sockets: tuple[GroupEntry, ...] = ()
    numa_nodes: tuple[NumaEntry, ...] = ()
    core_groups: tuple[GroupEntry, ...] = ()
    cores: tuple[GroupEntry, ...] = ()
    facts: tuple[FactEntry, ...] = ()
    occupancy: OccupancyEntry | None = None
