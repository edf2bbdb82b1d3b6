"""What the kernel says about one machine: CPUs, memory and PCI devices, without any GPU vendor's tools.

Rule: only what sysfs states. Filling gaps from other sources is the merge's work.
"""

from dataclasses import dataclass

from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.links import LinkClass
from topod.model.topology import Core, CoreGroup, NumaNode, Socket


@dataclass(frozen=True, slots=True, kw_only=True)
class PciDevice:
    """One PCI function."""

    address: str
    """`domain:bus:device.function`, lower case (0000:3b:00.0; VMD and Azure have longer domains)."""
    pci_class: int | None = None
    """24 bits: base class, subclass, interface (0x030200 is a 3D controller)."""
    vendor: int | None = None
    device: int | None = None
    numa_node: int | None = None
    """None where the kernel says -1, which it does on virtual machines and on hosts with one node."""
    local_cpus: CpuSet | None = None
    """Online CPUs beside the device; all of them where the kernel does not know the node."""
    root_complex: str | None = None
    """The host bridge, `pci0000:17`; None where the dump keeps no path."""
    bridges: tuple[str, ...] = ()
    """Addresses of the bridges from the host bridge down to the device, both excluded."""
    net: tuple[str, ...] = ()
    infiniband: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """One machine as sysfs describes it. All CPU sets but `offline` hold online CPUs only.

    Sockets, cores and core groups are each disjoint; so are the NUMA nodes. A core group is a shared L3 cut
    at NUMA borders, so that core groups nest in nodes; it is absent where no L3 is known.
    """

    sockets: tuple[Socket, ...]
    numa_nodes: tuple[NumaNode, ...]
    core_groups: tuple[CoreGroup, ...]
    cores: tuple[Core, ...]
    """`thread_siblings` of the kernel: on AMD's Bulldozer family one core here is a module of two."""
    online: CpuSet
    offline: CpuSet = NO_CPUS
    """Present but not online. CPUs that are merely possible (empty sockets) do not count."""
    isolated: CpuSet = NO_CPUS
    """Taken from the scheduler by `isolcpus`."""
    allowed: CpuSet | None = None
    """What the cpuset control group of this process leaves of `online`; None where no file says."""
    smt: int = 1
    """Hardware threads of the widest core, as far as they are online."""
    l3_count: int = 0
    """L3 caches, before they are cut at NUMA borders."""
    pci: tuple[PciDevice, ...] = ()
    notes: tuple[str, ...] = ()
    """One sentence per fact that was missing, damaged or overruled."""


def pci_link_class(a: PciDevice, b: PciDevice) -> LinkClass:
    """Return how two PCI devices are joined, by the legend of `nvidia-smi topo -m`.

    A switch shows in sysfs as one upstream port and, below it, one downstream port per device; together
    they count as the "single bridge" of `PIX`. Devices under different root ports of one host bridge are
    `PHB`. Without a path (`root_complex` None) only the NUMA nodes count, and without those the answer is
    `SYS`; a caller who knows better (a host with one NUMA node) fills `numa_node` in first.
    """
    if a.address.partition(".")[0] == b.address.partition(".")[0]:
        return LinkClass.PIX  # functions of one device
    if a.root_complex is not None and a.root_complex == b.root_complex:
        shared = 0
        for one, other in zip(a.bridges, b.bridges, strict=False):
            if one != other:
                break
            shared += 1
        if shared == 0:
            return LinkClass.PHB
        below = max(len(a.bridges), len(b.bridges)) - shared
        return LinkClass.PIX if below <= 1 else LinkClass.PXB
    if a.numa_node is not None and a.numa_node == b.numa_node:
        return LinkClass.NODE
    return LinkClass.SYS
