"""A real topod over the NVML stand-in: what it sees of unwell and used GPUs, and what it does about it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon_process import Topod
from tests.nvml.stand_in import World, build_library, four_a100_in_pairs, uuid
from topod.protocol.replies import Done, Host, Planned
from topod.protocol.requests import Cancel, DryRun, GetHost, Resume
from topod.protocol.views import GpuView, HostView

CONFIG = """
[health]
interval = 0.1
timeout = 1
xid_clear = 0.5
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return four_a100_in_pairs(tmp_path)


@pytest.fixture
def topod(tmp_path: Path, library: Path, world: World) -> Iterator[Topod]:
    (tmp_path / "topod.toml").write_text(CONFIG)
    environment = {**world.environment(library), "TOPOD_CONFIG": str(tmp_path / "topod.toml")}
    with Topod(tmp_path / "t", host="", environment=environment) as topod:
        yield topod.start()


def host(topod: Topod) -> HostView:
    reply = topod.ask(GetHost())
    assert isinstance(reply, Host)
    return reply.host


def gpu(topod: Topod, index: int) -> GpuView:
    return host(topod).gpus[index]


def becomes(topod: Topod, index: int, state: str, words: str = "") -> None:
    topod.until(lambda: gpu(topod, index).state == state and words in gpu(topod, index).reason)


def on_gpus(topod: Topod, count: int, priority: int = 100) -> tuple[int, ...]:
    """Run a job on so many GPUs and return which it got."""
    job = topod.submit("true", gpus=count, cpus=0, priority=priority)
    return tuple(topod.wait(job.id).gpu_indices)


def test_a_critical_xid_keeps_new_work_off_the_gpu_until_it_was_idle_for_a_while(
    topod: Topod, world: World
) -> None:
    running = topod.submit("sleep", "600", gpus=4, cpus=0)
    topod.wait(running.id, "running")
    topod.until(lambda: _unwell_after_xid(topod, world, 1, 46))
    assert "Xid 46 (GPU stopped processing)" in gpu(topod, 1).reason
    assert topod.job(running.id).state == "running"
    assert topod.job(running.id).reason.startswith("GPU1 is unhealthy: Xid 46")
    assert gpu(topod, 1).job == running.id
    topod.kill()  # what was seen is remembered
    topod.start()
    assert gpu(topod, 1).state == "unhealthy"
    cancel(topod, running.id)
    becomes(topod, 1, "free")
    assert on_gpus(topod, 4) == (0, 1, 2, 3)
    names = [event.name for event in topod.events() if event.name.startswith("gpu.")]
    assert names == ["gpu.marked", "gpu.cleared"]


def _unwell_after_xid(topod: Topod, world: World, index: int, xid: int) -> bool:
    # NVML does not tell of what was before it was asked, and nothing shows when topod begins to listen.
    world.xid(index, xid)
    return gpu(topod, index).state == "unhealthy"


def cancel(topod: Topod, ident: int) -> None:
    topod.ask(Cancel(jobs=[ident]))
    topod.wait(ident)


def test_a_pending_row_remap_is_said_set_aside_on_request_and_gone_after_the_reset(
    topod: Topod, world: World
) -> None:
    world.put(gpu__0__remap=1).save()
    becomes(topod, 0, "unhealthy", "a memory row waits to be remapped: reset the GPU or reboot")
    assert on_gpus(topod, 3) == (1, 2, 3)
    reply = topod.ask(Resume(gpu="0"))
    assert isinstance(reply, Done)
    assert reply.text.startswith("GPU0 is handed out again, in spite of this: a memory row")
    assert on_gpus(topod, 4) == (0, 1, 2, 3)
    assert gpu(topod, 0).reason.startswith("used all the same: unhealthy: a memory row")
    world.put(gpu__0__remap=0).save()
    topod.until(lambda: gpu(topod, 0).reason == "")


def test_a_lost_gpu_costs_only_itself_also_when_topod_is_started_anew(topod: Topod, world: World) -> None:
    held = topod.submit("sleep", "600", gpus=1, cpus=0)
    elsewhere = topod.wait(held.id, "running").gpu_indices[0]
    other = 3 if elsewhere < 2 else 0
    world.put(**{f"gpu__{other}__lost": 1}).save()
    becomes(topod, other, "unhealthy", "NVML does not list it any more")
    topod.stop()
    topod.start()
    view = host(topod)
    assert [entry.uuid for entry in view.gpus] == [uuid(index) for index in range(4)]
    assert any(f"missing, though it was there before: GPU{other}" in note for note in view.notes)
    assert view.gpus[other].state == "unhealthy"
    assert (view.gpus[elsewhere].state, view.gpus[elsewhere].job) == ("held", held.id)
    assert other not in on_gpus(topod, 2)
    reply = topod.ask(Resume(gpu=str(other)))
    assert isinstance(reply, Done)
    assert "still kept back" in reply.text
    world.drop(f"gpu.{other}.lost").save()
    becomes(topod, other, "free")


def test_a_host_without_a_gpu_that_is_gone_for_good_is_taken_as_it_is_on_request(
    topod: Topod, world: World
) -> None:
    held = topod.submit("sleep", "600", gpus=4, cpus=0)
    topod.wait(held.id, "running")
    topod.kill()
    world.put(gpu__1__lost=1).save()
    topod.start("--rediscover")
    assert [entry.uuid for entry in host(topod).gpus] == [uuid(0), uuid(2), uuid(3)]
    assert topod.job(held.id).gpu_indices == [0, 1, 2]
    assert all(entry.job == held.id for entry in host(topod).gpus)
    world.drop("gpu.1.lost").save()


def test_while_nvml_hangs_jobs_run_on_nobody_is_stopped_and_nothing_starts(
    topod: Topod, world: World
) -> None:
    running = topod.submit("sleep", "600", gpus=4, cpus=0, priority=100)
    topod.wait(running.id, "running")
    world.put(hang__nvmlDeviceGetCount_v2=1).save()
    topod.until(lambda: host(topod).blind is not None)
    assert "NVML did not answer within 1 s" in str(host(topod).blind)
    high = topod.submit("true", gpus=4, cpus=0, priority=1000)
    without = topod.submit("true", gpus=0, cpus=0)
    assert topod.wait(without.id).state == "succeeded"
    assert topod.job(running.id).state == "running"
    waiting = topod.job(high.id)
    assert waiting.state == "pending"
    assert waiting.reason.startswith(
        "no GPU is handed out while their health is unknown: NVML did not answer"
    )
    told = topod.ask(DryRun(spec=waiting.spec))
    assert isinstance(told, Planned)
    assert not told.feasible
    topod.kill()
    topod.start()  # and NVML still hangs: the host is taken as it was
    assert host(topod).blind is not None
    assert topod.job(running.id).state == "running"
    world.drop("hang.nvmlDeviceGetCount_v2").save()
    assert topod.wait(high.id, timeout=60.0).state == "succeeded"


def test_foreign_use_of_a_gpu_is_named_and_avoided(topod: Topod, world: World) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        world.put(gpu__2__compute__0=f"{stranger.pid} 3174", gpu__2__used=3174).save()
        becomes(topod, 2, "foreign", f"pid {stranger.pid} (python")
        assert gpu(topod, 2).reason.endswith(") holds 3.1 GiB")
        waiting = topod.submit("true", gpus=4, cpus=0, priority=1000)
        topod.until(lambda: f"foreign: pid {stranger.pid}" in topod.job(waiting.id).reason)
        assert on_gpus(topod, 3, priority=2000) == (0, 1, 3)
        stranger.communicate()
    world.drop("gpu.2.compute.0").put(gpu__2__used=4).save()
    assert topod.wait(waiting.id).state == "succeeded"


def test_the_processes_of_jobs_are_not_foreign_and_what_they_leave_is(
    topod: Topod, world: World, tmp_path: Path
) -> None:
    report = tmp_path / "pid"
    job = topod.submit(
        "sh", "-c", f"echo $$ > {report}.new; mv {report}.new {report}; sleep 600", gpus=1, cpus=0
    )
    index = topod.wait(job.id, "running").gpu_indices[0]
    topod.until(report.exists)
    pid = int(report.read_text())
    world.put(**{f"gpu__{index}__compute__0": f"{pid} 5000", f"gpu__{index}__used": 5000}).save()
    other = (index + 1) % 4
    world.put(**{f"gpu__{other}__compute__0": f"{pid} 5000", f"gpu__{other}__used": 5000}).save()
    becomes(topod, other, "foreign", f"of job {job.id}, which does not hold this GPU) holds 4.9 GiB")
    assert gpu(topod, index).reason == ""
    cancel(topod, job.id)
    # The process is gone, its memory is not: as the driver shows it when a process dies badly.
    becomes(topod, index, "foreign", f"pid {pid} holds 4.9 GiB")
    world.drop(f"gpu.{index}.compute.0").drop(f"gpu.{other}.compute.0").save()
    becomes(topod, index, "quarantined", "4.9 GiB in use by no process that can be seen")
    world.put(**{f"gpu__{index}__used": 4, f"gpu__{other}__used": 4}).save()
    becomes(topod, index, "free")
    becomes(topod, other, "free")


def test_memory_found_at_a_start_quarantines_the_gpu_until_it_is_clear(
    tmp_path: Path, library: Path, world: World
) -> None:
    (tmp_path / "topod.toml").write_text("[health]\ninterval = 2\nforeign_gpus = false\n")
    environment = {**world.environment(library), "TOPOD_CONFIG": str(tmp_path / "topod.toml")}
    world.put(gpu__0__used=9000)
    for index in (1, 2, 3):
        world.put(**{f"gpu__{index}__lost": 1})
    with Topod(tmp_path / "u", host="", environment=environment) as topod:
        world.save()
        topod.start("--devices-free-seconds", "0.2")
        job = topod.submit("true", gpus=1, cpus=0)
        becomes(topod, 0, "quarantined", "8.8 GiB in use")
        topod.until(lambda: "8.8 GiB in use" in topod.job(job.id).reason)
        world.put(gpu__0__used=4).save()
        assert topod.wait(job.id).state == "succeeded"
