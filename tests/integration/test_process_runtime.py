"""What is special about jobs as plain processes: they must outlive topod and leave nothing behind."""

import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from topod.adapters import process_shim
from topod.adapters.process_attempt import Attempt
from topod.adapters.process_launcher import Launcher
from topod.adapters.process_runtime import ProcessRuntime
from topod.errors import JobRejectedError
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, JobId, JobSpec, Mount
from topod.ports import ContainerStatus, Exit, Signal

SECONDS = 30.0
MACHINE = CpuSet.of(os.sched_getaffinity(0))
NOTHING = Allocation()


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[ProcessRuntime]:
    made = make(tmp_path)
    yield made
    for one in made.observe():
        made.remove(one.handle)
    made.close()


def make(tmp_path: Path, **settings: Any) -> ProcessRuntime:
    settings = {"emulated": True, "machine_cpus": MACHINE, **settings}
    return ProcessRuntime(
        root=tmp_path / "state", state_id=tmp_path.name, log_dir=tmp_path / "logs", **settings
    )


def spec(script: str = "true", **more: Any) -> JobSpec:
    return JobSpec(name="test", command=("sh", "-c", script), **more)


def run(runtime: ProcessRuntime, script: str, **more: Any) -> str:
    handle = runtime.create(JobId(1), 1, spec(script, **more), NOTHING)
    runtime.start(handle)
    return handle


def log(runtime: ProcessRuntime) -> str:
    path = runtime.log_path(JobId(1), 1)
    return path.read_text() if path.exists() else ""


def wait_for(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not look():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def exit_code(runtime: ProcessRuntime) -> int | None:
    wait_for(lambda: runtime.observe()[0].status is ContainerStatus.EXITED)
    return runtime.observe()[0].exit_code


def living(pid: int) -> bool:
    process = process_shim.read_process(pid)
    return process is not None and process.alive


def test_of_many_shims_one_runs_the_command(runtime: ProcessRuntime, tmp_path: Path) -> None:
    handle = runtime.create(JobId(1), 1, spec("echo ran; sleep 0.3"), NOTHING)
    command = [sys.executable, "-I", "-S", process_shim.__file__, str(tmp_path / "state" / handle)]
    shims = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(8)]
    answers = sorted(shim.communicate()[0].split()[0] for shim in shims)
    assert answers == [b"claimed"] * 7 + [b"started"]
    assert exit_code(runtime) == 0
    assert log(runtime) == "ran\n"


def test_the_job_and_its_shim_outlive_the_process_that_started_them(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    handle = runtime.create(JobId(1), 1, spec("echo up; sleep 0.5; exit 3"), NOTHING)
    program = (
        "import os, signal\nfrom pathlib import Path\n"
        "from topod.adapters.process_runtime import ProcessRuntime\nfrom topod.model.cpuset import CpuSet\n"
        f"root = Path({str(tmp_path)!r})\n"
        "ProcessRuntime(root=root / 'state', state_id='s', log_dir=root / 'logs', machine_cpus=CpuSet(1))"
        f".start({handle!r})\nos.killpg(0, signal.SIGKILL)\n"
    )
    daemon = subprocess.run([sys.executable, "-c", program], check=False, start_new_session=True)
    assert daemon.returncode == -signal.SIGKILL
    exits: queue.Queue[Exit] = queue.Queue()
    runtime.watch(exits.put)
    assert exits.get(timeout=SECONDS).exit_code == 3


def test_no_process_of_the_job_survives_its_end(runtime: ProcessRuntime, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    run(
        runtime,
        f"setsid sh -c 'echo $$ >>{pids}; sleep 100' & sleep 100 & echo $! >>{pids}; while [ $(wc -l <{pids}) != 2 ]; do sleep 0.01; done",
    )
    assert exit_code(runtime) == 0
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    assert not any(map(living, left))


def test_what_a_job_put_into_the_background_is_among_its_pids_and_dies_with_sigkill(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    handle = run(
        runtime,
        f"setsid sh -c 'echo $$ >{pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 100' & sleep 100",
    )
    wait_for(pid_file.exists)
    hidden = int(pid_file.read_text())
    assert hidden in runtime.pids(handle)
    runtime.signal(handle, Signal.KILL)
    assert exit_code(runtime) == 137
    assert not living(hidden)


def test_a_program_may_finish_saving_when_its_shell_died_of_sigterm(runtime: ProcessRuntime) -> None:
    inner = 'trap "sleep 0.2; echo saved; exit 0" TERM; echo ready; while :; do sleep 0.02; done'
    handle = run(runtime, f"sh -c '{inner}'; echo never")
    wait_for(lambda: "ready" in log(runtime))
    runtime.signal(handle, Signal.TERM)
    assert exit_code(runtime) == 143
    assert "saved" in log(runtime)
    assert "never" not in log(runtime)


def test_a_job_whose_shim_was_killed_runs_on_and_its_end_is_noticed(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    exits: queue.Queue[Exit] = queue.Queue()
    runtime.watch(exits.put)
    go = tmp_path / "go"
    handle = run(runtime, f"while [ ! -e {go} ]; do sleep 0.02; done")
    shim = Attempt(tmp_path / "state" / handle).living("claim")
    assert shim is not None
    os.kill(shim, signal.SIGKILL)
    wait_for(lambda: not living(shim))
    assert runtime.observe()[0].status is ContainerStatus.RUNNING
    assert runtime.pids(handle)
    go.touch()
    got = exits.get(timeout=SECONDS)
    assert (got.handle, got.exit_code) == (handle, None)


def test_a_job_whose_shim_was_killed_can_still_be_removed(runtime: ProcessRuntime, tmp_path: Path) -> None:
    handle = run(runtime, "setsid sleep 100 & sleep 100 & echo ready; sleep 100")
    wait_for(lambda: "ready" in log(runtime))
    wait_for(lambda: len(runtime.pids(handle)) == 4)
    pids = runtime.pids(handle)
    shim = Attempt(tmp_path / "state" / handle).living("claim")
    assert shim is not None
    os.kill(shim, signal.SIGKILL)
    wait_for(lambda: not living(shim))
    runtime.remove(handle)
    assert not any(map(living, pids))


def test_a_pid_that_another_process_got_since_is_not_the_job(runtime: ProcessRuntime, tmp_path: Path) -> None:
    handle = run(runtime, "exit 0")
    assert exit_code(runtime) == 0
    directory = tmp_path / "state" / handle
    stranger = {"pid": os.getpid(), "start": 1, "boot": process_shim.boot_id()}
    for name in ("claim", "started"):
        process_shim.write_durably(directory / f"{name}.json", {**stranger, "started_at": 1.0})
    runtime.signal(handle, Signal.KILL)
    assert runtime.pids(handle) == ()
    assert runtime.observe()[0].status is ContainerStatus.EXITED


def test_a_claim_of_an_earlier_boot_is_over(runtime: ProcessRuntime, tmp_path: Path) -> None:
    handle = runtime.create(JobId(1), 1, spec("echo ran"), NOTHING)
    process_shim.write_durably(
        tmp_path / "state" / handle / "claim.json", {"pid": 1, "start": 1, "boot": "other"}
    )
    (seen,) = runtime.observe()
    assert (seen.status, seen.exit_code) == (ContainerStatus.EXITED, None)


def test_a_missing_directory_is_said_in_the_log(runtime: ProcessRuntime) -> None:
    run(runtime, "true", workdir="/no/such/directory")
    assert exit_code(runtime) == 126
    assert "/no/such/directory" in log(runtime)


def test_limits_of_the_job_are_set(runtime: ProcessRuntime) -> None:
    run(runtime, "ulimit -n", ulimits={"nofile": 321})
    assert exit_code(runtime) == 0
    assert log(runtime) == "321\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_the_job_runs_as_its_user(runtime: ProcessRuntime) -> None:
    run(runtime, "id -u; id -g; id -G", container_user="65534:65533")
    assert exit_code(runtime) == 0
    assert log(runtime).split() == ["65534", "65533", "65533"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"mounts": (Mount(source="/a", target="/b"),)}, "container engine"),
        ({"mounts": (Mount(source="/a", target="/a", read_only=True),)}, "read-only"),
        ({"container_user": "nobody-known-here"}, "nobody-known-here|root"),
        ({"ulimits": {"colour": 1}}, "colour"),
    ],
)
def test_what_would_be_dangerous_to_ignore_rejects_the_job(
    runtime: ProcessRuntime, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(JobRejectedError, match=words):
        runtime.create(JobId(1), 1, spec(**more), NOTHING)
    assert runtime.observe() == ()


def test_on_a_real_host_a_missing_cpu_rejects_and_other_gpus_are_hidden(tmp_path: Path) -> None:
    real = make(tmp_path, emulated=False)
    with pytest.raises(JobRejectedError, match="4000"):
        real.create(JobId(1), 1, spec(), Allocation(cpus=CpuSet.of([4000])))
    handle = real.create(
        JobId(1), 1, spec("echo $CUDA_VISIBLE_DEVICES"), Allocation(gpus=("A", "B"), gpu_indices=(1, 3))
    )
    real.start(handle)
    assert exit_code(real) == 0
    real.remove(handle)
    assert log(real) == "1,3\n"


def test_what_is_ignored_is_noted(runtime: ProcessRuntime) -> None:
    allocation = Allocation(gpus=("A",), cpus=CpuSet.of([4000]), memory_nodes=(1,))
    notes = runtime.notes(allocation, spec(image="x", memory_bytes=1))
    assert len(notes) == 5
    assert runtime.notes(NOTHING, spec()) == ()


def test_the_job_does_not_see_the_daemons_variables(
    runtime: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    run(runtime, "env")
    assert exit_code(runtime) == 0
    assert "NOTIFY_SOCKET" not in log(runtime)
    assert "PATH=" in log(runtime)


def shims_waiting(mark: str) -> set[int]:
    """Return the shims that were told nothing yet and have `mark` in their environment."""
    file = os.fsencode(process_shim.__file__)
    found = set()
    for process in process_shim.all_processes():
        try:
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        if words[-2:] == [file, b""] and os.fsencode(mark) in environment and process.alive:
            found.add(process.pid)
    return found


def test_a_shim_waits_for_the_next_start_and_goes_with_topod(tmp_path: Path) -> None:
    mark = str(tmp_path)
    program = (
        "import time\nfrom pathlib import Path\n"
        "from topod.adapters.process_runtime import ProcessRuntime\nfrom topod.model.cpuset import CpuSet\n"
        f"root = Path({str(tmp_path)!r})\n"
        "r = ProcessRuntime(root=root / 's', state_id='s', log_dir=root / 'l', machine_cpus=CpuSet(1))\n"
        "r.watch(lambda exit: None)\nprint('up', flush=True)\ntime.sleep(100)\n"
    )
    environment = {**os.environ, "MARK": mark}
    daemon = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    assert daemon.stdout is not None
    daemon.stdout.readline()
    wait_for(lambda: len(shims_waiting(mark)) == 1)
    daemon.kill()
    daemon.communicate()
    wait_for(lambda: not shims_waiting(mark))


def test_a_waiting_shim_that_was_killed_costs_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = str(tmp_path)
    monkeypatch.setenv("MARK", mark)
    launcher = Launcher()
    launcher.keep_one_ready()
    try:
        wait_for(lambda: launcher._spare is not None)
        (waiting,) = shims_waiting(mark)
        runtime = make(tmp_path)
        handle = runtime.create(JobId(1), 1, spec("echo ran"), NOTHING)
        os.kill(waiting, signal.SIGKILL)
        launcher.launch(tmp_path / "state" / handle)
        assert exit_code(runtime) == 0
        assert log(runtime) == "ran\n"
    finally:
        launcher.close()
    wait_for(lambda: not shims_waiting(mark))


def test_the_shim_that_waited_starts_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = str(tmp_path)
    monkeypatch.setenv("MARK", mark)
    launcher = Launcher()
    launcher.keep_one_ready()
    try:
        wait_for(lambda: launcher._spare is not None)
        (waiting,) = shims_waiting(mark)
        runtime = make(tmp_path)
        handle = runtime.create(JobId(1), 1, spec("sleep 100"), NOTHING)
        launcher.launch(tmp_path / "state" / handle)
        assert waiting == json.loads((tmp_path / "state" / handle / "claim.json").read_text())["pid"]
        runtime.remove(handle)
    finally:
        launcher.close()
