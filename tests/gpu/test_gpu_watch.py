"""On a host with a real NVIDIA GPU: a real topod sees it well, and who is on it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpu.conftest import PATIENT
from tests.gpu.test_real_gpu import HOLD_A_GPU
from tests.integration.daemon_process import Topod
from topod.adapters.host_processes import sees_every_process
from topod.adapters.nvml_probe import NvmlProbe
from topod.health.findings import findings
from topod.health.rules import HealthRules
from topod.protocol.replies import Host
from topod.protocol.requests import Cancel, GetHost
from topod.protocol.views import GpuView

pytestmark = pytest.mark.gpu


@pytest.fixture
def topod(probe: NvmlProbe, tmp_path: Path) -> Iterator[Topod]:
    del probe  # there is a GPU
    (tmp_path / "topod.toml").write_text("[health]\ninterval = 0.5\ntimeout = 30\n")
    environment = {"TOPOD_CONFIG": str(tmp_path / "topod.toml")}
    with Topod(tmp_path / "t", host="", environment=environment) as topod:
        yield topod.start()


def gpus(topod: Topod) -> list[GpuView]:
    reply = topod.ask(GetHost())
    assert isinstance(reply, Host)
    assert reply.host.blind is None
    return reply.host.gpus


def test_a_healthy_gpu_shows_nothing_that_speaks_against_it(probe: NvmlProbe) -> None:
    for gpu in probe.live(PATIENT).gpus:
        assert findings(gpu, HealthRules()) == ()
        assert gpu.recovery in (None, "none")


def test_nvml_lets_us_listen_to_xids(probe: NvmlProbe) -> None:
    assert probe.events(PATIENT) == ()


def test_who_holds_memory_on_a_gpu_is_foreign_unless_it_is_a_job(topod: Topod, tmp_path: Path) -> None:
    if not sees_every_process():
        pytest.skip("in a container with PIDs of its own NVML's PIDs say nothing")
    topod.until(lambda: all(gpu.state == "free" for gpu in gpus(topod)))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_GPU], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        uuid = holder.stdout.readline().strip()
        if not uuid:
            pytest.skip("no CUDA program can run here")
        topod.until(lambda: _of(topod, uuid).state == "foreign", PATIENT)
        assert _of(topod, uuid).reason.startswith(f"foreign: pid {holder.pid} (")
        holder.communicate()
    topod.until(lambda: _of(topod, uuid).state == "free", PATIENT)
    # The same program as a job is at home: it is on the GPU when it prints, and stays without a mark.
    script = tmp_path / "hold.py"
    script.write_text(HOLD_A_GPU.replace("sys.stdin.read()", "__import__('time').sleep(600)"))
    job = topod.submit(sys.executable, str(script), gpus=1, cpus=0)
    topod.wait(job.id, "running")
    held = topod.job(job.id).gpu_uuids[0]
    seen = NvmlProbe()
    try:
        topod.until(lambda: bool(seen.processes(PATIENT)[held]), PATIENT)
    finally:
        seen.close()
    before = len(topod.events())
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_GPU], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stranger:
        # When this one has been seen, the job has been looked at as well.
        assert stranger.stdout is not None
        uuid = stranger.stdout.readline().strip()
        topod.until(lambda: f"pid {stranger.pid} (" in _of(topod, uuid).reason, PATIENT)
        [mark] = [event for event in topod.events()[before:] if event.name == "gpu.marked"]
        assert mark.data["causes"] == [f"pid-{stranger.pid}"]
        stranger.communicate()
    topod.ask(Cancel(jobs=[job.id]))
    topod.wait(job.id)
    topod.until(lambda: all(gpu.state == "free" for gpu in gpus(topod)), PATIENT)


def _of(topod: Topod, uuid: str) -> GpuView:
    return next(gpu for gpu in gpus(topod) if gpu.uuid == uuid)
