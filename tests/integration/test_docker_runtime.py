"""What only a container engine can do, and what happens when it dies, hangs or refuses."""

import contextlib
import os
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine import PrivateEngine
from topod.adapters.docker_engine import find_engine
from topod.adapters.docker_runtime import DockerRuntime
from topod.errors import JobRejectedError, RuntimeUnavailableError
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, JobId, JobSpec, Mount
from topod.ports import ContainerStatus, Exit, ImageMissingError, Signal

pytestmark = pytest.mark.docker

SECONDS = 30.0
MACHINE = CpuSet.of(os.sched_getaffinity(0))
NOTHING = Allocation()


@pytest.fixture
def state(engine: PrivateEngine, tmp_path: Path) -> Iterator[str]:
    name = f"d{abs(hash(tmp_path)) % 10**8}"
    yield name
    engine.remove_containers(f"topod-{name}-")


@pytest.fixture
def runtime(engine: PrivateEngine, state: str, tmp_path: Path) -> Iterator[DockerRuntime]:
    made = make(engine, state, tmp_path)
    yield made
    made.close()


def make(engine: PrivateEngine, state: str, tmp_path: Path, **settings: Any) -> DockerRuntime:
    settings = {"emulated": True, "machine_cpus": MACHINE, **settings}
    return DockerRuntime(
        base_url=engine.base_url, state_id=state, log_dir=tmp_path / "logs", network_mode="none", **settings
    )


def spec(script: str = "true", image: str = "bb:latest", **more: Any) -> JobSpec:
    return JobSpec(name="test", command=("sh", "-c", script), image=image, **more)


def inspect(engine: PrivateEngine, name: str) -> dict[str, Any]:
    client = engine.client()
    try:
        found: dict[str, Any] = client.api.inspect_container(name)
        return found
    finally:
        client.close()


def logs_of(engine: PrivateEngine, name: str) -> str:
    client = engine.client()
    try:
        return b"".join(client.api.logs(name, stream=True)).decode()
    finally:
        client.close()


def test_the_container_carries_labels_limits_and_log_rotation(
    engine: PrivateEngine, runtime: DockerRuntime, state: str
) -> None:
    allocation = Allocation(gpus=("GPU-a",), cpus=CpuSet.parse("0,64-127"), memory_nodes=(0, 1))
    job = spec(grace_seconds=45.5, memory_bytes=64 << 20, shm_bytes=1 << 30, labels={"team": "vision"})
    name = runtime.create(JobId(7), 3, job, allocation)
    assert name == f"topod-{state}-7-3"
    found = inspect(engine, name)
    labels, host = found["Config"]["Labels"], found["HostConfig"]
    expected = {"topod.state": state, "topod.job": "7", "topod.attempt": "3", "team": "vision"}
    assert labels.items() >= {**expected, "topod.cpus": "0,64-127", "topod.gpus": "GPU-a"}.items()
    assert found["Config"]["StopTimeout"] == 46
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "50m", "max-file": "3"}}
    assert (host["Init"], host["ShmSize"], host["Memory"]) == (True, 1 << 30, 64 << 20)
    assert host["RestartPolicy"]["Name"] == "no"
    assert (host["CpusetCpus"], host["CpusetMems"]) == ("0", "0")
    assert not host["DeviceRequests"]
    assert len(runtime.notes(allocation)) == 3


def test_the_first_process_is_an_init(engine: PrivateEngine, runtime: DockerRuntime) -> None:
    name = runtime.create(
        JobId(1),
        1,
        spec("cat /proc/1/cmdline | tr '\\0' ' '; df /dev/shm | tail -1", shm_bytes=1 << 26),
        NOTHING,
    )
    runtime.start(name)
    runtime.remove(name)
    assert "init -- sh -c" in runtime.log_path(JobId(1), 1).read_text()


def test_a_cpu_that_the_machine_lacks_is_refused_with_the_engines_words(
    engine: PrivateEngine, state: str, tmp_path: Path
) -> None:
    real = make(engine, state, tmp_path, emulated=False)
    with pytest.raises(JobRejectedError, match="Requested CPUs are not available"):
        real.create(JobId(1), 1, spec(), Allocation(cpus=CpuSet.of([4000])))
    assert real.observe() == ()
    real.close()


def test_a_gpu_that_the_engine_cannot_give_is_refused_at_start(
    engine: PrivateEngine, state: str, tmp_path: Path
) -> None:
    real = make(engine, state, tmp_path, emulated=False)
    name = real.create(JobId(1), 1, spec(), Allocation(gpus=("GPU-none",), gpu_indices=(0,)))
    (request,) = inspect(engine, name)["HostConfig"]["DeviceRequests"]
    assert (request["Driver"], request["DeviceIDs"], request["Capabilities"]) == (
        "nvidia",
        ["GPU-none"],
        [["gpu"]],
    )
    with pytest.raises(JobRejectedError):
        real.start(name)
    (seen,) = real.observe()
    assert (seen.status, seen.exit_code) == (ContainerStatus.CREATED, None)
    real.remove(name)
    assert real.observe() == ()
    real.close()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"mounts": (Mount(source="/no/such/place", target="/data"),)}, "/no/such/place"),
        ({"container_user": "nobody-known"}, "nobody-known"),
    ],
)
def test_what_the_engine_refuses_rejects_the_job(
    runtime: DockerRuntime, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(JobRejectedError, match=words):
        runtime.start(runtime.create(JobId(1), 1, spec(**more), NOTHING))


def test_mounts_user_and_directory_reach_the_job(runtime: DockerRuntime, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("from the host\n")
    mount = Mount(source=str(tmp_path / "data"), target="/in", read_only=True)
    script = "cat file; id -u; touch file && echo written"
    name = runtime.create(
        JobId(1), 1, spec(script, mounts=(mount,), workdir="/in", container_user="0:0"), NOTHING
    )
    runtime.start(name)
    runtime.remove(name)
    lines = runtime.log_path(JobId(1), 1).read_text().splitlines()
    assert {"from the host", "0"} <= set(lines)
    assert "written" not in lines


def test_a_default_limit_that_the_engine_may_not_set_never_fails_a_job(
    engine: PrivateEngine, runtime: DockerRuntime
) -> None:
    name = runtime.create(JobId(1), 1, spec("sleep 100", ulimits={"core": 0}), NOTHING)
    runtime.start(name)
    limits = {one["Name"]: one["Hard"] for one in inspect(engine, name)["HostConfig"]["Ulimits"]}
    assert limits["core"] == 0
    assert limits in ({"core": 0}, {"core": 0, "memlock": -1, "stack": 64 << 20})


def test_an_unknown_image_fails_soon(engine: PrivateEngine, state: str, tmp_path: Path) -> None:
    quick = make(engine, state, tmp_path, pull_timeout=5)
    # Where the registry can be reached it says that there is no such image, else the network is at fault.
    with pytest.raises((JobRejectedError, RuntimeUnavailableError), match="no-such-image"):
        quick.ensure_image(spec(image="localhost:1/no-such-image:v1"))
    with pytest.raises(ImageMissingError):
        quick.create(JobId(1), 1, spec(image="localhost:1/no-such-image:v1"), NOTHING)
    quick.close()


def test_a_broken_image_name_rejects_the_job(runtime: DockerRuntime) -> None:
    with pytest.raises(JobRejectedError):
        runtime.ensure_image(spec(image="NOT::a name"))


def test_a_local_image_is_not_pulled(runtime: DockerRuntime) -> None:
    runtime.ensure_image(spec())


def test_a_job_over_its_memory_limit_ends_out_of_memory(runtime: DockerRuntime) -> None:
    exits: queue.Queue[Exit] = queue.Queue()
    runtime.watch(exits.put)
    grow = "x=a; while :; do x=$x$x; done"
    runtime.start(runtime.create(JobId(1), 1, spec(grow, memory_bytes=24 << 20), NOTHING))
    got = exits.get(timeout=SECONDS)
    assert (got.exit_code, got.out_of_memory) == (137, True)


def test_containers_outlive_a_killed_engine_and_their_exits_are_reported(
    engine: PrivateEngine, runtime: DockerRuntime
) -> None:
    exits: queue.Queue[Exit] = queue.Queue()
    runtime.watch(exits.put)
    log = runtime.log_path(JobId(1), 1)
    short, long = (
        runtime.create(
            JobId(job),
            1,
            spec(f"echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; {step}; done; echo end; exit {job}"),
            NOTHING,
        )
        for job, step in ((1, "[ $((n=n+1)) = 40 ] && break"), (2, "[ $((n=n+1)) = 20 ] && echo tick"))
    )
    runtime.start(short)
    runtime.start(long)
    wait_for(lambda: log.exists() and "begun" in log.read_text())
    pids = runtime.pids(short)
    engine.kill9()
    with pytest.raises(RuntimeUnavailableError):
        runtime.observe()
    wait_for(lambda: not any(Path(f"/proc/{pid}/root").exists() for pid in pids))
    engine.restart()
    assert exits.get(timeout=SECONDS).handle == short
    runtime.run_hook(long, ("touch", "/tmp/go"), SECONDS)
    got = exits.get(timeout=SECONDS)
    assert (got.handle, got.exit_code) == (long, 2)
    kept = ""
    for job, name in ((1, short), (2, long)):
        kept = logs_of(engine, name)
        runtime.remove(name)
        assert runtime.log_path(JobId(job), 1).read_text() == kept
    # What the first one printed at its end, while there was no engine, is lost to the engine itself.
    assert kept == "begun\ntick\nend\n"


def test_a_hanging_engine_is_an_error_within_the_bound(
    engine: PrivateEngine, state: str, tmp_path: Path
) -> None:
    runtime = make(engine, state, tmp_path, call_timeout=1, slow_timeout=1, pull_timeout=1)
    name = runtime.create(JobId(1), 1, spec("sleep 100"), NOTHING)
    runtime.start(name)
    exits: queue.Queue[Exit] = queue.Queue()
    runtime.watch(exits.put)
    engine.pause()
    began = time.monotonic()
    try:
        for call in (
            runtime.observe,
            lambda: runtime.signal(name, Signal.TERM),
            lambda: runtime.ensure_image(spec()),
            lambda: runtime.create(JobId(2), 1, spec(), NOTHING),
            lambda: runtime.remove(name),
            lambda: runtime.run_hook(name, ("true",), 1),
        ):
            with pytest.raises(RuntimeUnavailableError):
                call()
        # Six calls of one second each: the bound is the promise here, generous against a slow machine.
        assert time.monotonic() - began < 30
    finally:
        engine.resume()
    runtime.signal(name, Signal.KILL)
    assert exits.get(timeout=SECONDS).handle == name
    runtime.close()


def test_a_replacement_cut_short_by_a_crash_is_finished(
    engine: PrivateEngine, runtime: DockerRuntime, state: str, tmp_path: Path
) -> None:
    name = runtime.create(JobId(1), 1, spec("echo here"), NOTHING)
    with contextlib.closing(engine.client()) as client:
        client.api.rename(name, f"{name}.old")  # as far as topod came
        assert [(one.handle, one.status) for one in runtime.observe()] == [(name, ContainerStatus.CREATED)]
        runtime.start(name)
        assert [one.handle for one in runtime.observe()] == [name]
        assert [one.name for one in client.containers.list(all=True, filters={"name": name})] == [name]
    runtime.remove(name)
    assert runtime.log_path(JobId(1), 1).read_text() == "here\n"


def test_an_exit_is_told_though_somebody_removed_the_container_at_once(
    engine: PrivateEngine, runtime: DockerRuntime
) -> None:
    exits: queue.Queue[Exit] = queue.Queue()
    runtime.watch(exits.put)
    name = runtime.create(JobId(1), 1, spec("sleep 100"), NOTHING)
    runtime.start(name)
    with contextlib.closing(engine.client()) as client:
        client.api.remove_container(name, force=True)
    got = exits.get(timeout=SECONDS)
    assert (got.handle, got.job, got.attempt, got.exit_code) == (name, 1, 1, 137)


def test_an_engine_that_is_not_there_is_an_error_with_a_hint(tmp_path: Path) -> None:
    runtime = DockerRuntime(
        base_url=f"unix://{tmp_path}/none.sock", state_id="x", log_dir=tmp_path, machine_cpus=MACHINE
    )
    with pytest.raises(RuntimeUnavailableError) as caught:
        runtime.observe()
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert "none.sock" in runtime.describe()
    runtime.close()


def test_topod_sees_only_its_own_containers(
    engine: PrivateEngine, runtime: DockerRuntime, state: str, tmp_path: Path
) -> None:
    other = make(engine, f"{state}x", tmp_path)
    theirs = other.create(JobId(1), 1, spec(), NOTHING)
    mine = runtime.create(JobId(1), 1, spec(), NOTHING)
    assert [one.handle for one in runtime.observe()] == [mine]
    assert [one.handle for one in other.observe()] == [theirs]
    other.remove(theirs)
    other.close()


def test_the_engine_is_found_by_the_users_variable(
    engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.base_url)
    assert find_engine() == engine.base_url
    monkeypatch.setenv("DOCKER_HOST", f"{engine.base_url}.none")
    assert find_engine() != engine.base_url


def wait_for(look: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not look():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
