"""Discovery of a whole host: the NVML stand-in, an nvidia-smi script and a sysfs tree, together."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nvml.stand_in import World, build_library, eight_hgx, four_a100_in_pairs, one_gpu, uuid
from topod.adapters.host_discovery import discover_host
from topod.adapters.nvml_probe import NvmlProbe

PAIRS = """\
\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV12\tSYS\tSYS\t0-15,32-47\t0\t\tN/A
GPU1\tNV12\t X \tSYS\tSYS\t0-15,32-47\t0\t\tN/A
GPU2\tSYS\tSYS\t X \tNV12\t16-31,48-63\t1\t\tN/A
GPU3\tSYS\tSYS\tNV12\t X \t16-31,48-63\t1\t\tN/A
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml-host"))


@pytest.fixture
def probe(library: Path, tmp_path: Path) -> Iterator[NvmlProbe]:
    probe = NvmlProbe(environment=World(tmp_path).environment(library))
    yield probe
    probe.close()


def nvidia_smi(folder: Path, script: str) -> str:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def sysfs(root: Path, nodes: list[str], gpus: dict[str, int]) -> Path:
    """A small sysfs tree: NUMA nodes with their CPUs, and GPUs with their node."""
    for node, cpus in enumerate(nodes):
        folder = root / f"sys/devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(cpus)
    for cpu in range(64):
        (root / f"sys/devices/system/cpu/cpu{cpu}").mkdir(parents=True)
    (root / "sys/devices/system/cpu/online").write_text("0-63")
    for address, node in gpus.items():
        folder = root / "sys/bus/pci/devices" / address
        folder.mkdir(parents=True)
        (folder / "vendor").write_text("0x10de")
        (folder / "class").write_text("0x030200")
        (folder / "numa_node").write_text(str(node))
        (folder / "local_cpulist").write_text(nodes[node] if node >= 0 else "0-63")
    return root


def tokens(row: tuple[object, ...]) -> list[str]:
    return [getattr(link, "token", "X") for link in row]


def test_a_host_on_which_all_sources_agree(probe: NvmlProbe, tmp_path: Path) -> None:
    four_a100_in_pairs(tmp_path)
    gpus = {"0000:17:00.0": 0, "0000:31:00.0": 0, "0000:b1:00.0": 1, "0000:ca:00.0": 1}
    root = sysfs(tmp_path / "root", ["0-15,32-47", "16-31,48-63"], gpus)
    program = nvidia_smi(tmp_path, f"cat <<'END'\n{PAIRS}END")
    found = discover_host(nvml=probe, sysfs_root=root, nvidia_smi=program, name="pairs", timeout=60)
    assert found.problems == ()
    assert found.notes == ()
    assert [tokens(row) for row in found.topology.links] == [
        ["X", "NV12", "SYS", "SYS"],
        ["NV12", "X", "SYS", "SYS"],
        ["SYS", "SYS", "X", "NV12"],
        ["SYS", "SYS", "NV12", "X"],
    ]
    assert [(gpu.uuid, gpu.numa_node, str(gpu.cpus)) for gpu in found.topology.gpus] == [
        (uuid(0), 0, "0-15,32-47"),
        (uuid(1), 0, "0-15,32-47"),
        (uuid(2), 1, "16-31,48-63"),
        (uuid(3), 1, "16-31,48-63"),
    ]


def test_nvml_alone_describes_an_hgx_board_when_the_matrix_command_fails(
    probe: NvmlProbe, tmp_path: Path
) -> None:
    eight_hgx(tmp_path)
    program = nvidia_smi(tmp_path, "echo 'Failed to get RDMA device'; exit 255")
    missing = tmp_path / "nothing"
    found = discover_host(nvml=probe, sysfs_root=missing, nvidia_smi=program, timeout=60)
    assert len(found.problems) == 2
    assert "status 255: Failed to get RDMA device" in found.problems[0]
    assert found.problems[1].startswith("sysfs: ")
    assert {link.token for row in found.topology.links for link in row if link} == {"NV18"}


def test_one_card_on_a_machine_with_one_node_is_on_that_node(probe: NvmlProbe, tmp_path: Path) -> None:
    one_gpu(tmp_path)
    root = sysfs(tmp_path / "root", ["0-63"], {"0000:01:00.0": -1})
    found = discover_host(nvml=probe, sysfs_root=root, nvidia_smi=None, timeout=60)
    (gpu,) = found.topology.gpus
    assert (gpu.numa_node, str(gpu.cpus)) == (0, "0-15")
    sources = {fact.subject: fact.source for fact in found.topology.facts}
    assert sources["gpu0.numa_node"] == "inferred: only NUMA node"
    assert sources["gpu0.cpus"] == "nvml"


def test_wedged_tools_leave_a_host_whose_cpus_can_be_used(probe: NvmlProbe, tmp_path: Path) -> None:
    four_a100_in_pairs(tmp_path).put(hang__nvmlDeviceGetCount_v2=1).save()
    root = sysfs(tmp_path / "root", ["0-31", "32-63"], {"0000:17:00.0": 0})
    program = nvidia_smi(tmp_path, "exec sleep 600")
    found = discover_host(nvml=probe, sysfs_root=root, nvidia_smi=program, timeout=2)
    assert found.topology.gpus == ()
    assert str(found.topology.cpus) == "0-63"
    assert [problem.partition(" did not")[0] for problem in found.problems] == [
        "NVML",
        f"nvidia-smi: {program} topo -m",
    ]
    assert "0000:17:00.0" in found.notes[0]


def test_this_machine_can_be_discovered() -> None:
    found = discover_host(timeout=60)
    assert found.topology.cpus
    assert found.topology.name
