"""SIGKILL of topod under load, and containers that somebody else stops, kills or removes."""

import contextlib
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.fault_site import DEAF, FaultSite, kill
from tests.engine import PrivateEngine
from topod.model.job import OnPreempt, RestartPolicy

pytestmark = pytest.mark.docker

SEEDS = 2
KILLS = 6


@pytest.fixture
def site(tmp_path: Path, engine: PrivateEngine) -> Iterator[FaultSite]:
    with FaultSite(tmp_path, engine) as site:
        yield site


@pytest.mark.parametrize("seed", range(SEEDS))
def test_topod_killed_at_random_moments_under_load(site: FaultSite, seed: int) -> None:
    chance = random.Random(seed)
    jobs: list[int] = []
    for _ in range(KILLS):
        # Sleeping less than a kill lasts, or more: some end while topod is away.
        nap = f"sleep {chance.uniform(0, 2):.1f}"
        jobs += [site.submit(nap, gpus=chance.choice((1, 2, 4))) for _ in range(2)]
        jobs.append(site.submit(nap, gpus=chance.choice((2, 4)), priority=chance.choice((500, 1000))))
        assert site.topod.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            site.topod.process.wait(chance.uniform(0.05, 1.0))
        site.topod.kill()
        site.start()
    assert jobs == list(range(1, len(jobs) + 1))
    site.await_all(jobs, "succeeded")
    site.check(jobs)


def test_a_container_that_somebody_kills_stops_or_removes(site: FaultSite) -> None:
    killed, stopped, removed, again = jobs = [
        site.submit(),
        site.submit(),
        site.submit(),
        site.submit(restart=RestartPolicy.ON_FAILURE),
    ]
    for job in jobs:
        site.begun(job)
    handles = {job: site.handle(job) for job in jobs}
    kill(site.first_process(handles[killed]), signal.SIGKILL)
    kill(site.first_process(handles[again]), signal.SIGKILL)
    with contextlib.closing(site.docker()) as client:
        client.stop(handles[stopped], timeout=20)
        client.remove_container(handles[removed], force=True)
    assert _ended(site, killed) == ("failed", 137)
    assert _ended(site, stopped) == ("failed", 143)
    state, code = _ended(site, removed)
    assert (state, code) in {("failed", 137), ("lost", None)}, "seen before it was gone, or not"
    site.begun(again, 2)
    site.release()
    view = site.topod.wait(again)
    assert (view.state, view.attempt, view.failures) == ("succeeded", 2, 1)
    site.check(jobs)


def _ended(site: FaultSite, job: int) -> tuple[str, int | None]:
    view = site.topod.wait(job, timeout=60)
    return view.state, view.exit_code


def test_victims_that_somebody_removes_while_they_are_asked_to_stop(site: FaultSite) -> None:
    victims = [site.submit(DEAF, gpus=4), site.submit(DEAF, gpus=4, on_preempt=OnPreempt.CANCEL)]
    for job in victims:
        site.begun(job)
    serve = site.submit(gpus=8, priority=1000)
    site.topod.until(lambda: len(site.lines("heard")) == 2, 60)
    with contextlib.closing(site.docker()) as client:
        client.remove_container(site.handle(victims[0]), force=True)
        client.kill(site.handle(victims[1]))
    site.begun(serve)
    site.release()
    site.await_all([serve, victims[0]], "succeeded")
    assert site.topod.job(victims[0]).preemptions == 1
    assert site.topod.job(victims[1]).state == "cancelled"
    site.check([*victims, serve])


def test_the_preemptors_container_is_removed_while_it_waits(site: FaultSite) -> None:
    victim = site.submit(DEAF, gpus=8)
    site.begun(victim)
    serve = site.submit(gpus=8, priority=1000)
    site.topod.until(lambda: bool(site.lines("heard")), 60)
    with contextlib.closing(site.docker()) as client:
        client.remove_container(site.handle(serve), force=True)
        client.kill(site.handle(victim))
    # There is nothing left to start: the job ends with the reason, or is made anew; the victim is not lost.
    site.release()
    site.await_all([victim], "succeeded")
    assert site.topod.wait(serve).state in {"failed", "succeeded"}
    site.check([victim, serve])


def test_a_container_that_ignores_sigterm_is_killed_after_its_grace(site: FaultSite) -> None:
    victim = site.submit(DEAF, gpus=8, grace_seconds=1.0)
    site.begun(victim)
    serve = site.submit("true", gpus=8, priority=1000)
    assert site.topod.wait(serve, timeout=60).state == "succeeded"
    assert site.lines("heard")
    site.begun(victim, 2)
    site.release()
    view = site.topod.wait(victim)
    assert (view.state, view.starts, view.preemptions) == ("succeeded", 2, 1)
    site.check([victim, serve])
