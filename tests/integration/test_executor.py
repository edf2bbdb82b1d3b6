"""Effects against a runtime that fails: each gets its answer, in order, and nothing is given up too early."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from topod.daemon import executor as subject
from topod.daemon.executor import Executor, Surroundings
from topod.errors import JobRejectedError, ProbeError, PullFailedError, RuntimeUnavailableError
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.states import HostState, Job, JobState, Stage
from topod.model.container import ContainerStatus, Exit, Observed, Signal
from topod.model.job import Allocation, JobId, JobSpec
from topod.model.request import ResourceRequest
from topod.ports import Execution, ImageMissingError
from topod.shell.health import Health
from topod.shell.vetting import PolicyError, UnknownUserError, Vet, allow

ONE = JobId(1)
SPEC = JobSpec(name="t", command=("true",), image="img")
DOWN = RuntimeUnavailableError("the engine does not answer")
CREATE = fx.Create(job=ONE, attempt=1, spec=SPEC, allocation=Allocation())
WITHDRAW = fx.Withdraw(job=ONE, attempt=1, handle="h")
LAUNCH = fx.Launch(job=ONE, attempt=1, handle="h")
CHECK = fx.CheckDevices(job=ONE, attempt=1, gpus=("GPU-a",))
COLLECT = fx.Collect(job=ONE, attempt=1, handle="h")
PULL = fx.PullImage(job=ONE, spec=SPEC)


class Scripted:
    """A runtime and a probe whose calls end as the script says, in turn; without a script they succeed."""

    name = "scripted"
    engine_url = ""

    def __init__(self, **script: list[Any]) -> None:
        self.script = {name: deque(results) for name, results in script.items()}
        self.calls: list[str] = []

    def _play(self, name: str, default: Any) -> Any:
        self.calls.append(name)
        queue = self.script.get(name)
        result = queue.popleft() if queue else default
        if isinstance(result, Exception):
            raise result
        return result() if callable(result) else result

    def describe(self) -> str:
        return "scripted"

    def ensure_image(self, spec: JobSpec) -> None:
        self._play("ensure_image", None)

    def image_seen(self, spec: JobSpec) -> bool:
        return False

    def create(self, job: JobId, attempt: int, spec: JobSpec, allocation: Allocation) -> str:
        return str(self._play("create", "h"))

    def start(self, handle: str, checkpoint: str | None = None) -> float:
        return float(self._play("start", 5.0))

    def execute(self, handle: str, command: tuple[str, ...], *, stdin: bool) -> Execution:
        raise AssertionError("nobody asks for it here")

    def freeze(self, handle: str, name: str, timeout_seconds: float) -> float | None:
        life: float | None = self._play("freeze", None)
        return life

    def signal(self, handle: str, signal: Signal) -> None:
        self._play(signal.value, None)

    def run_hook(
        self, handle: str, command: tuple[str, ...], timeout_seconds: float
    ) -> tuple[int | None, str]:
        result: tuple[int | None, str] = self._play("run_hook", (0, ""))
        return result

    def observe(self) -> tuple[Observed, ...]:
        found: tuple[Observed, ...] = self._play("observe", ())
        return found

    def watch(self, on_exit: Callable[[Exit], None]) -> None:
        pass

    def log_path(self, job: JobId, attempt: int) -> Path:
        return Path("/nowhere")

    def remove(self, handle: str) -> None:
        self._play("remove", None)

    def pids(self, handle: str) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        pass

    def busy(self, uuids: tuple[str, ...]) -> dict[str, str]:
        result: dict[str, str] = self._play("busy", {})
        return result


@dataclass
class Around:
    """The daemon around the executor: the job's state, and what was reported."""

    job: Job
    events: list[ev.Event] = field(default_factory=list)
    health: Health = field(default_factory=Health)

    async def post(self, event: ev.Event) -> None:
        self.events.append(event)

    @property
    def state(self) -> HostState:
        return HostState(jobs={ONE: self.job})


def a_job(state: JobState = JobState.STARTING, stage: Stage | None = None) -> Job:
    return Job(id=ONE, spec=SPEC, submitted_at=0.0, attempt=1, state=state, stage=stage, handle="h")


def played(world: Scripted, job: Job, *effects: fx.Effect, seconds: float = 0.2, vet: Vet = allow) -> Around:
    """Carry out the effects to the end and return what came of it."""
    around = Around(job)

    async def play() -> None:
        surroundings = Surroundings(
            post=around.post, state=lambda: around.state, health=around.health, vet=vet
        )
        executor = Executor(world, world, surroundings, devices_free_seconds=seconds)
        executor.carry_out(effects)
        async with asyncio.timeout(20):
            await asyncio.gather(*executor._tasks)
        await executor.stop()

    asyncio.run(play())
    return around


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "RETRY_SECONDS", (0.001, 0.01))
    monkeypatch.setattr(subject, "CHECK_EVERY_SECONDS", 0.001)


def test_a_create_is_tried_until_the_engine_answers() -> None:
    world = Scripted(create=[DOWN, DOWN, "c9"])
    around = played(world, a_job(JobState.CANCELLED), CREATE)
    assert around.events == [ev.Created(job=ONE, attempt=1, handle="c9")]
    assert world.calls == ["create"] * 3
    assert around.health.notes == []


def test_what_is_decided_while_topod_stops_is_left_to_the_next_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, around = Scripted(), Around(a_job())

    async def play() -> None:
        surroundings = Surroundings(post=around.post, state=lambda: around.state, health=around.health)
        executor = Executor(world, world, surroundings)
        await executor.stop()
        executor.carry_out((CREATE, COLLECT))
        await asyncio.gather(*executor._tasks)

    asyncio.run(play())
    # A failure that is told would count against the job.
    assert (world.calls, around.events, caplog.records) == ([], [], [])


@pytest.mark.parametrize(
    ("error", "final", "missing"),
    [
        (JobRejectedError("bad mount"), True, False),
        (ImageMissingError(), False, True),
        (ZeroDivisionError(), False, False),
    ],
)
def test_a_create_that_fails_says_whether_to_try_again(error: Exception, final: bool, missing: bool) -> None:
    (event,) = played(Scripted(create=[error]), a_job(), CREATE).events
    assert isinstance(event, ev.CreateFailed)
    assert (event.final, event.image_missing) == (final, missing)
    assert event.error


def _forbidden(spec: JobSpec) -> JobSpec:
    raise PolicyError("not allowed")


def _unknown(spec: JobSpec) -> JobSpec:
    raise UnknownUserError("nobody knows alice just now")


def test_what_the_policy_forbids_by_now_reaches_no_runtime() -> None:
    world = Scripted(create=["c9"], start=[7.0])
    (made,) = played(world, a_job(), CREATE, vet=_forbidden).events
    (begun,) = played(world, a_job(stage=Stage.LAUNCHING), LAUNCH, vet=_forbidden).events
    assert made == ev.CreateFailed(job=ONE, attempt=1, error="not allowed", final=True)
    assert begun == ev.StartFailed(job=ONE, attempt=1, error="not allowed", final=True)
    assert world.calls == []


def test_a_directory_service_that_is_away_ends_no_job() -> None:
    world = Scripted(create=["c9"], start=[7.0])
    (made,) = played(world, a_job(), CREATE, vet=_unknown).events
    (begun,) = played(world, a_job(stage=Stage.LAUNCHING), LAUNCH, vet=_unknown).events
    assert isinstance(made, ev.CreateFailed)
    assert isinstance(begun, ev.StartFailed)
    assert not made.final
    assert not begun.final
    assert world.calls == []


def test_a_start_is_tried_again_while_it_is_wanted() -> None:
    around = played(Scripted(start=[DOWN, 7.0]), a_job(stage=Stage.LAUNCHING), LAUNCH)
    assert around.events == [ev.Started(job=ONE, attempt=1, at=7.0)]


def seen(status: ContainerStatus) -> tuple[Observed, ...]:
    at = None if status is ContainerStatus.CREATED else 7.0
    return (Observed(job=ONE, attempt=1, handle="h", status=status, started_at=at),)


def test_a_start_that_is_no_longer_wanted_cannot_come_late_any_more_when_it_is_given_up() -> None:
    """The GPUs go to others then."""
    world = Scripted(start=[DOWN] * 50, observe=[DOWN, seen(ContainerStatus.CREATED)], remove=[DOWN])
    kill = fx.Deliver(job=ONE, attempt=1, handle="h", signal=Signal.KILL)
    around = played(world, a_job(JobState.STOPPING, Stage.LAUNCHING), LAUNCH, kill)
    assert [type(event) for event in around.events] == [ev.StartFailed, ev.Delivered]
    assert world.calls == ["start", "observe", "observe", "remove", "remove", "SIGKILL"]


def test_a_start_that_is_no_longer_wanted_and_was_made_all_the_same_is_ended_by_the_signal_behind_it() -> (
    None
):
    world = Scripted(start=[DOWN], observe=[seen(ContainerStatus.RUNNING)])
    term = fx.Deliver(job=ONE, attempt=1, handle="h", signal=Signal.TERM)
    around = played(world, a_job(JobState.STOPPING, Stage.LAUNCHING), LAUNCH, term)
    assert around.events[0] == ev.Started(job=ONE, attempt=1, at=7.0)
    assert world.calls == ["start", "observe", "SIGTERM"]


REJECTED = JobRejectedError("no such device")


@pytest.mark.parametrize(
    ("again", "start", "in_doubt"),
    [
        (False, [REJECTED], False),
        (True, [REJECTED], True),
        (False, [DOWN, REJECTED], True),
        (False, [ZeroDivisionError("planted")], True),
    ],
)
def test_a_failed_start_is_in_doubt_where_an_earlier_order_may_still_be_carried_out(
    again: bool, start: list[Exception], in_doubt: bool
) -> None:
    world = Scripted(start=list(start))
    (told,) = played(world, a_job(stage=Stage.LAUNCHING), replace(LAUNCH, again=again)).events
    assert isinstance(told, ev.StartFailed)
    assert told.in_doubt == in_doubt


def test_a_rejected_start_of_a_job_that_is_told_to_stop_cannot_come_late_any_more() -> None:
    world = Scripted(start=[REJECTED], observe=[seen(ContainerStatus.CREATED)])
    (told,) = played(world, a_job(JobState.STOPPING, Stage.LAUNCHING), replace(LAUNCH, again=True)).events
    assert isinstance(told, ev.StartFailed)
    assert not told.in_doubt
    assert world.calls == ["start", "observe", "remove"]


@pytest.mark.parametrize("trouble", [DOWN, ZeroDivisionError("planted")])
def test_what_is_withdrawn_is_removed_before_anyone_is_told(trouble: Exception) -> None:
    world = Scripted(observe=[trouble, seen(ContainerStatus.CREATED)], remove=[DOWN])
    around = played(world, a_job(JobState.STOPPING, Stage.LAUNCHING), WITHDRAW)
    assert [type(event) for event in around.events] == [ev.StartFailed]
    assert world.calls == ["observe", "observe", "remove", "remove"]


@pytest.mark.parametrize("status", [ContainerStatus.RUNNING, ContainerStatus.EXITED])
def test_what_runs_or_ran_when_it_is_withdrawn_is_not_removed(status: ContainerStatus) -> None:
    """It is owed its signal, or how it ended is to be told."""
    world = Scripted(observe=[seen(status)])
    around = played(world, a_job(JobState.STOPPING, Stage.LAUNCHING), WITHDRAW)
    assert around.events == [ev.Started(job=ONE, attempt=1, at=7.0)]
    assert world.calls == ["observe"]


def test_a_restore_that_is_withdrawn_is_removed_with_what_was_frozen() -> None:
    world = Scripted(observe=[seen(ContainerStatus.EXITED)])
    job = replace(a_job(stage=Stage.LAUNCHING), frozen="preemption-1", frozen_life=7.0)
    (told,) = played(world, job, WITHDRAW).events
    assert isinstance(told, ev.StartFailed)
    assert world.calls == ["observe", "remove"]


def test_sigkill_does_not_wait_for_a_sigterm_that_cannot_be_delivered() -> None:
    world = Scripted(SIGTERM=[DOWN] * 50)
    term = fx.Deliver(job=ONE, attempt=1, handle="h", signal=Signal.TERM)
    kill = fx.Deliver(job=ONE, attempt=1, handle="h", signal=Signal.KILL)
    played(world, a_job(JobState.STOPPING), term, kill)
    assert world.calls == ["SIGTERM", "SIGKILL"]


def test_an_undelivered_signal_is_tried_again_while_the_job_is_stopping() -> None:
    world = Scripted(SIGTERM=[DOWN, DOWN])
    played(world, a_job(JobState.STOPPING), fx.Deliver(job=ONE, attempt=1, handle="h", signal=Signal.TERM))
    assert world.calls == ["SIGTERM"] * 3


def test_a_container_is_removed_however_long_it_takes() -> None:
    world = Scripted(remove=[DOWN, ZeroDivisionError(), DOWN])
    around = played(world, a_job(JobState.SUCCEEDED), COLLECT)
    assert around.events == [ev.Collected(job=ONE, attempt=1)]
    assert world.calls == ["remove"] * 4


def test_gpus_are_looked_at_until_they_are_free() -> None:
    world = Scripted(busy=[{"GPU-a": "pid 7"}, ProbeError("slow"), {}])
    around = played(world, a_job(stage=Stage.CHECKING), CHECK, seconds=20.0)
    assert around.events == [ev.DevicesFree(job=ONE, attempt=1)]


def test_gpus_that_stay_busy_are_reported_with_the_reason() -> None:
    world = Scripted(busy=[{"GPU-a": "pid 7"}] * 10_000)
    around = played(world, a_job(stage=Stage.CHECKING), CHECK)
    assert around.events == [ev.DevicesBusy(job=ONE, attempt=1, busy=(("GPU-a", "pid 7"),))]


def test_a_pull_that_fails_is_reported_and_not_repeated() -> None:
    for error, final in ((DOWN, False), (JobRejectedError("no such image"), True)):
        world = Scripted(ensure_image=[error])
        around = played(world, a_job(JobState.PENDING), PULL)
        assert around.events == [ev.ImageFailed(job=ONE, error=str(error), final=final)]


def test_hooks_report_success_failure_and_delay() -> None:
    hook = fx.RunHook(job=ONE, attempt=1, handle="h", command=("save",), timeout_seconds=3.0)
    world = Scripted(run_hook=[(0, "saved"), (2, "no space"), (None, ""), DOWN])
    around = played(world, a_job(JobState.STOPPING), hook, hook, hook, hook)
    told = [(event.ok, event.text) for event in around.events if isinstance(event, ev.HookDone)]
    assert told == [
        (True, "saved"),
        (False, "exit code 2: no space"),
        (False, "no end within 3 s"),
        (False, str(DOWN)),
    ]


def test_effects_of_one_job_are_in_order_and_those_of_two_side_by_side() -> None:
    both = threading.Barrier(2)

    def meet() -> str:
        both.wait(20)
        return "h"

    world = Scripted(create=[meet, meet])
    other = fx.Create(job=JobId(2), attempt=1, spec=SPEC, allocation=Allocation())
    around = played(world, a_job(stage=Stage.LAUNCHING), CREATE, other, LAUNCH)
    assert [
        type(event) for event in around.events if event != ev.Created(job=JobId(2), attempt=1, handle="h")
    ] == [
        ev.Created,
        ev.Started,
    ]


def test_an_image_that_cannot_be_had_is_no_trouble_of_the_engine() -> None:
    away = PullFailedError("image img cannot be pulled now: no such host")
    around = played(Scripted(ensure_image=[DOWN, away]), a_job(JobState.PENDING), PULL, PULL)
    assert around.events[1] == ev.ImageFailed(job=ONE, error=away.message, final=False)
    # It even shows that the engine answers again.
    assert around.health.notes == []
    around = played(Scripted(ensure_image=[away, DOWN]), a_job(JobState.PENDING), PULL, PULL)
    assert around.health.notes == ["runtime: the engine does not answer"]


def test_at_most_two_images_are_pulled_at_once() -> None:
    running, most, lock = 0, 0, threading.Lock()
    gate = threading.Event()

    def pull() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 2:
                gate.set()
        gate.wait(20)
        with lock:
            running -= 1

    world = Scripted(ensure_image=[pull] * 6)
    around = Around(a_job(JobState.PENDING))
    jobs = {JobId(i): a_job(JobState.PENDING) for i in range(6)}

    async def play() -> None:
        surroundings = Surroundings(
            post=around.post, state=lambda: HostState(jobs=jobs), health=around.health
        )
        executor = Executor(world, world, surroundings)
        executor.carry_out(tuple(fx.PullImage(job=ident, spec=SPEC) for ident in jobs))
        async with asyncio.timeout(20):
            await asyncio.gather(*executor._tasks)
        await executor.stop()

    asyncio.run(play())
    assert len(around.events) == 6
    assert most == 2


def test_of_many_jobs_without_gpus_few_start_at_once_and_one_with_gpus_waits_for_none() -> None:
    many, last = [JobId(i) for i in range(1, 21)], JobId(99)
    heavy = replace(SPEC, request=ResourceRequest(gpus=1))
    gate, lock, running, most = threading.Event(), threading.Lock(), 0, 0

    class Slow(Scripted):
        def create(self, job: JobId, attempt: int, spec: JobSpec, allocation: Allocation) -> str:
            nonlocal running, most
            if job == last:
                gate.set()
                return "h"
            with lock:
                running += 1
                most = max(most, running)
            assert gate.wait(20), "the job with a GPU waits behind those without"
            with lock:
                running -= 1
            return "h"

    world, around = Slow(), Around(a_job())
    jobs = {ident: replace(a_job(), id=ident) for ident in many}
    jobs[last] = replace(a_job(), id=last, spec=heavy)

    async def play() -> None:
        surroundings = Surroundings(
            post=around.post, state=lambda: HostState(jobs=jobs), health=around.health
        )
        executor = Executor(world, world, surroundings)
        executor.carry_out(tuple(replace(CREATE, job=ident, spec=jobs[ident].spec) for ident in jobs))
        async with asyncio.timeout(30):
            await asyncio.gather(*executor._tasks)
        await executor.stop()

    asyncio.run(play())
    assert all(isinstance(event, ev.Created) for event in around.events)
    assert len(around.events) == 21
    assert most <= 4
