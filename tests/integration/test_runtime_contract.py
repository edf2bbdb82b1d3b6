"""What the daemon relies on, held against both runtimes: containers of a real engine, and plain processes."""

import os
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from tests.engine import PrivateEngine
from topod.adapters.docker_runtime import DockerRuntime
from topod.adapters.process_runtime import ProcessRuntime
from topod.errors import TopodError
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, JobId, JobSpec
from topod.ports import ContainerRuntime, ContainerStatus, Exit, Observed, Signal

SECONDS = 30.0
MACHINE = CpuSet.of(os.sched_getaffinity(0))
NOTHING = Allocation()
T = TypeVar("T")


@dataclass
class Bench:
    """One runtime under test; `again()` makes another on the same state, as a restarted daemon does."""

    make: Callable[[], ContainerRuntime]
    image: str | None
    runtimes: list[ContainerRuntime] = field(default_factory=list)
    handles: list[str] = field(default_factory=list)

    @property
    def runtime(self) -> ContainerRuntime:
        return self.runtimes[-1]

    def again(self) -> ContainerRuntime:
        self.runtimes[-1].close()
        self.runtimes.append(self.make())
        return self.runtime

    def spec(self, script: str, **more: object) -> JobSpec:
        return JobSpec(name="test", command=("sh", "-c", script), image=self.image, **more)  # type: ignore[arg-type]  # fields by name

    def create(self, script: str, job: int = 1, **more: object) -> str:
        handle = self.runtime.create(JobId(job), 1, self.spec(script, **more), NOTHING)
        self.handles.append(handle)
        return handle

    def run(self, script: str, job: int = 1, **more: object) -> str:
        handle = self.create(script, job, **more)
        self.runtime.start(handle)
        return handle

    def seen(self, handle: str) -> Observed | None:
        return next((one for one in self.runtime.observe() if one.handle == handle), None)

    def ended(self, handle: str) -> Observed:
        return until(
            lambda: one if (one := self.seen(handle)) and one.status is ContainerStatus.EXITED else None
        )

    def log(self, job: int = 1) -> str:
        path = self.runtime.log_path(JobId(job), 1)
        return path.read_text() if path.exists() else ""

    def logged(self, text: str, job: int = 1) -> str:
        return until(lambda: log if text in (log := self.log(job)) else None)


def until(look: Callable[[], T | None]) -> T:
    """Return what `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + SECONDS
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "process"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "docker":
        engine: PrivateEngine = request.getfixturevalue("engine")
        made = Bench(
            lambda: DockerRuntime(
                base_url=engine.base_url,
                state_id=tmp_path.name.replace("_", "-")[-20:].strip("-"),
                log_dir=tmp_path / "logs",
                machine_cpus=MACHINE,
                emulated=True,
                network_mode="none",
            ),
            engine.image,
        )
    else:
        made = Bench(
            lambda: ProcessRuntime(
                root=tmp_path / "state",
                state_id="t1",
                log_dir=tmp_path / "logs",
                machine_cpus=MACHINE,
                emulated=True,
            ),
            None,
        )
    made.runtimes.append(made.make())
    yield made
    for handle in made.handles:
        made.runtime.remove(handle)
    assert made.runtime.observe() == ()
    made.runtime.close()


def test_creating_twice_gives_the_same_handle_and_one_container(bench: Bench) -> None:
    assert bench.create("true") == bench.create("true")
    (seen,) = bench.runtime.observe()
    assert (seen.job, seen.attempt, seen.status, seen.exit_code) == (1, 1, ContainerStatus.CREATED, None)


def test_a_container_that_never_ran_is_replaced_when_the_job_changed(bench: Bench) -> None:
    handle = bench.create("echo old")
    assert bench.create("echo new") == handle
    bench.runtime.start(handle)
    bench.ended(handle)
    bench.runtime.remove(handle)
    assert bench.log() == "new\n"


def test_starting_again_never_runs_the_command_twice(bench: Bench) -> None:
    handle = bench.create("echo ran; sleep 100")
    first = bench.runtime.start(handle)
    assert bench.runtime.start(handle) == first
    bench.logged("ran")
    bench.runtime.signal(handle, Signal.KILL)
    bench.ended(handle)
    assert bench.again().start(handle) == first
    bench.runtime.remove(handle)
    assert bench.log() == "ran\n"


def test_the_start_time_is_now(bench: Bench) -> None:
    before = time.time()
    started = bench.runtime.start(bench.create("true"))
    assert before - 1 <= started <= time.time() + 1


@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_exit_code_is_seen(bench: Bench, code: int) -> None:
    seen = bench.ended(bench.run(f"exit {code}"))
    assert seen.exit_code == code
    assert not seen.out_of_memory
    assert seen.started_at is not None
    assert seen.ended_at is not None
    assert seen.started_at <= seen.ended_at


def test_a_command_that_is_not_there_ends_with_127_and_says_so(bench: Bench) -> None:
    spec = JobSpec(name="test", command=("no-such-program",), image=bench.image)
    handle = bench.runtime.create(JobId(1), 1, spec, NOTHING)
    bench.handles.append(handle)
    bench.runtime.start(handle)
    assert bench.ended(handle).exit_code == 127
    bench.runtime.remove(handle)
    assert "no-such-program" in bench.log()


def test_the_job_hears_sigterm_and_its_own_exit_code_is_seen(bench: Bench) -> None:
    handle = bench.run("trap 'echo saved; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    bench.logged("ready")
    bench.runtime.signal(handle, Signal.TERM)
    assert bench.ended(handle).exit_code == 9
    bench.runtime.remove(handle)
    # Some shells also say that their `sleep` was terminated.
    assert [line for line in bench.log().splitlines() if line != "Terminated"] == ["ready", "saved"]


def test_a_job_deaf_to_sigterm_is_killed_with_137(bench: Bench) -> None:
    handle = bench.run("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    bench.logged("ready")
    bench.runtime.signal(handle, Signal.TERM)
    bench.runtime.signal(handle, Signal.KILL)
    assert bench.ended(handle).exit_code == 137


def test_the_program_behind_a_waiting_shell_hears_sigterm(bench: Bench) -> None:
    inner = 'trap "echo inner; exit 3" TERM; echo ready; while :; do sleep 0.05; done'
    handle = bench.run(f"trap 'echo outer' TERM; sh -c '{inner}'; exit $?")
    bench.logged("ready")
    bench.runtime.signal(handle, Signal.TERM)
    assert bench.ended(handle).exit_code == 3
    bench.runtime.remove(handle)
    assert set(bench.log().split()) >= {"ready", "inner", "outer"}


def test_a_handle_that_is_gone_is_signalled_and_removed_quietly(bench: Bench) -> None:
    handle = bench.create("true")
    bench.runtime.signal(handle, Signal.TERM)
    bench.runtime.remove(handle)
    for kind in Signal:
        bench.runtime.signal(handle, kind)
    bench.runtime.remove(handle)
    assert bench.runtime.pids(handle) == ()


def test_a_job_that_has_ended_is_signalled_quietly(bench: Bench) -> None:
    handle = bench.run("exit 4")
    bench.ended(handle)
    bench.runtime.signal(handle, Signal.KILL)
    assert bench.ended(handle).exit_code == 4


def test_starting_what_was_removed_is_an_error_not_a_crash(bench: Bench) -> None:
    handle = bench.create("true")
    bench.runtime.remove(handle)
    with pytest.raises(TopodError, match="removed by someone"):
        bench.runtime.start(handle)


def test_the_log_holds_both_streams_and_a_last_line_without_newline(bench: Bench) -> None:
    handle = bench.run(
        "echo one; sleep 0.2; echo two >&2; sleep 0.2; head -c 200000 /dev/zero | tr '\\0' x; echo; printf end"
    )
    bench.ended(handle)
    bench.runtime.remove(handle)
    assert bench.log() == f"one\ntwo\n{'x' * 200000}\nend"


def test_the_log_is_neither_lost_nor_doubled_over_restarts_of_the_daemon(bench: Bench) -> None:
    handle = bench.run(
        "for i in $(seq 3000); do echo line $i; [ $((i % 100)) = 0 ] && sleep 0.03; done; sleep 0.2"
    )
    for number in (300, 900, 1500):
        bench.runtime.watch(lambda _: None)
        bench.logged(f"line {number}\n")
        bench.again()
    bench.ended(handle)
    bench.runtime.remove(handle)
    assert bench.log() == "".join(f"line {number}\n" for number in range(1, 3001))


def test_the_log_stays_after_the_container_is_removed_twice(bench: Bench) -> None:
    handle = bench.run("echo kept")
    bench.ended(handle)
    bench.runtime.remove(handle)
    bench.again().remove(handle)
    assert bench.log() == "kept\n"


def test_an_exit_is_reported_when_it_happens(bench: Bench) -> None:
    exits: queue.Queue[Exit] = queue.Queue()
    bench.runtime.watch(exits.put)
    handle = bench.run("exit 5")
    got = exits.get(timeout=SECONDS)
    assert (got.job, got.attempt, got.handle, got.exit_code, got.out_of_memory) == (1, 1, handle, 5, False)


def test_exits_that_nobody_watched_are_reported_by_the_next_daemon(bench: Bench) -> None:
    first, second = bench.run("exit 5", job=1), bench.run("sleep 0.3; exit 6", job=2)
    bench.again()
    bench.ended(first)
    exits: queue.Queue[Exit] = queue.Queue()
    bench.runtime.watch(exits.put)
    got = {exits.get(timeout=SECONDS), exits.get(timeout=SECONDS)}
    assert {(one.handle, one.exit_code) for one in got} == {(first, 5), (second, 6)}


def test_an_exit_whose_handling_failed_is_reported_again(bench: Bench) -> None:
    exits: queue.Queue[Exit] = queue.Queue()

    def handle_exit(one: Exit) -> None:
        exits.put(one)
        if exits.qsize() == 1:
            raise RuntimeError("the store is full")

    bench.runtime.watch(handle_exit)
    bench.run("exit 5")
    until(lambda: True if exits.qsize() == 2 else None)


def test_what_runs_is_observed_with_its_start(bench: Bench) -> None:
    handle = bench.run("sleep 100")
    seen = bench.seen(handle)
    assert seen is not None
    assert (seen.status, seen.exit_code, seen.ended_at) == (ContainerStatus.RUNNING, None, None)
    assert bench.again().observe() == (seen,)


def test_removing_a_running_job_kills_it(bench: Bench) -> None:
    handle = bench.run("trap '' TERM; echo ready; sleep 100 & sleep 100")
    bench.logged("ready")
    pids = bench.runtime.pids(handle)
    assert len(pids) >= 2
    bench.runtime.remove(handle)
    assert bench.seen(handle) is None
    until(lambda: True if not any(map(alive, pids)) else None)


def test_the_pids_are_those_of_the_host(bench: Bench) -> None:
    handle = bench.run("sleep 101 & echo ready; sleep 102")
    bench.logged("ready")
    commands = [
        Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ") for pid in bench.runtime.pids(handle)
    ]
    assert any(b"sleep 101" in command for command in commands)
    assert any(b"sleep 102" in command for command in commands)


def test_a_hook_runs_beside_the_job(bench: Bench) -> None:
    handle = bench.run("sleep 100", env={"COLOUR": "blue"})
    code, output = bench.runtime.run_hook(handle, ("sh", "-c", "echo $COLOUR; echo bad >&2; exit 3"), SECONDS)
    assert code == 3
    assert sorted(output.split()) == ["bad", "blue"]


def test_a_hook_can_signal_the_job_it_belongs_to(bench: Bench) -> None:
    handle = bench.run('trap "echo saved" USR1; echo ready; while :; do sleep 0.05; done')
    bench.logged("ready")
    code, _ = bench.runtime.run_hook(handle, ("sh", "-c", "kill -USR1 $TOPOD_JOB_PID"), SECONDS)
    assert code == 0
    assert "saved" in bench.logged("saved")


def test_a_hook_that_takes_too_long_is_given_up(bench: Bench) -> None:
    handle = bench.run("sleep 100")
    code, output = bench.runtime.run_hook(handle, ("sh", "-c", "echo begun; sleep 100"), 1.0)
    assert (code, output) == (None, "begun\n")


def test_a_hook_that_is_not_there_fails_with_the_reason(bench: Bench) -> None:
    handle = bench.run("sleep 100")
    code, output = bench.runtime.run_hook(handle, ("no-such-hook",), SECONDS)
    assert code in (126, 127)
    assert "no-such-hook" in output


def test_a_hook_of_a_job_that_is_gone_fails(bench: Bench) -> None:
    handle = bench.create("true")
    bench.runtime.remove(handle)
    code, output = bench.runtime.run_hook(handle, ("true",), SECONDS)
    assert code == 126
    assert output


def test_the_job_knows_what_it_was_given(bench: Bench) -> None:
    gpus = ("GPU-a", "GPU-b")
    allocation = Allocation(
        gpus=gpus, gpu_indices=(2, 3), cpus=CpuSet.of([*MACHINE, 4000]), memory_nodes=(0,)
    )
    spec = bench.spec(
        "env; grep Cpus_allowed_list /proc/self/status", env={"TOPOD_GPUS": "mine", "LR": "0.1"}
    )
    handle = bench.runtime.create(JobId(1), 2, spec, allocation)
    bench.handles.append(handle)
    bench.runtime.start(handle)
    bench.ended(handle)
    bench.runtime.remove(handle)
    lines = bench.runtime.log_path(JobId(1), 2).read_text().splitlines()
    for line in (
        *("TOPOD_JOB_ID=1", "TOPOD_JOB_NAME=test", "TOPOD_ATTEMPT=2", "TOPOD_GPUS=GPU-a,GPU-b", "LR=0.1"),
        *("TOPOD_GPU_INDICES=2,3", f"TOPOD_CPUS={allocation.cpus}", "TOPOD_NUMA_NODES=0"),
        *("CUDA_DEVICE_ORDER=PCI_BUS_ID", f"Cpus_allowed_list:\t{MACHINE}"),
    ):
        assert line in lines
    assert not any(line.startswith("CUDA_VISIBLE_DEVICES") for line in lines)


def test_attempts_and_jobs_are_kept_apart(bench: Bench) -> None:
    for job, attempt in ((1, 1), (1, 2), (2, 1)):
        handle = bench.runtime.create(JobId(job), attempt, bench.spec("true"), NOTHING)
        bench.handles.append(handle)
    assert {(one.job, one.attempt) for one in bench.runtime.observe()} == {(1, 1), (1, 2), (2, 1)}
    assert len(set(bench.handles)) == 3


def test_closing_leaves_the_job_running(bench: Bench) -> None:
    handle = bench.run("echo ready; exec sleep 100")
    bench.logged("ready")
    pids = bench.runtime.pids(handle)
    bench.again()
    assert pids
    assert all(map(alive, pids))
    assert bench.runtime.pids(handle) == pids


def test_the_runtime_describes_itself_in_one_line(bench: Bench) -> None:
    text = bench.runtime.describe()
    assert text.startswith(bench.runtime.name)
    assert "emulated" in text
    assert "\n" not in text


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return False
