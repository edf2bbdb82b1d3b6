"""The host's clock is set: no job is stopped for it, none waits longer for it."""

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import events as ev
from topod.lifecycle.states import JobState
from topod.model.container import Signal
from topod.model.rules import Quota, Rules, Scope

HOUR = 3600.0


@pytest.fixture
def world() -> World:
    return World(load_library_host("one-gpu").topology)


def set_clock(world: World, seconds: float) -> None:
    world.now += seconds
    world.apply(ev.ClockSet(seconds=seconds))


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_time_limit_counts_the_seconds_that_passed(world: World, step: float) -> None:
    job = world.submit(spec(gpus=1, max_runtime_seconds=60.0))
    world.run()
    world.advance(30)
    set_clock(world, step)
    world.advance(29)
    assert world.job(job).state is JobState.RUNNING
    world.advance(2)
    assert world.job(job).state is not JobState.RUNNING


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_grace_time_neither_ends_nor_grows(world: World, step: float) -> None:
    job = world.submit(spec(gpus=1, grace_seconds=30.0))
    world.run()
    container = world.containers["c-1-1"]
    container.ignores_term = True
    world.apply(ev.CancelRequested(job=job))
    world.run()
    set_clock(world, step)
    world.advance(29)
    assert container.told == [Signal.TERM]
    world.advance(2)
    assert container.told == [Signal.TERM, Signal.KILL]


def test_a_start_is_never_later_than_now_whatever_the_runtime_says(world: World) -> None:
    job = world.submit(spec(gpus=1))
    while world.job(job).stage != "launching":
        world.act()
    world.apply(ev.Started(job=job, attempt=1, at=world.now + HOUR))
    assert world.job(job).started_at == world.now


def test_a_back_off_that_is_over_does_not_begin_again(world: World) -> None:
    first = world.submit(spec(gpus=1))
    second = world.submit(spec(gpus=1, image="img:1"))
    world.apply(ev.ImageFailed(job=second, error="connection reset", final=False))
    world.advance(10)
    assert world.job(second).image_ready
    assert world.job(second).not_before == 0.0
    assert f"job {first}" in world.job(second).reason


def test_neither_does_that_of_one_that_waits_for_its_quota_by_now() -> None:
    rules = Rules(quotas=(Quota(scope=Scope.USER, gpus=1),))
    world = World(load_library_host("one-gpu").topology, rules=rules)
    job = world.submit(spec(gpus=1))
    while world.job(job).state is not JobState.STARTING:
        world.act()
    world.lanes.clear()
    world.apply(ev.CreateFailed(job=job, attempt=1, error="engine is away", final=False))
    assert world.job(job).not_before > world.now
    world.submit(spec(gpus=1))
    world.advance(20)
    assert "is 1 GPU, 1 held" in world.job(job).reason
    assert world.job(job).not_before == 0.0


def test_a_clock_set_back_while_the_daemon_was_away_puts_nothing_off_for_hours(world: World) -> None:
    world.now, world.faults = 10 * HOUR, 1.0
    job = world.submit(spec(image="img:1"))
    world.act()
    assert world.job(job).not_before > world.now
    world.faults = 0.0
    world.now -= HOUR
    world.crash()
    world.advance(301)
    assert world.job(job).state is JobState.RUNNING
