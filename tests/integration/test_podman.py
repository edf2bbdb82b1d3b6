"""Podman's Docker-compatible socket: the same runtime, a real Podman service."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import psutil
import pytest

from tests.engine import busybox_rootfs, skip_or_fail
from topod.adapters.docker_runtime import DockerRuntime
from topod.errors import JobRejectedError
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, JobId, JobSpec
from topod.ports import ContainerStatus, Exit, Signal

pytestmark = pytest.mark.docker

CONFIGURATION = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
netns = "none"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
SCRIPT = 'echo ready; trap "echo told; exit 7" TERM; while :; do sleep 0.05; done'
GPU = Allocation(gpus=("GPU-a",), gpu_indices=(0,))


@pytest.fixture(scope="module")
def podman() -> Iterator[str]:
    """Give the socket of a Podman service of our own, with the image `bb:latest`."""
    if os.geteuid() != 0:
        skip_or_fail("a Podman service of our own needs root")
    for program in ("podman", "busybox", "runc"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            skip_or_fail(f"{program} is not installed")
    folder = Path(tempfile.mkdtemp(prefix="tpp-", dir="/tmp"))
    (folder / "containers.conf").write_text(CONFIGURATION)
    address = f"unix://{folder}/s"
    store = ["podman", "--root", str(folder / "root"), "--runroot", str(folder / "run")]
    environment = {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    with (folder / "log").open("wb") as log:
        service = subprocess.Popen(
            [*store, "system", "service", "-t", "0", address],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        until = time.monotonic() + 20
        while not (folder / "s").is_socket() and time.monotonic() < until:
            time.sleep(0.05)
        client = docker.DockerClient(base_url=address, timeout=60)
        client.api.import_image_from_data(busybox_rootfs(), repository="bb", tag="latest")
        client.close()
        yield address
        subprocess.run([*store, "rm", "-af"], env=environment, check=False, capture_output=True)
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(timeout=20)
        # Podman leaves the monitor of each exec behind for five minutes.
        for process in psutil.process_iter(["cmdline"]):
            if any(str(folder) in word for word in process.info["cmdline"] or ()):
                process.kill()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((mount for mount in mounts if mount.startswith(str(folder))), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def runtime(podman: str, folder: Path, *, emulated: bool = True) -> DockerRuntime:
    return DockerRuntime(
        state_id="podman", log_dir=folder, machine_cpus=CpuSet.parse("0"), base_url=podman, emulated=emulated
    )


def spec() -> JobSpec:
    return JobSpec(name="p", command=("sh", "-c", SCRIPT), image="bb:latest")


def test_a_job_runs_is_told_to_stop_and_leaves_its_log(podman: str, tmp_path: Path) -> None:
    engine = runtime(podman, tmp_path)
    exits: list[Exit] = []
    engine.watch(exits.append)
    handle = engine.create(JobId(1), 1, spec(), GPU)
    assert engine.create(JobId(1), 1, spec(), GPU) == handle, "made once, however often it is asked for"
    engine.start(handle)
    log = engine.log_path(JobId(1), 1)
    until(lambda: log.is_file() and "ready" in log.read_text())
    [seen] = engine.observe()
    assert seen.status is ContainerStatus.RUNNING
    # Podman 4.3 now and then loses what a command prints that ends at once; how it ended it always tells.
    hooks = [engine.run_hook(handle, ("echo", "saved"), 10.0) for _ in range(5)]
    assert (0, "saved\n") in hooks
    assert {status for status, _ in hooks} == {0}
    engine.signal(handle, Signal.TERM)
    until(lambda: bool(exits))
    assert exits[0].exit_code == 7
    engine.remove(handle)
    assert engine.observe() == ()
    assert log.read_text() == "ready\ntold\n"
    engine.close()


def test_gpus_are_refused_because_podman_would_ignore_the_request(podman: str, tmp_path: Path) -> None:
    engine = runtime(podman, tmp_path, emulated=False)
    with pytest.raises(JobRejectedError, match="Podman"):
        engine.create(JobId(2), 1, spec(), GPU)
    assert engine.observe() == ()
    engine.close()


def until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)
