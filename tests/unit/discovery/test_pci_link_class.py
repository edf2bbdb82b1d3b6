"""How two PCI devices are joined, by the legend of `nvidia-smi topo -m`."""

import pytest

from topod.discovery.machine import PciDevice, pci_link_class
from topod.model.links import LinkClass

ROOT = "pci0000:17"


def device(address: str, *bridges: str, root: str | None = ROOT, numa_node: int | None = 0) -> PciDevice:
    return PciDevice(address=address, root_complex=root, bridges=bridges, numa_node=numa_node)


CASES = {
    "functions of one card": (
        device("0000:18:00.0", "port0"),
        device("0000:18:00.1", "port0"),
        LinkClass.PIX,
    ),
    "two cards on one old bus": (
        device("0000:05:01.0", "bridge"),
        device("0000:05:02.0", "bridge"),
        LinkClass.PIX,
    ),
    "two ports of one switch": (
        device("0000:1a:00.0", "port0", "up", "down0"),
        device("0000:1b:00.0", "port0", "up", "down1"),
        LinkClass.PIX,
    ),
    "a switch below a switch": (
        device("0000:1a:00.0", "port0", "up", "down0"),
        device("0000:1e:00.0", "port0", "up", "down1", "up2", "down2"),
        LinkClass.PXB,
    ),
    "two switches below a switch": (
        device("0000:1a:00.0", "port0", "up", "down0", "up1", "down1"),
        device("0000:1e:00.0", "port0", "up", "down2", "up2", "down3"),
        LinkClass.PXB,
    ),
    "an old bridge below a port of the switch": (
        device("0000:1a:00.0", "port0", "up", "down0"),
        device("0000:1c:04.0", "port0", "up", "down1", "bridge"),
        LinkClass.PXB,
    ),
    "two root ports of one host bridge": (
        device("0000:18:00.0", "port0"),
        device("0000:19:00.0", "port1"),
        LinkClass.PHB,
    ),
    "both on the root bus": (device("0000:17:02.0"), device("0000:17:03.0"), LinkClass.PHB),
    "one host bridge, though the nodes are unknown": (
        device("0000:18:00.0", "port0", numa_node=None),
        device("0000:19:00.0", "port1", numa_node=None),
        LinkClass.PHB,
    ),
    "two host bridges of one node": (
        device("0000:18:00.0", "port0"),
        device("0000:3b:00.0", "port0", root="pci0000:3a"),
        LinkClass.NODE,
    ),
    "two nodes": (
        device("0000:18:00.0", "port0"),
        device("0000:86:00.0", "port0", root="pci0000:85", numa_node=1),
        LinkClass.SYS,
    ),
    "two host bridges of unknown nodes": (
        device("0000:18:00.0", "port0", numa_node=None),
        device("0000:3b:00.0", "port0", root="pci0000:3a", numa_node=None),
        LinkClass.SYS,
    ),
    "unknown ways, one node": (
        device("0004:05:00.0", root=None),
        device("0004:06:00.0", root=None),
        LinkClass.NODE,
    ),
    "unknown ways, unknown nodes": (
        device("0004:05:00.0", root=None, numa_node=None),
        device("0004:06:00.0", root=None, numa_node=None),
        LinkClass.SYS,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_class_follows_the_bridges_between_two_devices_both_ways(case: str) -> None:
    a, b, expected = CASES[case]
    assert pci_link_class(a, b) is expected
    assert pci_link_class(b, a) is expected
