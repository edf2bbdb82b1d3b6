"""What becomes of NVML, sysfs and the matrix when they agree, differ or are missing."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from tests.shared import SHARED, needs_shared
from topod.discovery.from_matrix import topology_from_matrix
from topod.discovery.gpufacts import GpuFact, GpuFacts, NvLink, PairFact
from topod.discovery.machine import MachineFacts, PciDevice
from topod.discovery.merge import merge
from topod.discovery.parse_smi_topo import Matrix, parse_matrix
from topod.model.cpuset import CpuSet
from topod.model.topology import Core, Fact, NumaNode, Socket, Topology

ADDRESSES = ("0000:17:00.0", "0000:31:00.0", "0000:b1:00.0", "0000:ca:00.0")

MATRICES = sorted(path for path in (SHARED / "topo").glob("*.txt") if "." not in path.stem)
"""Without the captures of other commands (`name.lscpu.txt`)."""


def matrix(rows: list[str], affinity: list[str] | None = None) -> Matrix:
    """A matrix from the links of each GPU and, per GPU, `CPUs|NUMA`."""
    names = [f"GPU{i}" for i in range(len(rows))]
    text = "\t" + "\t".join([*names, *(["CPU Affinity", "NUMA Affinity"] if affinity else [])]) + "\n"
    for i, row in enumerate(rows):
        cells = [names[i], *row.split(), *(affinity[i].split("|") if affinity else [])]
        text += "\t".join(cells) + "\n"
    return parse_matrix(text)


def pair_matrix() -> Matrix:
    rows = ["X NV12 SYS SYS", "NV12 X SYS SYS", "SYS SYS X NV12", "SYS SYS NV12 X"]
    return matrix(rows, ["0-3|0", "0-3|0", "4-7|1", "4-7|1"])


def nvml(*, links: bool = True) -> GpuFacts:
    """Four GPUs, two bridged pairs, two NUMA nodes."""
    gpus = tuple(
        GpuFact(
            index=i,
            uuid=f"GPU-{i}",
            name="A100",
            pci_address=address,
            memory_bytes=40 << 30,
            cpus=("0-3", "4-7")[i // 2],
            memory_nodes=(i // 2,),
            mig=False,
            nvlinks=tuple(NvLink(number=n, remote="gpu", remote_pci=ADDRESSES[i ^ 1]) for n in range(12))
            if links
            else (),
        )
        for i, address in enumerate(ADDRESSES)
    )
    pairs = tuple(
        PairFact(
            a=a,
            b=b,
            ancestor="NODE" if a // 2 == b // 2 else "SYS",
            p2p_nvlink=links and a // 2 == b // 2,
            p2p_read=a // 2 == b // 2,
        )
        for a, b in combinations(range(4), 2)
    )
    return GpuFacts(driver="550", gpus=gpus, pairs=pairs)


def card(address: str, node: int | None, root: str | None = None, bridges: tuple[str, ...] = ()) -> PciDevice:
    cpus = None if node is None else CpuSet.parse(("0-3", "4-7")[node])
    return PciDevice(
        address=address,
        pci_class=0x030200,
        vendor=0x10DE,
        numa_node=node,
        local_cpus=cpus,
        root_complex=root or f"pci{address[:7]}",
        bridges=bridges,
    )


def machine(*pci: PciDevice) -> MachineFacts:
    """Two sockets with four CPUs each, CPU 7 offline."""
    online = CpuSet.parse("0-6")
    halves = (CpuSet.parse("0-3"), CpuSet.parse("4-6"))
    return MachineFacts(
        sockets=tuple(Socket(id=i, cpus=cpus) for i, cpus in enumerate(halves)),
        numa_nodes=tuple(NumaNode(id=i, cpus=cpus, memory_bytes=1 << 35) for i, cpus in enumerate(halves)),
        core_groups=(),
        cores=tuple(Core(id=cpu, cpus=CpuSet.of([cpu])) for cpu in online),
        online=online,
        offline=CpuSet.of([7]),
        pci=pci,
    )


def four_cards() -> tuple[PciDevice, ...]:
    return tuple(card(address, i // 2) for i, address in enumerate(ADDRESSES))


def tokens(topology: Topology) -> list[str]:
    return [" ".join(link.token if link else "X" for link in row) for row in topology.links]


def fact(topology: Topology, subject: str) -> Fact:
    (found,) = [each for each in topology.facts if each.subject == subject]
    return found


PAIRS = ["X NV12 SYS SYS", "NV12 X SYS SYS", "SYS SYS X NV12", "SYS SYS NV12 X"]


def test_sources_that_agree_give_one_host_without_a_word() -> None:
    topology, notes = merge(nvml(), machine(*four_cards()), pair_matrix(), "host")
    assert notes == ()
    assert tokens(topology) == PAIRS
    assert [gpu.uuid for gpu in topology.gpus] == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]
    assert [gpu.numa_node for gpu in topology.gpus] == [0, 0, 1, 1]
    assert topology.gpus[0].memory_bytes == 40 << 30
    assert fact(topology, "gpus").source == "nvml"
    assert fact(topology, "links").source == "nvml"
    assert fact(topology, "gpu3.numa_node") == Fact(subject="gpu3.numa_node", source="sysfs")
    assert fact(topology, "gpu3.cpus").source == "sysfs"
    assert not [each for each in topology.facts if each.disagrees]


def test_offline_cpus_are_in_no_core_and_beside_no_gpu() -> None:
    topology, _ = merge(nvml(), machine(*four_cards()), pair_matrix(), "host")
    assert str(topology.gpus[3].cpus) == "4-6"
    assert 7 not in topology.cpus


def test_without_sysfs_the_affinities_are_nvmls() -> None:
    topology, _ = merge(nvml(), None, pair_matrix(), "host")
    assert [gpu.numa_node for gpu in topology.gpus] == [0, 0, 1, 1]
    assert [str(gpu.cpus) for gpu in topology.gpus] == ["0-3", "0-3", "4-7", "4-7"]
    assert fact(topology, "gpu2.numa_node").source == "nvml"
    assert fact(topology, "gpu2.cpus").source == "nvml"
    assert [(node.id, str(node.cpus)) for node in topology.numa_nodes] == [(0, "0-3"), (1, "4-7")]


def test_without_nvml_and_sysfs_the_matrix_stands_alone() -> None:
    topology, notes = merge(None, None, pair_matrix(), "host")
    assert tokens(topology) == PAIRS
    assert [gpu.numa_node for gpu in topology.gpus] == [0, 0, 1, 1]
    assert topology.gpus[1].cpus_text == "0-3"
    assert [gpu.uuid for gpu in topology.gpus] == [f"matrix:host:{i}" for i in range(4)]
    assert fact(topology, "links").source == "nvidia-smi topo -m"
    assert fact(topology, "gpu0.numa_node").source == "nvidia-smi topo -m"
    assert notes == ("without NVML the GPUs have no UUID: they are known by index only",)


def test_the_matrix_and_sysfs_are_matched_in_pci_order() -> None:
    cards = (card("0000:17:00.0", 1), card("0000:31:00.0", 0))
    rows = matrix(["X PHB", "PHB X"], ["0-3|0", "4-7|1"])
    topology, notes = merge(None, machine(*cards), rows, "host")
    assert [gpu.pci_address for gpu in topology.gpus] == ["0000:17:00.0", "0000:31:00.0"]
    assert [gpu.numa_node for gpu in topology.gpus] == [1, 0]
    assert fact(topology, "gpu0.numa_node").disagrees == ("nvidia-smi topo -m said 0",)
    assert "gpu0.numa_node: sysfs holds, nvidia-smi topo -m said 0" in notes


def test_sysfs_outweighs_nvml_and_nvml_outweighs_the_matrix_on_numa_nodes() -> None:
    text = matrix(PAIRS, ["0-3|1", "0-3|0", "4-7|0", "4-7|1"])
    cards = (card(ADDRESSES[0], 1), *(card(address, None) for address in ADDRESSES[1:]))
    topology, notes = merge(nvml(), machine(*cards), text, "host")
    assert [gpu.numa_node for gpu in topology.gpus] == [1, 0, 1, 1]
    assert fact(topology, "gpu0.numa_node") == Fact(
        subject="gpu0.numa_node", source="sysfs", disagrees=("nvml said 0",)
    )
    assert fact(topology, "gpu2.numa_node") == Fact(
        subject="gpu2.numa_node", source="nvml", disagrees=("nvidia-smi topo -m said 0",)
    )
    assert "gpu2.numa_node: nvml holds, nvidia-smi topo -m said 0" in notes


def test_an_unknown_node_on_a_machine_with_one_node_is_that_node() -> None:
    one = machine(card(ADDRESSES[0], None))
    only = NumaNode(id=0, cpus=CpuSet.parse("0-6"))
    memory_only = NumaNode(id=1, cpus=CpuSet(), memory_bytes=1 << 30)
    facts = GpuFacts(gpus=(GpuFact(index=0, uuid="GPU-0", pci_address=ADDRESSES[0], nvlinks=()),))
    topology, _ = merge(facts, replace(one, numa_nodes=(only, memory_only)), None, "host")
    assert topology.gpus[0].numa_node == 0
    assert fact(topology, "gpu0.numa_node").source == "inferred: only NUMA node"
    assert str(topology.gpus[0].cpus) == "0-6"
    assert fact(topology, "gpu0.cpus").source == "inferred: the CPUs of its NUMA node"


def test_an_unknown_node_on_a_machine_with_two_nodes_stays_unknown() -> None:
    facts = GpuFacts(gpus=(GpuFact(index=0, uuid="GPU-0", pci_address=ADDRESSES[0], memory_nodes=(0, 1)),))
    everywhere = replace(card(ADDRESSES[0], None), local_cpus=CpuSet.parse("0-6"))
    topology, _ = merge(facts, machine(everywhere), None, "host")
    assert topology.gpus[0].numa_node is None
    assert topology.gpus[0].cpus is None
    assert not [each for each in topology.facts if each.subject == "gpu0.numa_node"]


def test_a_node_that_the_machine_does_not_have_is_not_believed() -> None:
    text = matrix(["X PHB", "PHB X"], ["0-3|0", "4-7|5"])
    topology, _ = merge(None, machine(), text, "host")
    assert [gpu.numa_node for gpu in topology.gpus] == [0, None]


def test_a_cpu_list_that_nvidia_smi_cut_short_is_no_disagreement() -> None:
    facts = replace(nvml(), gpus=nvml().gpus[:1], pairs=())
    text = matrix(["X"], ["0,1,2|0"])
    topology, notes = merge(facts, machine(card(ADDRESSES[0], 0)), text, "host")
    assert str(topology.gpus[0].cpus) == "0-3"
    assert notes == ()
    _, notes = merge(facts, machine(card(ADDRESSES[0], 0)), matrix(["X"], ["4-6|0"]), "host")
    assert notes == ("gpu0.cpus: sysfs holds, nvidia-smi topo -m said 4-6",)


def test_links_that_differ_are_named_once_with_their_number() -> None:
    text = matrix(["X NV12 NODE NODE", "NV12 X NODE NODE", "NODE NODE X PIX", "NODE NODE PIX X"])
    topology, notes = merge(nvml(), machine(*four_cards()), text, "host")
    assert tokens(topology) == PAIRS
    assert notes == (
        "gpu0-gpu2 and 3 more links: nvml says SYS, nvidia-smi topo -m says NODE; nvml holds",
        "gpu2-gpu3: nvml says NV12, nvidia-smi topo -m says PIX; nvml holds",
    )
    assert fact(topology, "gpu2-gpu3.link").disagrees == ("nvidia-smi topo -m said PIX",)


def test_nvlinks_that_nvml_cannot_count_come_from_the_matrix() -> None:
    blind = replace(nvml(), gpus=tuple(replace(gpu, nvlinks=None) for gpu in nvml().gpus))
    topology, notes = merge(blind, machine(*four_cards()), pair_matrix(), "host")
    assert tokens(topology) == PAIRS
    assert fact(topology, "gpu0-gpu1.link").source == "nvidia-smi topo -m"
    assert notes == ()


def test_nvlinks_that_nobody_counts_are_one() -> None:
    blind = replace(nvml(), gpus=tuple(replace(gpu, nvlinks=None) for gpu in nvml().gpus))
    topology, _ = merge(blind, machine(*four_cards()), None, "host")
    assert tokens(topology)[0] == "X NV1 SYS SYS"
    assert fact(topology, "gpu0-gpu1.link").source == "inferred: NVML says NVLink, not how many"


@pytest.mark.parametrize(
    ("roots", "bridges", "expected"),
    [
        (
            ("pci0000:16", "pci0000:16"),
            (("0000:16:01.0", "0000:17:00.0"), ("0000:16:01.0", "0000:17:00.0")),
            "PIX",
        ),
        (("pci0000:16", "pci0000:16"), (("0000:16:01.0",), ("0000:16:02.0",)), "PHB"),
        (("pci0000:16", "pci0000:30"), ((), ()), "NODE"),
    ],
)
def test_without_an_ancestor_from_nvml_the_pci_paths_decide(
    roots: tuple[str, str], bridges: tuple[tuple[str, ...], tuple[str, ...]], expected: str
) -> None:
    facts = GpuFacts(gpus=tuple(replace(gpu, nvlinks=()) for gpu in nvml().gpus[:2]))
    cards = [card(ADDRESSES[i], 0, roots[i], bridges[i]) for i in range(2)]
    topology, notes = merge(facts, machine(*cards), matrix(["X SYS", "SYS X"]), "host")
    assert tokens(topology) == [f"X {expected}", f"{expected} X"]
    assert fact(topology, "links").source == "sysfs"
    assert notes == (f"gpu0-gpu1: sysfs says {expected}, nvidia-smi topo -m says SYS; sysfs holds",)


def test_without_any_source_a_link_is_taken_as_the_farthest() -> None:
    facts = GpuFacts(gpus=tuple(GpuFact(index=i, uuid=f"GPU-{i}", nvlinks=()) for i in range(2)))
    topology, _ = merge(facts, None, None, "host")
    assert tokens(topology) == ["X SYS", "SYS X"]
    assert fact(topology, "links").source == "inferred: unknown, taken as farthest"


def test_a_lost_gpu_is_left_out_and_the_others_keep_their_links() -> None:
    facts = nvml()
    lost = GpuFact(index=1, problem="GPU is lost")
    pairs = tuple(pair for pair in facts.pairs if 1 not in {pair.a, pair.b})
    facts = replace(facts, gpus=(facts.gpus[0], lost, *facts.gpus[2:]), pairs=pairs)
    for text in (None, pair_matrix(), matrix(["X SYS SYS", "SYS X NV12", "SYS NV12 X"])):
        topology, notes = merge(facts, machine(*four_cards()), text, "host")
        assert [gpu.uuid for gpu in topology.gpus] == ["GPU-0", "GPU-2", "GPU-3"]
        assert tokens(topology) == ["X SYS SYS", "SYS X NV12", "SYS NV12 X"]
        assert notes == ("GPU 1 is left out: GPU is lost",)


def test_a_matrix_of_another_number_of_gpus_is_not_used() -> None:
    text = parse_matrix("\tGPU0\tGPU1\tNIC0\nGPU0\t X \tNV4\tPIX\nGPU1\tNV4\t X \tPIX\nNIC0\tPIX\tPIX\t X \n")
    topology, notes = merge(nvml(), machine(*four_cards()), text, "host")
    assert tokens(topology) == PAIRS
    assert topology.nics == ()
    assert notes == ("nvidia-smi topo -m shows 2 GPUs and NVML 4: its matrix is not used",)


def test_gpus_in_mig_mode_are_named() -> None:
    facts = nvml()
    facts = replace(facts, gpus=(replace(facts.gpus[0], mig=True), *facts.gpus[1:]))
    _, notes = merge(facts, machine(*four_cards()), None, "host")
    assert notes == ("GPU 0 (GPU-0) is in MIG mode: topod gives out whole GPUs only",)


def test_gpus_that_only_sysfs_shows_are_named_and_left_out() -> None:
    topology, notes = merge(None, machine(*four_cards()), None, "host")
    assert topology.gpus == ()
    assert len(topology.cores) == 7
    assert "they cannot be used" in notes[0]
    two = replace(nvml(), gpus=nvml().gpus[:3])
    _, notes = merge(two, machine(*four_cards()), None, "host")
    assert notes == ("NVML does not list the NVIDIA GPUs at 0000:ca:00.0 that sysfs shows",)


def test_a_host_without_anything_has_no_gpus() -> None:
    topology, notes = merge(None, None, None, "host")
    assert (topology.gpus, topology.links, topology.numa_nodes, notes) == ((), (), (), ())


def test_nics_come_from_the_matrix_with_their_address_from_sysfs_and_then_from_sysfs_alone() -> None:
    text = (
        "\tGPU0\tNIC0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \tPIX\t0-3\t0\nNIC0\tPIX\t X \t\t\n\n"
        "NIC Legend:\n\n  NIC0: mlx5_0\n"
    )
    rdma = PciDevice(
        address="0000:18:00.0",
        pci_class=0x020700,
        numa_node=0,
        root_complex="pci0000:16",
        infiniband=("mlx5_0",),
    )
    far = PciDevice(
        address="0000:e0:00.0",
        pci_class=0x020700,
        numa_node=1,
        root_complex="pci0000:e0",
        infiniband=("mlx5_1",),
    )
    plain = PciDevice(address="0000:01:00.0", pci_class=0x020000, net=("eth0",))
    gpu = card(ADDRESSES[0], 0, "pci0000:16", ("0000:16:01.0",))
    rdma = replace(rdma, bridges=("0000:16:01.0",))
    facts = replace(nvml(), gpus=nvml().gpus[:1], pairs=())
    topology, notes = merge(facts, machine(gpu, rdma, far, plain), parse_matrix(text), "host")
    assert [(nic.name, nic.device, nic.pci_address, nic.numa_node) for nic in topology.nics] == [
        ("NIC0", "mlx5_0", "0000:18:00.0", 0),
        ("mlx5_1", None, "0000:e0:00.0", 1),
    ]
    assert [link.token if link else None for link in topology.nic_links[0]] == ["PIX", "SYS"]
    assert notes == ()


def test_network_cards_are_shown_where_there_is_no_rdma() -> None:
    plain = PciDevice(address="0000:01:00.0", pci_class=0x020000, root_complex="pci0000:00", net=("eth0",))
    topology, _ = merge(None, machine(plain), None, "host")
    assert [nic.name for nic in topology.nics] == ["eth0"]
    assert fact(topology, "nics").source == "sysfs"


@pytest.mark.shared
@needs_shared
@pytest.mark.parametrize("path", MATRICES, ids=lambda path: path.stem)
def test_a_matrix_alone_keeps_its_links_and_its_affinities(path: Path) -> None:
    text = parse_matrix(path.read_text(errors="replace"))
    alone, _ = merge(None, None, text, "host")
    plain = topology_from_matrix(text, "host")
    assert (alone.links, alone.nics, alone.nic_links) == (plain.links, plain.nics, plain.nic_links)
    assert alone.gpus == plain.gpus
    assert alone.numa_nodes == plain.numa_nodes
