"""Checks on a host with a real NVIDIA GPU: NVML, nvidia-smi and sysfs describe the same machine."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.gpu.conftest import PATIENT
from topod.adapters.host_discovery import discover_host
from topod.adapters.nvidia_smi import topology_matrix
from topod.adapters.nvml_probe import NvmlProbe
from topod.discovery.parse_smi_topo import parse_matrix
from topod.errors import ProbeError

pytestmark = pytest.mark.gpu

HOLD_A_GPU = textwrap.dedent(
    """
    import ctypes, sys
    cuda = ctypes.CDLL("libcuda.so.1")
    context, memory, device = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_int()
    uuid = (ctypes.c_ubyte * 16)()
    for step in (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), 0),
        lambda: cuda.cuDeviceGetUuid(uuid, device),
        lambda: cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device),
        lambda: cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(2 << 30)),
    ):
        if step():
            sys.exit("the CUDA driver refused")
    text = bytes(uuid).hex()
    print("GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])), flush=True)
    sys.stdin.read()
    """
)


def test_every_gpu_has_its_lasting_facts(probe: NvmlProbe) -> None:
    for gpu in probe.snapshot(PATIENT).gpus:
        assert gpu.uuid is not None, gpu.problem
        assert gpu.uuid.startswith("GPU-")
        assert gpu.name
        assert gpu.pci_address is not None
        assert gpu.nvlinks is not None


def test_every_gpu_answers_a_live_reading(probe: NvmlProbe) -> None:
    live = probe.live(PATIENT)
    assert live.gpus
    for gpu in live.gpus:
        assert gpu.problem is None
        assert gpu.processes is not None
        assert gpu.temperature_celsius is None or 0 < gpu.temperature_celsius < 120


def test_nvml_and_the_matrix_agree_after_the_merge(probe: NvmlProbe) -> None:
    try:
        matrix = parse_matrix(topology_matrix(PATIENT))
    except ProbeError as error:
        pytest.skip(f"nvidia-smi prints no matrix: {error}")
    found = discover_host(nvml=probe, timeout=PATIENT)
    ours = tuple(tuple(link.token if link else "X" for link in row) for row in found.topology.links)
    assert ours == matrix.links
    assert found.problems == ()
    of_links = [note for note in found.notes if "-gpu" in note and "link" in note]
    assert of_links == []
    for gpu, row in zip(found.topology.gpus, matrix.gpus, strict=True):
        assert row.numa_node is None or gpu.numa_node == row.numa_node


def test_a_process_shows_up_on_its_gpu_and_the_gpu_is_free_when_it_ends(probe: NvmlProbe) -> None:
    probe.live(PATIENT)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_GPU], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        uuid = holder.stdout.readline().strip()
        if not uuid:
            pytest.skip("no CUDA program can run here")
        busy = probe.busy((uuid,), PATIENT)
        seen = {process.pid for process in probe.processes(PATIENT)[uuid] or ()}
        assert "MiB in use" in busy[uuid]
        # In a container with PIDs of its own NVML still gives the host's.
        if Path("/proc/self/ns/pid").readlink() == Path("/proc/1/ns/pid").readlink():
            assert holder.pid in seen or not seen
    finally:
        holder.stdin.close()
        holder.wait(PATIENT)
        holder.stdout.close()
    deadline = time.monotonic() + PATIENT
    while probe.busy((uuid,), PATIENT):
        assert time.monotonic() < deadline, "the GPU was not freed"
