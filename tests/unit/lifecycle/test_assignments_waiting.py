"""Jobs of a fleet never wait for room on a host: what cannot go on there is given back."""

import pytest

from tests.fakes.assignments import assign, running, taken, train
from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.states import JobState, Mark, MarkKind
from topod.model.job import (
    Dependency,
    OnPreempt,
    RestartPolicy,
)


@pytest.fixture
def world() -> World:
    return World(load_library_host("hgx-h100").topology)


def test_an_image_is_pulled_only_where_there_is_room(world: World) -> None:
    running(world, gpus=8)
    job = assign(world, train(8, image="img:1"))
    assert not any(isinstance(one, fx.PullImage) for lane in world.lanes.values() for one in lane)
    assert world.job(job).state is JobState.RETURNED


def test_after_the_pull_it_runs_or_is_given_back(world: World) -> None:
    job = assign(world, train(8, image="img:1"))
    assert (world.job(job).state, world.job(job).reason) == (JobState.PENDING, "waits for image img:1")
    assert taken(world, job)
    pull = world.lanes.pop(job)
    local = running(world, gpus=8)
    world.lanes[job] = pull
    world.run()
    assert world.job(job).state is JobState.RETURNED
    assert f"job {local} (local)" in world.job(job).reason
    assert world.job(local).state is JobState.RUNNING


def test_an_image_that_cannot_be_had_is_given_back_after_a_few_tries(world: World) -> None:
    job = assign(world, train(8, image="img:1"))
    world.lanes.clear()
    for tries in range(3):
        assert world.job(job).state is JobState.PENDING, tries
        world.apply(ev.ImageFailed(job=job, error="registry is away", final=False))
    assert (world.job(job).state, world.job(job).reason) == (JobState.RETURNED, "registry is away")


def test_a_container_that_cannot_be_made_is_given_back_after_a_few_tries(world: World) -> None:
    job = assign(world)
    for _ in range(3):
        assert world.job(job).state is JobState.STARTING
        world.lanes.clear()
        error = ev.CreateFailed(job=job, attempt=world.job(job).attempt, error="engine is away", final=False)
        world.apply(error)
        world.now += 100.0
        world.apply(ev.Tick())
    assert (world.job(job).state, world.job(job).reason) == (JobState.RETURNED, "engine is away")


def test_a_host_that_changed_while_the_container_was_made_gives_it_back(world: World) -> None:
    job = assign(world)
    uuid = world.tables.topology.gpus[0].uuid
    world.apply(ev.GpuMarked(uuid=uuid, mark=Mark(kind=MarkKind.UNHEALTHY, reason="Xid 79", since=0.0)))
    world.run()
    assert world.job(job).state is JobState.RETURNED
    assert not world.containers


def test_a_preempted_job_of_the_fleet_is_given_back_at_once(world: World) -> None:
    job = assign(world)
    world.run()
    rival = world.submit(spec("rival", gpus=8, priority=1000))
    world.run()
    assert world.job(job).state is JobState.RETURNED
    assert world.job(job).preemptions == 1
    assert world.job(rival).state is JobState.RUNNING


def test_a_job_that_is_to_be_cancelled_when_preempted_is(world: World) -> None:
    job = assign(world, train(8, on_preempt=OnPreempt.CANCEL))
    world.run()
    world.submit(spec("rival", gpus=8, priority=1000))
    world.run()
    assert world.job(job).state is JobState.CANCELLED


def test_an_ill_gpu_gives_it_back(world: World) -> None:
    job = assign(world)
    world.run()
    mark = Mark(kind=MarkKind.UNHEALTHY, reason="Xid 79", since=0.0)
    world.apply(ev.GpuMarked(uuid=world.tables.topology.gpus[0].uuid, mark=mark, requeue=True))
    world.run()
    assert world.job(job).state is JobState.RETURNED


def test_one_that_fails_starts_again_here_while_there_is_room(world: World) -> None:
    job = assign(world, train(8, restart=RestartPolicy.ON_FAILURE))
    world.run()
    world.exit(job, 1)
    world.run()
    assert world.job(job).state is JobState.PENDING
    world.advance(10.0)
    assert (world.job(job).state, world.job(job).starts) == (JobState.RUNNING, 2)


def test_one_that_fails_stops_nobody_to_start_again(world: World) -> None:
    victim = running(world, gpus=8)
    job = assign(world, train(8, restart=RestartPolicy.ON_FAILURE), victims=(victim,))
    world.run()
    world.exit(job, 1)
    world.advance(10.0)
    assert world.job(victim).state is JobState.RUNNING
    assert world.job(job).state is JobState.RETURNED
    assert world.job(victim).preemptions == 1


def test_a_local_job_that_waits_does_not_see_it_in_the_queue(world: World) -> None:
    running(world, gpus=8, priority=500)
    local = world.submit(spec("local", gpus=8, priority=500))
    job = assign(world)
    assert world.job(job).state is JobState.RETURNED
    assert [one.id for one in world.state.jobs.values() if one.state is JobState.PENDING] == [local]


def test_one_who_waits_for_its_end_is_told(world: World) -> None:
    job = assign(world)
    after = world.submit(spec("next", after=(Dependency(job=job),)))
    world.run()
    world.exit(job)
    world.run()
    assert world.job(after).state is JobState.RUNNING
