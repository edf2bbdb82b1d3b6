"""Whose process it is: asked of the runtime once, forgotten with the job."""

from dataclasses import replace
from typing import cast

from topod.daemon.owners import Owners
from topod.errors import RuntimeUnavailableError
from topod.health.use import Who
from topod.lifecycle.states import HostState, Job, JobState
from topod.model.job import JobId, JobSpec
from topod.ports import ContainerRuntime


class Runtime:
    """A runtime that only knows the processes of its containers."""

    def __init__(self) -> None:
        self.processes: dict[str, tuple[int, ...]] = {"a": (1, 2), "b": (3,)}
        self.asked = 0
        self.answers = True

    def pids(self, handle: str) -> tuple[int, ...]:
        self.asked += 1
        if not self.answers:
            raise RuntimeUnavailableError("the engine does not answer")
        return self.processes.get(handle, ())


def job(ident: int, handle: str) -> Job:
    spec = JobSpec(name="t", command=("x",))
    return Job(id=JobId(ident), spec=spec, state=JobState.RUNNING, submitted_at=0.0, handle=handle)


STATE = HostState(jobs={JobId(1): job(1, "a"), JobId(2): job(2, "b")})


def owners(runtime: Runtime, *, born: dict[int, float] | None = None, sees_all: bool = True) -> Owners:
    times = {} if born is None else born
    return Owners(
        cast("ContainerRuntime", runtime),
        lambda pid: Who(pid=pid, started_at=times.get(pid, 1.0)),
        sees_all=sees_all,
    )


def test_each_process_is_asked_for_once() -> None:
    runtime = Runtime()
    known = owners(runtime)
    for _ in range(3):
        assert known.of({1, 3, 9}, STATE) == {1: 1, 3: 2}
    assert runtime.asked == 2
    assert known.of({2}, STATE) == {2: 1}
    assert runtime.asked == 4


def test_a_number_that_is_used_again_is_another_process() -> None:
    runtime, born = Runtime(), {3: 1.0}
    known = owners(runtime, born=born)
    assert known.of({3}, STATE) == {3: 2}
    born[3] = 2.0
    runtime.processes = {}
    assert known.of({3}, STATE) == {}


def test_what_a_job_left_behind_is_not_its_own_any_more() -> None:
    known = owners(Runtime())
    assert known.of({3}, STATE) == {3: 2}
    ended = replace(STATE, jobs={JobId(1): STATE.jobs[JobId(1)]})
    assert known.of({3}, ended) == {}


def test_nobody_knows_while_the_runtime_does_not_answer_and_asks_again_later() -> None:
    runtime = Runtime()
    known = owners(runtime)
    runtime.answers = False
    assert known.of({1, 9}, STATE) is None
    runtime.answers = True
    assert known.of({1, 9}, STATE) == {1: 1}


def test_nobody_knows_where_pids_are_not_those_of_the_host() -> None:
    assert owners(Runtime(), sees_all=False).of({1}, STATE) is None
