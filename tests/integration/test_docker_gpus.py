"""GPUs reach a container by UUID: a real engine, with a stand-in for NVIDIA's OCI hook.

The engine offers `--gpus` once a program of the hook's name is on its path; what it hands to the hook is what
the real one would get.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import PrivateEngine, missing_parts, skip_or_fail
from topod.adapters.docker_runtime import DockerRuntime
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, JobId, JobSpec
from topod.ports import Exit

pytestmark = pytest.mark.docker

HOOK = """#!/bin/sh
cat >/dev/null
exit 0
"""


@pytest.fixture
def gpu_engine() -> Iterator[PrivateEngine]:
    if reason := missing_parts():
        skip_or_fail(reason)
    folder = Path(tempfile.mkdtemp(prefix="tpg-", dir="/tmp"))
    programs = folder / "programs"
    programs.mkdir()
    hook = programs / "nvidia-container-runtime-hook"
    hook.write_text(HOOK)
    hook.chmod(0o755)
    engine = PrivateEngine(folder, programs=programs)
    try:
        engine.start()
        engine.import_image()
        yield engine
    finally:
        engine.stop()


def run(engine: PrivateEngine, folder: Path, allocation: Allocation) -> str:
    """Run `env` as a job on a host that is not emulated and return what it printed."""
    exits: list[Exit] = []
    runtime = DockerRuntime(
        state_id="gpus", log_dir=folder, machine_cpus=CpuSet.parse("0"), base_url=engine.base_url,
        network_mode="none",
    )  # fmt: skip
    spec = JobSpec(name="env", command=("env",), image=engine.image)
    handle = runtime.create(JobId(1), 1, spec, allocation)
    try:
        runtime.start(handle)
        runtime.watch(exits.append)
        client = engine.client()
        client.containers.get(handle).wait(timeout=30)
        client.close()
    finally:
        runtime.remove(handle)
        runtime.close()
    return runtime.log_path(JobId(1), 1).read_text()


def test_the_gpus_of_the_plan_are_named_by_uuid_and_no_others(
    gpu_engine: PrivateEngine, tmp_path: Path
) -> None:
    given = Allocation(gpus=("GPU-aaaa-1", "GPU-bbbb-2"), gpu_indices=(3, 5))
    printed = dict(line.split("=", 1) for line in run(gpu_engine, tmp_path, given).splitlines())
    assert printed["NVIDIA_VISIBLE_DEVICES"] == "GPU-aaaa-1,GPU-bbbb-2"
    assert printed["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert printed["TOPOD_GPUS"] == "GPU-aaaa-1,GPU-bbbb-2"
    assert "CUDA_VISIBLE_DEVICES" not in printed, "inside the container GPUs are counted from 0"


def test_a_job_without_gpus_sees_none_even_where_the_image_asks_for_all(
    gpu_engine: PrivateEngine, tmp_path: Path
) -> None:
    printed = dict(line.split("=", 1) for line in run(gpu_engine, tmp_path, Allocation()).splitlines())
    assert printed["NVIDIA_VISIBLE_DEVICES"] == "void"
