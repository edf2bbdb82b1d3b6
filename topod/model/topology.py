"""The hardware of one host: what never changes while the host is up.

GPUs are named by UUID everywhere inside; `index` is for people and is the row of the link matrix.
"""

from dataclasses import dataclass, field

from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.links import Link, LinkClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """One CPU package."""

    id: int
    cpus: CpuSet


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaNode:
    """One NUMA node; `cpus` is empty for a memory-only node. Distances are the kernel's (10 = local)."""

    id: int
    cpus: CpuSet
    memory_bytes: int | None = None
    distances: tuple[tuple[int, int], ...] = ()
    """(other node's id, distance), as in `/sys/devices/system/node/node*/distance`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreGroup:
    """The cores that share one L3 cache."""

    id: int
    cpus: CpuSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """One physical core: its hardware threads."""

    id: int
    cpus: CpuSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One whole GPU."""

    index: int
    uuid: str
    name: str = ""
    pci_address: str | None = None
    """`domain:bus:device.function`, lower case, 4-digit domain where it fits (0000:3b:00.0)."""
    memory_bytes: int | None = None
    numa_node: int | None = None
    """None where no source names exactly one node."""
    cpus: CpuSet | None = None
    """The CPUs beside this GPU, None where no source names them."""
    cpus_text: str | None = None
    """The CPU list exactly as the source wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One network device that appears in the matrix or in sysfs."""

    name: str
    device: str | None = None
    """The kernel's name (mlx5_0, rocep1s0f0) where it differs from `name`."""
    pci_address: str | None = None
    numa_node: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Where a fact came from, and what other sources said instead."""

    subject: str
    """For example `gpu3.numa_node` or `links`."""
    source: str
    """`nvml`, `sysfs`, `nvidia-smi topo -m`, `inferred: ...`, `fixture`."""
    disagrees: tuple[str, ...] = ()
    """One text per overruled source: `nvidia-smi topo -m said 1`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The hardware of one host.

    `links` is square, one row per GPU in index order, None on the diagonal only.
    `nic_links` has one row per GPU and one column per NIC; None where unknown.
    Sockets, NUMA nodes, core groups and cores are empty where no source knows them.
    """

    name: str
    gpus: tuple[Gpu, ...]
    links: tuple[tuple[Link | None, ...], ...]
    nics: tuple[Nic, ...] = ()
    nic_links: tuple[tuple[Link | None, ...], ...] = ()
    sockets: tuple[Socket, ...] = ()
    numa_nodes: tuple[NumaNode, ...] = ()
    core_groups: tuple[CoreGroup, ...] = ()
    cores: tuple[Core, ...] = ()
    emulated: bool = False
    facts: tuple[Fact, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        count = len(self.gpus)
        if [gpu.index for gpu in self.gpus] != list(range(count)):
            raise ValueError("GPUs must be in index order, counted from 0")
        if len({gpu.uuid for gpu in self.gpus}) != count:
            raise ValueError("two GPUs have the same UUID")
        if len(self.links) != count or any(len(row) != count for row in self.links):
            raise ValueError(f"the link matrix is not {count} by {count}")
        for i, row in enumerate(self.links):
            for j, link in enumerate(row):
                if (link is None) != (i == j):
                    raise ValueError(f"link GPU{i}-GPU{j}: only the diagonal is empty")
                if link != self.links[j][i]:
                    raise ValueError(f"link GPU{i}-GPU{j} differs from GPU{j}-GPU{i}")
        if self.nic_links and (
            len(self.nic_links) != count or any(len(row) != len(self.nics) for row in self.nic_links)
        ):
            raise ValueError("nic_links needs one row per GPU and one column per NIC")
        for kind, groups in (
            ("socket", self.sockets),
            ("NUMA node", self.numa_nodes),
            ("core group", self.core_groups),
            ("core", self.cores),
        ):
            _check_disjoint(kind, tuple((group.id, group.cpus) for group in groups))

    @property
    def cpus(self) -> CpuSet:
        """Every CPU that may be given to jobs: those of the cores, else of the NUMA nodes."""
        mask = 0
        for group in self.cores or self.numa_nodes:
            mask |= group.cpus.mask
        return CpuSet(mask)

    def link_class(self, a: int, b: int) -> LinkClass | None:
        """Return how GPU `a` and GPU `b` (by index) are joined; None for a GPU and itself."""
        link = self.links[a][b]
        return None if link is None else link.kind


def _check_disjoint(kind: str, groups: tuple[tuple[int, CpuSet], ...]) -> None:
    if len({ident for ident, _ in groups}) != len(groups):
        raise ValueError(f"two {kind}s have the same id")
    seen = NO_CPUS
    for ident, cpus in groups:
        if cpus & seen:
            raise ValueError(f"{kind} {ident} shares CPUs {cpus & seen} with another {kind}")
        seen |= cpus
