"""PCI devices from captured sysfs text."""

import re

from topod.discovery.machine import PciDevice
from topod.discovery.rawhost import RawSysfs
from topod.model.cpuset import MAX_CPU, CpuSet

PCI_DEVICES = "sys/bus/pci/devices"

_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.IGNORECASE)
_HOST_BRIDGE = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}", re.IGNORECASE)


def interpret_pci(raw: RawSysfs, online: CpuSet) -> tuple[PciDevice, ...]:
    """Return every PCI function, in the order of (domain, bus, device, function)."""
    named = {kind: _names_by_address(raw, kind) for kind in ("net", "infiniband")}
    devices = []
    for name in raw.folders.get(PCI_DEVICES, ()):
        if not _ADDRESS.fullmatch(name):
            continue
        address = name.lower()
        folder = f"{PCI_DEVICES}/{name}"
        node = _number(raw.first(folder, "numa_node"), 10)
        root, bridges = _way_down(raw.links.get(folder, ""), address)
        devices.append(
            PciDevice(
                address=address,
                pci_class=_number(raw.first(folder, "class"), 16),
                vendor=_number(raw.first(folder, "vendor"), 16),
                device=_number(raw.first(folder, "device"), 16),
                numa_node=None if node is None or node < 0 else node,
                local_cpus=_local_cpus(raw, folder, online),
                root_complex=root,
                bridges=bridges,
                net=tuple(sorted(named["net"].get(address, ()))),
                infiniband=tuple(sorted(named["infiniband"].get(address, ()))),
            )
        )
    return tuple(sorted(devices, key=lambda device: _order(device.address)))


def parse_cpu_map(text: str) -> CpuSet:
    """Read a kernel CPU map: 32-bit words in hexadecimal, the highest first (`00000001,0000ffff`).

    Raises `ValueError` on anything else.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[0-9a-fA-F]{1,8}", word) for word in words):
        raise ValueError(f"not a CPU map: {text[:80]!r}")
    mask = int("".join(word.zfill(8) for word in words), 16)
    if mask.bit_length() > MAX_CPU + 1:
        raise ValueError(f"a CPU map beyond CPU {MAX_CPU}")
    return CpuSet(mask)


def _local_cpus(raw: RawSysfs, folder: str, online: CpuSet) -> CpuSet | None:
    for name, parse in (("local_cpulist", CpuSet.parse), ("local_cpus", parse_cpu_map)):
        text = raw.first(folder, name)
        if text:
            try:
                return parse(text) & online
            except ValueError:
                continue
    return None


def _way_down(target: str, address: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the host bridge and the bridges below it, from `sys/devices/pci0000:17/0000:17:00.0/...`."""
    parts = target.lower().split("/")
    for at, part in enumerate(parts):
        if _HOST_BRIDGE.fullmatch(part):
            below = parts[at + 1 :]
            if not below or below[-1] != address:
                return None, ()
            # A VMD controller has a second `pci10000:00` below its own address: one chain, from the first.
            return part, tuple(bridge for bridge in below[:-1] if _ADDRESS.fullmatch(bridge))
    return None, ()


def _names_by_address(raw: RawSysfs, kind: str) -> dict[str, set[str]]:
    """Return PCI address to the names of its `net` or `infiniband` devices."""
    names: dict[str, set[str]] = {}
    for name in raw.folders.get(f"sys/class/{kind}", ()):
        target = raw.links.get(f"sys/class/{kind}/{name}", "")
        addresses = [part for part in target.split("/") if _ADDRESS.fullmatch(part)]
        if addresses:
            names.setdefault(addresses[-1].lower(), set()).add(name)
    for device in raw.folders.get(PCI_DEVICES, ()):
        for name in raw.folders.get(f"{PCI_DEVICES}/{device}/{kind}", ()):
            names.setdefault(device.lower(), set()).add(name)
    return names


def _number(text: str | None, base: int) -> int | None:
    try:
        return None if text is None else int(text, base)
    except ValueError:
        return None


def _order(address: str) -> tuple[int, ...]:
    return tuple(int(part, 16) for part in re.split("[:.]", address))
