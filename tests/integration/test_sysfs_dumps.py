"""Every sysfs dump of the reference captures, read and compared with what hwloc and the files say.

Where sysfs alone says something else than hwloc, the tables below hold what sysfs says, and why.
"""

import json
import pickle
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.once import once
from tests.shared import SHARED, needs_shared
from topod.adapters.sysfs_reader import this_machine
from topod.discovery.machine import MachineFacts, pci_link_class
from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.links import LinkClass
from topod.model.topology import Topology

pytestmark = [needs_shared, pytest.mark.shared]

HWLOC = SHARED / "hwloc"
EXPECTED = {path.stem: json.loads(path.read_text()) for path in sorted(HWLOC.glob("expected/*.json"))}
SYSFS = sorted(
    name
    for name, entry in EXPECTED.items()
    if "root_in_archive" in entry and (HWLOC / entry["dump"]).is_file()
)

NO_ARCHIVE = {"arm-A510-A710-A715-X3", "rv64-milkvpioneer"}
"""Expectations whose archive is not among the captures (util-linux-lscpu/)."""

ARCHIVE_UNPACKED_WHOLE = "2pa-pcidomain32bits"
"""Of the others only the files that a reader could want: 1.2 GB and two minutes otherwise."""
WANTED_FILES = re.compile(
    r"/proc/|/cgroup/|/cpuset/|/(online|isolated|level|class|vendor|device|numa_node|meminfo|distance"
    r"|(core|package)_cpus(_list)?|(core|thread)_siblings(_list)?|physical_package_id|core_id"
    r"|shared_cpu_(list|map)|cpu(list|map)|local_cpu(s|list))$"
)
WANTED_OTHERS = re.compile(r"/(bus/(pci|cpu|node)/devices|class/(net|infiniband))/|/(net|infiniband)/[^/]+$")

MODULES = {
    # AMD's Bulldozer family: two integer cores share a front end and a floating point unit. The kernel lists
    # them as thread siblings with different core ids, hwloc counts them as cores. For a scheduler the module
    # is the unit to keep whole, so what the kernel says stands.
    "64amd64-4s2n4ca2co": (32, 2),
    "x86+linux-64amd64-4p2n4ca2co": (32, 2),
}
L3_CUT_INTO = {
    # One L3 spans several NUMA nodes (sub-NUMA clusters or QEMU): a core group is cut at the node's border.
    "memorysidecaches": 4,
    "nri-cpuallocator-sysfs": 4,
    "nri-sysfs-sample2": 4,
    "nri-topology-aware-sysfs-server": 4,
    "fakecpuid1f-64intel64-2p4d2n2c2t": 16,
    "fakeheteromemtiers": 3,
}
SOCKETS_NUMBERED = {
    # Where package ids repeat or are -1, ours are counted; hwloc repeats the kernel's.
    "256ppc-8n8s4t",
}
NODES_LEFT_OUT = {
    # hwloc too leaves out nodes whose CPUs belong to an earlier node.
    "8em64t-2s2ca2c-buggynuma": {1, 2, 3, 4, 5, 6, 7},
    "fakeheterocpunuma": {4, 5},
}
DISTANCES_UNUSED = {
    # Edited by hand: node 0 was removed and node 1 kept its row of two. The kernel writes online nodes only.
    "offline-cpu0-node0",
}
ALLOWED = {
    # hwloc reads cpuset.cpus (0-175); the kernel says in cpuset.effective_cpus that 0-87 is in force.
    "nvidiagpunumanodes": "0-15",
}
BRIDGES_BEYOND_HWLOC = {
    # lstopo 2.9 builds its tree from bus numbers in `config`, which these dumps lack: it shows no bridges.
    "linux-amd64-8581cf3a529e5d8b97ea876eade2f60d": re.compile(r"."),
    "linux-amd64-accel-nvidia": re.compile(r"."),
    # The folder of 0000:5f:03.0 is there, but bus/pci/devices does not list it, so hwloc does not see it.
    "32intel64-2p8co2t+8ve": re.compile(r"0000:60:00\.[01]"),
}
NODES_UNLIKE_HWLOC = {
    # No numa_node file, or -1 in it: None here, while hwloc goes by the CPUs in local_cpus.
    "nvidiagpunumanodes",
    "40intel64-2g2n4c+pcilocality",
    "linux-amd64-accel-nvidia",
    "linux-arm64-c288e0776090cd558ef793b2a4e61939",
    "2pa-pcidomain32bits",
    # Some devices say -1 and others 0 or 1; hwloc without their `config` hangs all of them on the machine.
    "linux-amd64-8581cf3a529e5d8b97ea876eade2f60d",
}


@dataclass(frozen=True, kw_only=True)
class Dump:
    name: str
    facts: MachineFacts
    raw: dict[str, Any]
    hwloc: dict[str, Any]
    """The whole machine: nothing hidden by control groups, GPU memory shown as nodes."""
    shown: dict[str, Any]
    """What hwloc shows by default."""


def _facts(archive: str, into: Path) -> dict[str, MachineFacts]:
    """Return what topod finds in each dump of an archive."""
    roots = {name: EXPECTED[name]["root_in_archive"] for name in SYSFS if EXPECTED[name]["dump"] == archive}
    whole = ARCHIVE_UNPACKED_WHOLE in roots
    begins = tuple(f"/{root}/".replace("/./", "/") for root in roots.values())
    with tarfile.open(HWLOC / archive) as members:
        for member in members:
            path = "/" + str(PurePosixPath(member.name))
            wanted = WANTED_FILES.search(path) if member.isfile() else WANTED_OTHERS.search(path)
            plain = member.isfile() or member.isdir() or member.issym()
            if plain and (whole or wanted) and path.startswith(begins):
                members.extract(member, into, filter="data")
    return {name: this_machine(into / root) for name, root in roots.items()}


@pytest.fixture(scope="module", params=SYSFS)
def dump(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dump:
    name: str = request.param
    entry = EXPECTED[name]
    archive: str = entry["dump"]

    def read() -> bytes:
        folder = tmp_path_factory.mktemp("sysfs")
        try:
            return pickle.dumps(_facts(archive, folder))
        finally:
            shutil.rmtree(folder)

    # Seconds for each; and the tests of one dump may be spread over all workers.
    facts = pickle.loads(once(tmp_path_factory, archive.replace("/", "-"), read))
    hwloc = entry.get("hwloc_with_disallowed_and_gpu_nodes", entry["hwloc"])
    return Dump(name=name, facts=facts[name], raw=entry["raw"], hwloc=hwloc, shown=entry["hwloc"])


def _union(sets: Iterator[CpuSet]) -> CpuSet:
    return reduce(CpuSet.__or__, sets, NO_CPUS)


def test_every_expectation_is_a_tested_dump_or_another_format() -> None:
    xml = {name for name, entry in EXPECTED.items() if re.search(r"\.xml(\.gz)?$", entry.get("xml", ""))}
    assert set(EXPECTED) - xml - set(SYSFS) == NO_ARCHIVE
    assert len(SYSFS) == 34


def test_online_offline_and_isolated_cpus_are_those_of_the_files(dump: Dump) -> None:
    facts, raw = dump.facts, dump.raw
    assert str(facts.online) == dump.hwloc["pus"]
    assert facts.isolated == CpuSet.parse(raw["isolated"] or "")
    assert CpuSet.parse(raw["percpu_online_0"]) <= facts.offline
    if raw["offline"] is not None:
        # The kernel counts CPUs of empty sockets as offline; they are possible, not present.
        assert facts.offline == CpuSet.parse(raw["offline"]) & CpuSet.parse(raw["present"])
    else:
        assert facts.offline == CpuSet.parse(raw["percpu_online_0"])


def test_cpus_hidden_by_a_control_group_are_told_apart_from_the_hardware(dump: Dump) -> None:
    allowed = dump.facts.online if dump.facts.allowed is None else dump.facts.allowed
    assert str(allowed) == ALLOWED.get(dump.name, dump.shown["pus"])


def test_sockets_are_those_of_hwloc(dump: Dump) -> None:
    ours = {str(socket.cpus): socket.id for socket in dump.facts.sockets}
    theirs = {package["cpus"]: package["os_index"] for package in dump.hwloc["packages"]}
    assert ours.keys() == theirs.keys()
    if dump.name in SOCKETS_NUMBERED:
        assert sorted(ours.values()) == list(range(len(ours)))
    else:
        assert ours == theirs


def test_numa_nodes_and_their_memory_are_those_of_hwloc(dump: Dump) -> None:
    theirs = {node["os_index"]: node for node in dump.hwloc["numa"]}
    left_out = NODES_LEFT_OUT.get(dump.name, set())
    assert {node.id for node in dump.facts.numa_nodes} == theirs.keys()
    assert {int(name[4:]) for name in dump.raw["node_cpus"]} - left_out == theirs.keys()
    for node in dump.facts.numa_nodes:
        assert node.memory_bytes == theirs[node.id]["local_memory"]
        said = CpuSet.parse(dump.raw["node_cpus"][f"node{node.id}"]) & dump.facts.online
        assert node.cpus == said
        if said:  # hwloc gives memory-only nodes the CPUs nearest to them; a node without CPUs has none here
            assert str(node.cpus) == theirs[node.id]["cpus"]
    for number in left_out:
        assert any(note.startswith(f"NUMA node {number} left out") for note in dump.facts.notes)


def test_distances_pair_each_row_with_the_ids_of_the_nodes(dump: Dump) -> None:
    numbers = sorted(int(name[4:]) for name in dump.raw["node_cpus"])
    kept = {node.id for node in dump.facts.numa_nodes}
    for node in dump.facts.numa_nodes:
        row = [int(part) for part in dump.raw["node_distance"][f"node{node.id}"].split()]
        if dump.name in DISTANCES_UNUSED:
            assert len(row) != len(numbers)
            assert node.distances == ()
        else:
            assert node.distances == tuple(
                (number, far) for number, far in zip(numbers, row, strict=True) if number in kept
            )


def test_cores_and_hardware_threads_are_those_of_hwloc(dump: Dump) -> None:
    ours = sorted(str(core.cpus) for core in dump.facts.cores)
    if dump.name in MODULES:
        assert (len(ours), dump.facts.smt) == MODULES[dump.name]
        assert len(dump.hwloc["cores"]) == 2 * len(ours)
    else:
        assert ours == sorted(dump.hwloc["cores"])
        assert dump.facts.smt == dump.hwloc["smt"]


def test_core_groups_are_the_l3_caches_cut_at_numa_borders(dump: Dump) -> None:
    caches = [CpuSet.parse(text) for text in dump.hwloc["l3"]]
    groups = dump.facts.core_groups
    assert dump.facts.l3_count == len(caches)
    assert len(groups) == L3_CUT_INTO.get(dump.name, len(caches))
    assert _union(group.cpus for group in groups) == _union(iter(caches))
    for group in groups:
        assert any(group.cpus <= cache for cache in caches)
    if dump.name not in L3_CUT_INTO:
        assert sorted(str(group.cpus) for group in groups) == sorted(dump.hwloc["l3"])


def test_cores_nest_in_core_groups_and_core_groups_in_numa_nodes(dump: Dump) -> None:
    facts = dump.facts
    for inner, outer in (
        (facts.cores, facts.core_groups),
        (facts.cores, facts.numa_nodes),
        (facts.cores, facts.sockets),
        (facts.core_groups, facts.numa_nodes),
        (facts.core_groups, facts.sockets),
    ):
        for part in inner:
            assert sum(bool(part.cpus & whole.cpus) for whole in outer) <= 1
            assert all(part.cpus <= whole.cpus for whole in outer if part.cpus & whole.cpus)


def test_the_facts_make_a_valid_topology_with_every_online_cpu(dump: Dump) -> None:
    facts = dump.facts
    host = Topology(
        name=dump.name,
        gpus=(),
        links=(),
        sockets=facts.sockets,
        numa_nodes=facts.numa_nodes,
        core_groups=facts.core_groups,
        cores=facts.cores,
    )
    assert host.cpus == facts.online


def test_gpus_and_nics_hang_where_hwloc_sees_them(dump: Dump) -> None:
    by_address = {device.address: device for device in dump.facts.pci}
    for seen in dump.shown["gpus"] + dump.shown["nics"]:
        device = by_address[seen["busid"]]
        kind = f"{(device.pci_class or 0) >> 8:04x} [{device.vendor or 0:04x}:{device.device or 0:04x}]"
        assert kind == seen["pci_type"]
        assert set(device.net + device.infiniband) == _without_other_kinds(seen["os"])
        above = tuple(seen["path"][1:])
        beyond = BRIDGES_BEYOND_HWLOC.get(dump.name)
        if beyond and beyond.match(device.address):
            assert device.bridges[: len(above)] == above
            assert len(device.bridges) == len(above) + 1
        else:
            assert device.bridges == above
        if device.numa_node is None:
            assert dump.name in NODES_UNLIKE_HWLOC
        elif dump.name not in NODES_UNLIKE_HWLOC:
            assert str(device.numa_node) == seen["near"]["nodes"]


def _without_other_kinds(names: list[str]) -> set[str]:
    return {name for name in names if not re.match(r"ve\d|card|control|render|mic|dma", name)}


@pytest.mark.parametrize("dump", ["linux-amd64-accel-nvidia"], indirect=True)
def test_a_gpu_of_a_virtual_machine_has_no_numa_node(dump: Dump) -> None:
    (gpu,) = (device for device in dump.facts.pci if device.vendor == 0x10DE)
    assert (gpu.device, gpu.numa_node) == (0x15F8, None)
    assert gpu.local_cpus == dump.facts.online
    assert (gpu.root_complex, len(gpu.bridges)) == ("pci0000:00", 1)


@pytest.mark.parametrize("dump", ["32intel64-2p8co2t+8ve"], indirect=True)
def test_eight_accelerators_behind_two_switches_are_joined_as_drawn(dump: Dump) -> None:
    engines = [device for device in dump.facts.pci if device.vendor == 0x1BCF]
    adapters = [device for device in dump.facts.pci if device.pci_class == 0x020700]
    assert (len(engines), len(adapters)) == (8, 2)
    for a, b in combinations(range(8), 2):
        same_switch = a // 4 == b // 4
        link = pci_link_class(engines[a], engines[b])
        # The two switches hang on two host bridges of socket 0.
        assert link is (LinkClass.PIX if same_switch else LinkClass.NODE), (a, b)
    for index, engine in enumerate(engines):
        near, far = adapters[index // 4], adapters[1 - index // 4]
        assert pci_link_class(engine, near) is LinkClass.PIX
        assert pci_link_class(engine, far) is LinkClass.NODE
    ethernet = next(device for device in dump.facts.pci if device.net)
    assert pci_link_class(engines[0], ethernet) is LinkClass.NODE


@pytest.mark.parametrize("dump", ["32em64t-2n8c+dax+nvme+mic+dimms"], indirect=True)
def test_devices_on_other_sockets_are_joined_across_the_system(dump: Dump) -> None:
    by_node = {node: next(device for device in dump.facts.pci if device.numa_node == node) for node in (0, 1)}
    assert pci_link_class(by_node[0], by_node[1]) is LinkClass.SYS
    under_ports = [device for device in dump.facts.pci if device.net and device.root_complex == "pci0000:00"]
    other = next(
        device
        for device in dump.facts.pci
        if device.root_complex == "pci0000:00" and device.bridges[:1] not in ((), under_ports[0].bridges[:1])
    )
    assert pci_link_class(under_ports[0], other) is LinkClass.PHB
