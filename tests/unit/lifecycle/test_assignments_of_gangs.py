"""A member of a job over several hosts stops nobody and starts nothing before it is told to go."""

import pytest

from tests.fakes.assignments import FLEET_JOB, assign, running, train
from tests.fakes.world import World
from topod.discovery.library import load_library_host
from topod.lifecycle import events as ev
from topod.lifecycle.states import JobState, Stage
from topod.model.job import (
    JobId,
    RestartPolicy,
)


@pytest.fixture
def world() -> World:
    return World(load_library_host("hgx-h100").topology)


def gang(world: World) -> tuple[JobId, JobId]:
    victim = running(world, gpus=8)
    return assign(world, victims=(victim,), size=2), victim


def test_one_of_several_stops_nobody_until_it_is_told_to_go(world: World) -> None:
    job, victim = gang(world)
    world.advance(3600.0)
    assert (world.job(job).stage, world.job(victim).state) == (Stage.CREATING, JobState.RUNNING)
    assert world.job(job).handle is not None
    world.apply(ev.Go(job=FLEET_JOB, fence=5))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    world.apply(ev.Go(job=FLEET_JOB, fence=5))
    assert world.job(victim).preemptions == 1


def test_an_assignment_that_comes_again_may_say_go(world: World) -> None:
    job, victim = gang(world)
    world.run()
    assign(world, victims=(victim,), size=2, go=True)
    world.run()
    assert world.job(job).state is JobState.RUNNING


def test_a_go_that_comes_before_the_container_is_made_counts_then(world: World) -> None:
    job, _ = gang(world)
    world.apply(ev.Go(job=FLEET_JOB, fence=5))
    world.run()
    assert world.job(job).state is JobState.RUNNING


def test_a_go_for_another_assignment_means_nothing(world: World) -> None:
    job, _ = gang(world)
    world.run()
    world.apply(ev.Go(job=FLEET_JOB, fence=4))
    world.apply(ev.Go(job=FLEET_JOB + 1, fence=5))
    world.run()
    assert world.job(job).stage is Stage.CREATING


@pytest.mark.parametrize("made", [True, False])
def test_one_that_is_revoked_before_it_went_stops_nobody(world: World, made: bool) -> None:
    job, victim = gang(world)
    if made:
        world.run()
    world.apply(ev.Revoked(job=FLEET_JOB, fence=5, requeue=True, reason="another host refused"))
    world.run()
    assert (world.job(job).state, world.job(job).reason) == (JobState.RETURNED, "another host refused")
    assert (world.job(victim).state, world.job(victim).preemptions) == (JobState.RUNNING, 0)
    assert [box.job for box in world.containers.values()] == [victim]


def test_a_crash_while_it_waits_changes_nothing(world: World) -> None:
    job, victim = gang(world)
    world.run()
    world.crash()
    world.run()
    assert world.job(job).stage is Stage.CREATING
    world.apply(ev.Go(job=FLEET_JOB, fence=5))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    assert world.job(victim).state is JobState.PENDING


def test_one_of_several_that_fails_is_not_started_again_alone(world: World) -> None:
    job = assign(world, train(8, restart=RestartPolicy.ON_FAILURE), size=2, go=True)
    world.run()
    world.exit(job, 3)
    world.run()
    assert (world.job(job).state, world.job(job).exit_code) == (JobState.FAILED, 3)
