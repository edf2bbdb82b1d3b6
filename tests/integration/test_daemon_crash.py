"""topod dies and comes back: no job is lost, none runs twice."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon_process import Topod, topod_in
from topod.errors import DaemonUnavailableError
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.client import Client
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


POINTS = int(os.environ.get("TOPOD_CRASH_POINTS", "8"))
"""Passages tried; set the variable to some hundreds for the long run."""
LAST_PASSAGE = 80
"""The preemption below passes about so many checkpoints."""


@pytest.mark.parametrize("seed", range(POINTS))
def test_a_preemption_survives_sigkill_at_any_point(tmp_path: Path, seed: int) -> None:
    passage = random.Random(seed).randint(4, LAST_PASSAGE)
    with Topod(tmp_path / "d") as topod:
        preemption_with_a_crash(topod, tmp_path / "runs", passage)


def preemption_with_a_crash(topod: Topod, runs: Path, passage: int) -> bool:
    """Play one preemption with a SIGKILL at that passage; say whether it came to the kill.

    Two low jobs fill the host, a high one takes half of it and ends, the low ones go on. Every start of a
    command leaves a line `name` in `runs`, every proper end `name.end`.
    """
    runs.touch()
    topod.start("--crash-at", str(passage), wait=False)
    low = (
        _persistently(topod, "low-a", _script("a", runs), 100),
        _persistently(topod, "low-b", _script("b", runs), 100),
    )
    for ident in low:
        _until_state(topod, ident, "running")
    high = _persistently(topod, "high", f"echo h >> {runs}; echo h.end >> {runs}", 1000)
    _until_state(topod, high, "succeeded")
    for ident in low:
        _until_state(topod, ident, "running")
    crashed = "crashed on request" in topod.log.read_text()
    views = {ident: topod.job(ident) for ident in (*low, high)}
    # A command writes its line a moment after it was started.
    topod.until(
        lambda: all(_lines(runs)[name] >= views[ident].starts for name, ident in zip("ab", low, strict=True))
    )
    lines = _lines(runs)
    # The high job's command ran exactly once, and each low one once for each start that topod counted.
    assert (lines["h"], lines["h.end"]) == (1, 1)
    assert (lines["a"], lines["b"]) == (views[low[0]].starts, views[low[1]].starts)
    assert sum(views[ident].preemptions for ident in low) >= 1
    assert [view.id for view in views.values()] == [1, 2, 3]
    return crashed


def _lines(runs: Path) -> Counter[str]:
    return Counter(runs.read_text().split())


def _until_state(topod: Topod, ident: int, state: str) -> None:
    topod.until(lambda: _state(topod, ident) == state, 60)


def _script(name: str, runs: Path) -> str:
    return f"echo {name} >> {runs}; exec sleep 600"


def _persistently(topod: Topod, name: str, script: str, priority: int) -> int:
    """Submit with a token until it is acknowledged, starting topod again when it died."""
    spec = JobSpec(
        name=name,
        command=("sh", "-c", script),
        request=ResourceRequest(gpus=4, priority=priority),
        grace_seconds=5.0,
    )
    while True:
        _revived(topod)
        try:
            reply = topod.ask(Submit(spec=spec, token=name), timeout=1.0)
        except DaemonUnavailableError:
            continue
        return reply.jobs[0].id  # type: ignore[union-attr]  # a Submit is answered by Jobs or an exception


def _state(topod: Topod, ident: int) -> str:
    try:
        return _revived(topod).job(ident, timeout=1.0).state
    except DaemonUnavailableError:
        return "unknown"


def _revived(topod: Topod) -> Topod:
    """Start topod again, without a crash to come, if it is dead."""
    if topod.process is None or topod.process.poll() is not None:
        topod.start()
    return topod


def _log(topod: Topod, ident: int) -> str:
    path = next((topod.state_dir / "logs").glob(f"*{ident}*"), None)
    return path.read_text() if path is not None and path.is_file() else ""


def test_topod_answers_again_after_many_restarts_in_a_row(topod: Topod) -> None:
    for _ in range(5):
        topod.kill()
        topod.start()
    with Client(topod.socket) as client:
        client.ask(Hello())
