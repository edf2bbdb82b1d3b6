"""Failures in a row: how long each costs, when a job is given up, and what ends the row."""

import pytest

from tests.fakes.world import World, spec
from topod.daemon.views import job_view
from topod.discovery.library import load_library_host
from topod.lifecycle.backoff import back_off
from topod.lifecycle.states import JobState
from topod.model.job import JobId, RestartPolicy


@pytest.fixture
def world() -> World:
    return World(load_library_host("hgx-h100").topology)


def fails(world: World, job: JobId, after: float) -> None:
    """Let a job run so long and fail."""
    assert world.job(job).state is JobState.RUNNING
    world.advance(after)
    world.exit(job, 3)
    world.run()


def restartable(world: World, times: int) -> JobId:
    job = world.submit(spec(gpus=1, restart=RestartPolicy.ON_FAILURE, max_restarts=times))
    world.run()
    return job


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 5), (2, 10), (6, 160), (7, 300), (8, 300), (10**6, 300)]
)
def test_the_wait_doubles_up_to_a_bound_however_many_failures(failures: int, seconds: float) -> None:
    assert back_off(failures) == seconds


def test_each_failure_in_a_row_costs_twice_the_wait_and_is_told(world: World) -> None:
    job = restartable(world, 9)
    waits = []
    for number in range(1, 9):
        fails(world, job, after=1.0)
        assert f"restart {number} of 9 in" in world.job(job).reason
        waits.append(world.job(job).not_before - world.now)
        world.advance(waits[-1])
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]


def test_a_long_run_ends_the_row(world: World) -> None:
    job = restartable(world, 2)
    for run in range(20):
        fails(world, job, after=301.0 if run % 2 else 1.0)
        assert world.job(job).failures == (1 if run % 2 or run == 0 else 2)
        world.advance(60.0 if run % 2 == 0 else 5.0)
    assert world.job(job).starts == 21


def test_a_run_of_the_bound_itself_does_not(world: World) -> None:
    job = restartable(world, 2)
    for wait in (5.0, 10.0):
        fails(world, job, after=300.0)
        world.advance(wait)
    fails(world, job, after=300.0)
    assert world.job(job).state is JobState.FAILED
    assert world.job(job).failures == 2


def test_a_long_run_that_was_preempted_ends_the_row_too(world: World) -> None:
    job = restartable(world, 2)
    fails(world, job, after=1.0)
    world.advance(5.0)
    world.advance(400.0)
    winner = world.submit(spec(gpus=8, priority=1000))
    world.run()
    assert world.job(winner).state is JobState.RUNNING
    assert (world.job(job).preemptions, world.job(job).failures) == (1, 0)


def test_when_the_next_try_is_due_is_said_until_then(world: World) -> None:
    job = restartable(world, 2)
    fails(world, job, after=1.0)
    view = job_view(world.job(job), {}, now=world.now)
    assert view.next_try_at == world.now + 5.0
    world.advance(5.0)
    assert job_view(world.job(job), {}, now=world.now).next_try_at is None
