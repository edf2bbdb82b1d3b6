"""Builds the NVML stand-in and writes the worlds that it shows."""

import os
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Self

import pytest

SOURCE = Path(__file__).with_name("stand_in_nvml.c")
LEVELS = {"INTERNAL": 0, "PIX": 10, "PXB": 20, "PHB": 30, "NODE": 40, "SYS": 50}
P2P_READ, P2P_NVLINK = 0, 2
P2P_OK, P2P_CHIPSET, P2P_NOT_SUPPORTED = 0, 1, 5


def build_library(folder: Path, *flags: str) -> Path:
    """Compile the stand-in into `folder` and return it; skip (or fail, when all tests must run) without gcc."""
    if shutil.which("gcc") is None:
        if os.environ.get("TOPOD_REQUIRE_ALL") == "1":
            pytest.fail("gcc is needed for the NVML stand-in and is not installed")
        pytest.skip("gcc is needed for the NVML stand-in and is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libnvidia-ml.so.1"
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", *flags]
    command += ["-Wl,-soname,libnvidia-ml.so.1", "-o", str(library), str(SOURCE), "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return library


class World:
    """What the stand-in shows: keys and values, put into its file as a whole so that no half of it is ever read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "world"
        self.events = folder / "events"
        self.events.touch()
        self.keys: dict[str, str] = {"driver": "550.163.01"}

    def environment(self, library: Path) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "LD_LIBRARY_PATH": str(library.parent),
            "STAND_IN_WORLD": str(self.path),
            "STAND_IN_EVENTS": str(self.events),
        }

    def put(self, **keys: object) -> Self:
        """Set keys, written with `__` for the dot: `gpu__0__lost=1`."""
        self.keys |= {key.replace("__", "."): str(value) for key, value in keys.items()}
        return self

    def drop(self, key: str) -> Self:
        del self.keys[key]
        return self

    def save(self) -> Self:
        fresh = self.folder / "world.new"
        fresh.write_text("".join(f"{key} {value}\n" for key, value in self.keys.items()))
        fresh.replace(self.path)
        return self

    def xid(self, gpu: int, xid: int) -> None:
        with self.events.open("a") as file:
            file.write(f"{gpu} {xid}\n")

    def gpu(self, index: int, pci: str, name: str, memory_mib: int, *, node: int, cpus: str) -> Self:
        facts = {
            "uuid": uuid(index),
            "pci": pci,
            "name": name,
            "memory": memory_mib,
            "used": 4,
            "utilisation": 0,
        }
        facts |= {"temperature": 35, "nodes": node, "cpus": cpus, "mig": 0, "ecc": 0, "remap": 0}
        self.keys |= {f"gpu.{index}.{key}": str(value) for key, value in facts.items()}
        return self

    def pair(self, a: int, b: int, level: str, *, nvlink: bool = False) -> Self:
        self.keys[f"pair.{a}.{b}"] = str(LEVELS[level])
        reach = nvlink or level != "SYS"
        self.keys[f"p2p.{a}.{b}.{P2P_READ}"] = str(P2P_OK if reach else P2P_CHIPSET)
        self.keys[f"p2p.{a}.{b}.{P2P_NVLINK}"] = str(P2P_OK if nvlink else P2P_NOT_SUPPORTED)
        return self

    def link(self, gpu: int, number: int, far_end: str) -> Self:
        """`far_end`: `gpu PCI`, `switch PCI`, `npu PCI`, `unnamed PCI` or `down`."""
        self.keys[f"gpu.{gpu}.link.{number}"] = far_end
        return self


def uuid(index: int) -> str:
    return f"GPU-{index:08x}-aaaa-bbbb-cccc-dddddddddddd"


def four_a100_in_pairs(folder: Path) -> World:
    """Four A100 PCIe: two NVLink bridges of 12 links, two NUMA nodes."""
    world, buses = World(folder), ["0000:17:00.0", "0000:31:00.0", "0000:b1:00.0", "0000:ca:00.0"]
    for i, pci in enumerate(buses):
        world.gpu(
            i, pci, "NVIDIA A100-PCIE-40GB", 40960, node=i // 2, cpus=["0-15,32-47", "16-31,48-63"][i // 2]
        )
        for number in range(12):
            world.link(i, number, f"gpu {buses[i ^ 1]}")
    for a, b in combinations(range(4), 2):
        world.pair(a, b, "NODE" if a // 2 == b // 2 else "SYS", nvlink=a // 2 == b // 2)
    return world.save()


def eight_hgx(folder: Path, *, links: int = 18, name: str = "NVIDIA H100 80GB HBM3") -> World:
    """An HGX board: every GPU reaches every other over `links` links through NVSwitches."""
    world = World(folder)
    for i, bus in enumerate((0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF)):
        world.gpu(
            i, f"0000:{bus:02x}:00.0", name, 81559, node=i // 4, cpus=["0-47,96-143", "48-95,144-191"][i // 4]
        )
        for number in range(links):
            world.link(i, number, f"switch 0000:{5 + number % 4:02x}:00.0")
    for a, b in combinations(range(8), 2):
        world.pair(a, b, "NODE" if a // 4 == b // 4 else "SYS", nvlink=True)
    return world.save()


def one_gpu(folder: Path) -> World:
    """One card without NVLink, on a machine with one NUMA node, where NVML names no node."""
    world = World(folder).gpu(0, "0000:01:00.0", "NVIDIA GeForce RTX 4070", 12282, node=0, cpus="0-15")
    return world.drop("gpu.0.nodes").drop("gpu.0.ecc").drop("gpu.0.mig").save()
