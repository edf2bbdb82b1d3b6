"""topod dies and comes back: no job is lost, none runs twice."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.integration.daemon_process import Topod, topod_in
from topod.errors import DaemonUnavailableError
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.client import Client
from topod.protocol.replies import Welcome
from topod.protocol.requests import Cancel, Hello, Submit


@pytest.fixture
def topod(tmp_path: Path) -> Iterator[Topod]:
    yield from topod_in(tmp_path / "d")


def test_a_running_job_survives_the_daemon_and_its_exit_code_is_told(topod: Topod, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = topod.submit(
        "sh", "-c", f"echo one; until [ -e {go} ]; do sleep 0.05; done; echo two; exit 7", gpus=1
    )
    topod.wait(job.id, "running")
    topod.kill()
    topod.start()
    assert topod.job(job.id).state == "running"
    go.touch()
    done = topod.wait(job.id)
    assert (done.state, done.exit_code, done.attempt) == ("failed", 7, 1)
    assert topod.output(job.id) == "one\ntwo\n"


def test_a_job_that_ended_while_topod_was_down_is_not_lost(topod: Topod, tmp_path: Path) -> None:
    go, gone = tmp_path / "go", tmp_path / "gone"
    script = f"until [ -e {go} ]; do sleep 0.05; done; touch {gone}; exit 5"
    job = topod.submit("sh", "-c", script, gpus=1)
    topod.wait(job.id, "running")
    topod.kill()
    go.touch()
    topod.until(gone.exists)
    topod.start()
    done = topod.wait(job.id)
    assert (done.state, done.exit_code, done.attempt) == ("failed", 5, 1)


def test_stopping_goes_on_after_a_restart(topod: Topod, tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f"trap 'echo x >> {told}' TERM; echo ready; while :; do sleep 0.05; done"
    job = topod.submit("sh", "-c", script, gpus=1, grace_seconds=2.0)
    topod.wait(job.id, "running")
    topod.until(lambda: "ready" in _log(topod, job.id))
    topod.ask(Cancel(jobs=[job.id]))
    topod.until(told.exists)
    topod.kill()
    topod.start()
    done = topod.wait(job.id)
    assert (done.state, done.exit_code) == ("cancelled", 137)


def test_queued_jobs_and_their_order_survive(topod: Topod) -> None:
    first = topod.submit("sleep", "600", gpus=8, priority=600)
    topod.wait(first.id, "running")
    waiting = [topod.submit("true", gpus=8, priority=priority).id for priority in (300, 500, 400)]
    topod.kill()
    topod.start()
    topod.ask(Cancel(jobs=[first.id]))
    ended = {ident: topod.wait(ident) for ident in waiting}
    assert {view.state for view in ended.values()} == {"succeeded"}
    began = sorted(waiting, key=lambda ident: ended[ident].started_at or 0)
    assert [ended[ident].priority for ident in began] == [500, 400, 300]


STORIES = 17
CRASHES = 12
"""In each story: together more than 200 kills at random points of a preemption."""
LONGEST_GAP = 45
"""One round of the story below passes about 60 checkpoints."""


@pytest.mark.parametrize("seed", range(STORIES))
def test_preemptions_survive_sigkill_at_any_points(tmp_path: Path, seed: int) -> None:
    with Topod(tmp_path / "d") as topod:
        Story(topod, tmp_path / "runs", random.Random(seed)).play()


class Story:
    """Preemptions on a full host, with a topod that dies again and again.

    Two low jobs fill the host; a high one takes half of it and ends, the low ones go on; and once more,
    until topod has died `CRASHES` times. Every start of a command leaves its name in `runs`.
    """

    def __init__(self, topod: Topod, runs: Path, chance: random.Random) -> None:
        self.topod = topod
        self.runs = runs
        self.chance = chance
        self.crashes = -1
        runs.touch()

    def play(self) -> None:
        low = {name: self.submit(name, f"echo {name} >> {self.runs}; exec sleep 600", 100) for name in "ab"}
        high: dict[str, int] = {}
        while self.crashes < CRASHES:
            self.await_state(low.values(), "running")
            self.topod.until(lambda: self.has_written(low), 60)
            name = f"h{len(high)}"
            high[name] = self.submit(name, f"echo {name} >> {self.runs}", 1000)
            self.await_state([high[name]], "succeeded")
        self.await_state(low.values(), "running")
        # Without a crash to come, for the last look.
        self.topod.kill()
        self.topod.start()
        self.check(low, high)

    def check(self, low: dict[str, int], high: dict[str, int]) -> None:
        views = {name: self.topod.job(ident) for name, ident in (low | high).items()}
        # A command writes its line a moment after it was started.
        self.topod.until(lambda: all(self.lines()[name] >= view.starts for name, view in views.items()))
        # Every command ran once for each start that topod counted, and the high ones exactly once.
        assert self.lines() == {name: view.starts for name, view in views.items()}
        assert {views[name].starts for name in high} == {1}
        assert sum(views[name].preemptions for name in low) >= len(high)
        assert sorted(view.id for view in views.values()) == list(range(1, len(views) + 1))

    def lines(self) -> Counter[str]:
        return Counter(self.runs.read_text().split())

    def has_written(self, low: dict[str, int]) -> bool:
        """Whether every low job wrote its line: one that is stopped before it could would never do so."""
        try:
            starts = {name: self.alive().job(ident, timeout=1.0).starts for name, ident in low.items()}
        except DaemonUnavailableError:
            return False
        lines = self.lines()
        return all(lines[name] >= count for name, count in starts.items())

    def await_state(self, idents: Iterable[int], state: str) -> None:
        for ident in idents:
            self.topod.until(lambda ident=ident: self.state(ident) == state, 60)  # type: ignore[misc]  # bound now

    def submit(self, name: str, script: str, priority: int) -> int:
        """Submit with a token until it is acknowledged, starting topod again when it died."""
        spec = JobSpec(
            name=name,
            command=("sh", "-c", script),
            request=ResourceRequest(gpus=4, priority=priority),
            grace_seconds=5.0,
        )
        while True:
            try:
                reply = self.alive().ask(Submit(spec=spec, token=name), timeout=1.0)
            except DaemonUnavailableError:
                continue
            return reply.jobs[0].id  # type: ignore[union-attr]  # a Submit is answered by Jobs or an exception

    def state(self, ident: int) -> str:
        try:
            return self.alive().job(ident, timeout=1.0).state
        except DaemonUnavailableError:
            return "unknown"

    def alive(self) -> Topod:
        """Start topod again if it is dead, with the next crash to come while there are some left."""
        process = self.topod.process
        if process is None or process.poll() is not None:
            self.crashes += 1
            more = ("--crash-at", str(self.chance.randint(4, LONGEST_GAP))) if self.crashes < CRASHES else ()
            self.topod.start(*more, wait=False)
        return self.topod


def _log(topod: Topod, ident: int) -> str:
    path = next((topod.state_dir / "logs").glob(f"*{ident}*"), None)
    return path.read_text() if path is not None and path.is_file() else ""


def test_topod_answers_again_after_many_restarts_in_a_row(topod: Topod) -> None:
    for _ in range(5):
        topod.kill()
        topod.start()
    with Client(topod.socket) as client:
        assert isinstance(client.ask(Hello()), Welcome)
