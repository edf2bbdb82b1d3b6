"""What schedulers are known to do again and again, or twice: none of it happens here."""

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import events as ev
from topod.lifecycle.machine import step
from topod.lifecycle.states import JobState, Stage
from topod.model.job import JobId, JobSpec
from topod.model.request import Affinity


@pytest.fixture
def world() -> World:
    return World(load_library_host("dgx1").topology)


def low(gpus: int = 2) -> JobSpec:
    return spec("batch", priority=100, gpus=gpus)


def high(gpus: int = 4) -> JobSpec:
    return spec("serve", priority=1000, gpus=gpus, affinity=Affinity.NVLINK)


def fill(world: World) -> list[JobId]:
    jobs = [world.submit(low()) for _ in range(4)]
    world.run()
    assert all(world.job(job).state is JobState.RUNNING for job in jobs)
    return jobs


def until_clearing(world: World, job: JobId) -> None:
    while world.job(job).stage is not Stage.CLEARING:
        assert world.act()


def test_a_job_that_waits_costs_nothing_however_often_it_is_looked_at(world: World) -> None:
    fill(world)
    world.submit(low())
    world.run()
    before = world.state
    for event in (ev.Tick(), ev.Swept(containers=world.look(), at=world.now), ev.Tick()):
        outcome = step(world.tables, before, event, world.now)
        assert outcome.state is before
        assert (outcome.effects, outcome.notices, outcome.changed) == ((), (), ())


def test_what_a_victim_releases_is_counted_once_and_only_for_its_preemptor(world: World) -> None:
    jobs = fill(world)
    serve = world.submit(high())
    until_clearing(world, serve)
    stopping = [job for job in jobs if world.job(job).state is JobState.STOPPING]
    assert len(stopping) == 2
    # The victims are on their way out: a second request neither counts their GPUs nor stops them again.
    second = world.submit(high())
    third = world.submit(low())
    until_clearing(world, second)
    assert set(world.job(second).victims).isdisjoint(stopping)
    assert world.job(third).state is JobState.PENDING
    world.run()
    assert [world.job(job).preemptions for job in jobs] == [1, 1, 1, 1]


def test_a_preemptor_keeps_its_target_until_its_victims_are_gone(world: World) -> None:
    jobs = fill(world)
    serve = world.submit(high())
    until_clearing(world, serve)
    place, attempt = world.job(serve).allocation, world.job(serve).attempt
    # A better place comes free meanwhile: whoever was told to stop was not told in vain.
    for job in jobs:
        if world.job(job).state is JobState.RUNNING:
            world.exit(job)
    world.run()
    assert world.job(serve).state is JobState.RUNNING
    assert (world.job(serve).allocation, world.job(serve).attempt) == (place, attempt)


def test_a_victim_that_comes_back_does_not_stop_the_one_it_made_room_for(world: World) -> None:
    jobs = fill(world)
    serve = world.submit(high(8))
    world.run()
    for _ in range(20):
        world.advance(60.0)
    assert world.job(serve).state is JobState.RUNNING
    assert [world.job(job).preemptions for job in jobs] == [1, 1, 1, 1]
    assert {world.job(job).state for job in jobs} == {JobState.PENDING}


def test_a_container_removed_by_hand_gives_its_gpus_back(world: World) -> None:
    jobs = fill(world)
    world.now += 60.0
    handle = world.job(jobs[0]).handle
    assert handle is not None
    del world.containers[handle]
    world.sweep()
    waiting = world.submit(low())
    world.run()
    assert world.job(jobs[0]).state is JobState.LOST
    assert world.job(waiting).state is JobState.RUNNING


def test_memory_is_no_reason_to_stop_anyone(world: World) -> None:
    jobs = fill(world)
    for job in jobs[:2]:
        world.exit(job)
    world.run()
    large = world.submit(spec("large", priority=1000, gpus=4, memory_bytes=1 << 60))
    world.run()
    assert world.job(large).state is JobState.RUNNING
    assert not world.job(large).victims
    assert all(not container.told for container in world.containers.values())
    assert [world.job(job).preemptions for job in jobs[2:]] == [0, 0]
