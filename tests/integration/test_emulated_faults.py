"""An emulated host with faults, as people try it out: the map, the queue, the doctor say what is wrong."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon_process import ROOT, Topod
from topod.protocol.replies import Host
from topod.protocol.requests import Drain, GetHost, Resume
from topod.protocol.views import HostView


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    return tmp_path / "faults.toml"


@pytest.fixture
def topod(tmp_path: Path, faults: Path) -> Iterator[Topod]:
    (tmp_path / "topod.toml").write_text("[health]\ninterval = 0.1\non_unhealthy = 'requeue'\n")
    environment = {"TOPOD_CONFIG": str(tmp_path / "topod.toml"), "TOPOD_EMULATED_FAULTS": str(faults)}
    with Topod(tmp_path / "t", host="hgx-h100", environment=environment) as topod:
        yield topod.start()


def world(path: Path, text: str) -> None:
    """Change the file as a whole: half of it is never read."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def host(topod: Topod) -> HostView:
    reply = topod.ask(GetHost())
    assert isinstance(reply, Host)
    return reply.host


def topoctl(topod: Topod, *words: str) -> str:
    environment = {**os.environ, "TOPOD_SOCKET": str(topod.socket), "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "topoctl", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_faults_come_and_go_with_the_file(topod: Topod, faults: Path) -> None:
    world(
        faults,
        """
        [gpu.2]
        lost = true
        [gpu.3]
        process = [{pid = 4711, mib = 3174, name = "python", user = "alice"}]
        [gpu.5]
        remap = "pending"
        [gpu.6]
        slowdown = "heat"
        """,
    )
    wanted = ["free", "free", "unhealthy", "foreign", "free", "unhealthy", "free", "free"]
    topod.until(lambda: [gpu.state for gpu in host(topod).gpus] == wanted)
    topod.until(lambda: "GPU6: slowed down by heat" in host(topod).notes)
    text = topoctl(topod, "topo")
    assert "GPU3 ✗ foreign" in text
    assert "GPU3 foreign: pid 4711 (python, alice) holds 3.1 GiB" in text
    assert "GPU2 unhealthy: GPU is lost" in text
    doctor = topoctl(topod, "doctor")
    assert "→ do what it says, then: topoctl resume --gpu 5" in doctor
    assert "→ end the process that is named; the GPU comes back by itself" in doctor
    world(faults, "")
    topod.until(lambda: {gpu.state for gpu in host(topod).gpus} == {"free"})
    assert "none of 8 GPUs is kept back" in topoctl(topod, "doctor")


def test_an_xid_is_told_once_and_the_job_runs_elsewhere_where_the_site_wants_that(
    topod: Topod, faults: Path
) -> None:
    job = topod.submit("sleep", "600", gpus=1)
    topod.wait(job.id, "running")
    world(faults, "[gpu.0]\nxid = [31]")
    told = "GPU0 had Xid 31 (GPU memory page fault: a program's fault)"
    topod.until(lambda: told in [event.text for event in topod.events() if event.job == job.id])
    world(faults, "[gpu.0]\nxid = [31, 48]")
    topod.until(lambda: topod.job(job.id).attempt == 2)
    again = topod.wait(job.id, "running")
    assert (again.gpu_indices, again.preemptions) == ([1], 0)
    assert (
        host(topod).gpus[0].reason == "unhealthy: Xid 48 (double-bit memory error): reset the GPU or reboot"
    )
    topod.ask(Resume(gpu="0"))
    assert host(topod).gpus[0].state == "free"


def test_the_map_shows_the_job_and_the_mark_of_a_gpu(topod: Topod) -> None:
    job = topod.submit("sleep", "600", gpus=1)
    topod.wait(job.id, "running")
    topod.ask(Drain(gpu="0", reason="fan"))
    assert f"GPU0 ▮{job.id} normal ✗drained" in topoctl(topod, "topo")


def test_while_the_emulated_nvml_hangs_the_doctor_says_what_that_means(topod: Topod, faults: Path) -> None:
    world(faults, "hang = true")
    topod.until(lambda: host(topod).blind is not None)
    text = topoctl(topod, "doctor")
    assert (
        "the health of the GPUs is unknown, no job with GPUs starts: NVML did not answer (emulated)" in text
    )
    world(faults, "hang = fals")
    topod.until(lambda: any("not TOML" in note for note in host(topod).notes))
    world(faults, "")
    topod.until(lambda: host(topod).blind is None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gpu.9]\nlost = true", "no GPU 9 on this host, which has 8"),
        ("[gpu.1]\nlots = true", "unknown field `lots`"),
        ("[gpu.1", "not TOML"),
    ],
)
def test_faults_that_cannot_be_meant_are_refused_at_the_start(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(text)
    topod = Topod(tmp_path / "t", host="hgx-h100")
    topod.start("--emulated-faults", str(path), wait=False)
    assert topod.crashed()
    [line] = [line for line in topod.log.read_text().splitlines() if line.startswith("error:")]
    assert str(path) in line
    assert words in line


def test_a_real_host_has_no_emulated_faults(tmp_path: Path) -> None:
    topod = Topod(tmp_path / "t", host="")
    topod.start("--emulated-faults", str(tmp_path / "faults.toml"), wait=False)
    assert topod.crashed()
    assert "error: --emulated-faults needs --host" in topod.log.read_text()


def test_memory_of_nobody_keeps_a_gpu_from_new_work_until_it_is_back(topod: Topod, faults: Path) -> None:
    world(faults, "[gpu.0]\nused_mib = 70000\n[gpu.1]\nused_mib = 200\n")
    topod.until(lambda: host(topod).gpus[0].state == "quarantined")
    assert host(topod).gpus[1].state == "free", "a driver has as much for itself"
    told = "68.4 GiB in use by no process that can be seen"
    assert f"GPU0 quarantined: {told}" in topoctl(topod, "topo")
    doctor = " ".join(topoctl(topod, "doctor").split())
    assert f"quarantined: {told} → end who has it open (sudo fuser -v /dev/nvidia*), else reset" in doctor
    assert "the process that is named" not in doctor, "none is"
    held = topod.submit("sleep", "600", gpus=7)
    assert topod.wait(held.id, "running").gpu_indices == [1, 2, 3, 4, 5, 6, 7]
    world(faults, "")
    topod.until(lambda: host(topod).gpus[0].state == "free")


def test_a_mark_follows_the_words_of_its_fault(topod: Topod, faults: Path) -> None:
    process = "[gpu.0]\nprocess = [{pid = 4711, mib = 3174, name = '%s', user = 'alice'}]\n"
    world(faults, process % "python")
    topod.until(lambda: host(topod).gpus[0].reason == "foreign: pid 4711 (python, alice) holds 3.1 GiB")
    world(faults, process % "train")
    topod.until(lambda: host(topod).gpus[0].reason == "foreign: pid 4711 (train, alice) holds 3.1 GiB")
    assert sum(event.name == "gpu.marked" for event in topod.events()) == 1
