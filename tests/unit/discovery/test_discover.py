"""Discovery with sources that answer, fail, hang or are broken."""

import logging
import threading
from collections.abc import Iterator

import pytest

from topod.discovery.discover import discover
from topod.discovery.gpufacts import GpuFact, GpuFacts
from topod.discovery.machine import MachineFacts
from topod.errors import ProbeError
from topod.model.cpuset import CpuSet
from topod.model.topology import NumaNode

ONE_GPU = GpuFacts(gpus=(GpuFact(index=0, uuid="GPU-0", memory_nodes=(0,), cpus="0-3", nvlinks=()),))
MATRIX = "\tGPU0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \t0-3\t1\n"
NODE = NumaNode(id=0, cpus=CpuSet.parse("0-3"))
TWO_NODES = MachineFacts(
    sockets=(),
    numa_nodes=(NODE, NumaNode(id=1, cpus=CpuSet.parse("4-7"))),
    core_groups=(),
    cores=(),
    online=CpuSet.parse("0-7"),
)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Ends the hanging source when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def absent(_timeout: float) -> GpuFacts:
    raise ProbeError("NVML library not found")


def test_a_host_without_gpus_is_a_host_without_gpus() -> None:
    def no_program(_timeout: float) -> str:
        raise ProbeError("it is not installed")

    found = discover(name="cpu-box", nvml=absent, matrix=no_program, machine=lambda _: TWO_NODES, timeout=30)
    assert found.topology.gpus == ()
    assert found.topology.name == "cpu-box"
    assert str(found.topology.cpus) == "0-7"
    assert found.problems == ("NVML library not found", "nvidia-smi: it is not installed")


def test_disagreements_are_logged_as_warnings(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = discover(
            name="box",
            nvml=lambda _: ONE_GPU,
            matrix=lambda _: MATRIX,
            machine=lambda _: TWO_NODES,
            timeout=30,
        )
    sentence = "gpu0.numa_node: nvml holds, nvidia-smi topo -m said 1"
    assert found.notes == (sentence,)
    assert [record.message for record in caplog.records] == [f"topology of box: {sentence}"]


def test_a_source_that_hangs_is_a_problem_and_costs_the_others_nothing(release: threading.Event) -> None:
    def hang(_timeout: float) -> MachineFacts:
        release.wait()
        return TWO_NODES

    found = discover(name="box", nvml=lambda _: ONE_GPU, machine=hang, timeout=0.1)
    assert found.problems == ("sysfs: did not answer in time",)
    assert [gpu.uuid for gpu in found.topology.gpus] == ["GPU-0"]


def test_a_damaged_matrix_is_a_problem_with_its_place() -> None:
    found = discover(name="box", nvml=lambda _: ONE_GPU, matrix=lambda _: "\tGPU0\nGPU0\tWHAT\n", timeout=30)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("nvidia-smi")
    assert "WHAT" in found.problems[0]
    assert len(found.topology.gpus) == 1


def test_a_fault_in_one_reader_leaves_the_others() -> None:
    def broken(_timeout: float) -> MachineFacts:
        raise ZeroDivisionError("by accident")

    found = discover(name="box", nvml=lambda _: ONE_GPU, machine=broken, timeout=30)
    assert found.problems == ("sysfs: ZeroDivisionError: by accident",)
    assert len(found.topology.gpus) == 1
