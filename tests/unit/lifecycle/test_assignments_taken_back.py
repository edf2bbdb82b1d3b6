"""Jobs of a fleet that are revoked or cancelled, and those on a host whose lease ends."""

import pytest

from tests.fakes.assignments import FLEET_JOB, assign, running, settle, train
from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.moving import movable_jobs
from topod.lifecycle.states import JobState
from topod.model.container import ContainerStatus, Signal
from topod.model.job import (
    CheckpointHook,
    JobId,
    JobSpec,
    OnHostLost,
    OnPreempt,
    RestartPolicy,
)


@pytest.fixture
def world() -> World:
    return World(load_library_host("hgx-h100").topology)


def test_a_revoked_job_saves_its_work_and_is_returned(world: World) -> None:
    job = assign(world, train(8, checkpoint=CheckpointHook(command=("save",))))
    world.run()
    world.apply(ev.Revoked(job=FLEET_JOB, fence=5, requeue=True))
    world.run()
    assert world.job(job).state is JobState.RETURNED
    assert world.job(job).checkpoint_at is not None


def test_a_cancelled_job_is_cancelled(world: World) -> None:
    job = assign(world)
    world.run()
    world.apply(ev.Revoked(job=FLEET_JOB, fence=5, reason="cancelled by alice"))
    world.run()
    assert (world.job(job).state, world.job(job).reason) == (JobState.CANCELLED, "cancelled by alice")


def test_a_revoke_concerns_lower_fences_and_no_higher_ones(world: World) -> None:
    job = assign(world, fence=5)
    world.run()
    world.apply(ev.Revoked(job=FLEET_JOB, fence=4, requeue=True))
    assert world.job(job).state is JobState.RUNNING
    world.apply(ev.Revoked(job=FLEET_JOB, fence=6, requeue=True))
    world.run()
    assert world.job(job).state is JobState.RETURNED


def test_a_revoke_that_comes_first_keeps_the_assignment_from_being_taken(world: World) -> None:
    world.apply(ev.Revoked(job=FLEET_JOB, fence=5, requeue=True))
    told = next(iter(world.state.jobs.values()))
    assert told.state is JobState.RETURNED
    assign(world, fence=5)
    assert list(world.state.jobs.values()) == [told]
    settle(world)
    assert world.job(assign(world, fence=5)).state is JobState.RETURNED


def test_what_is_settled_before_its_end_is_not_forgotten(world: World) -> None:
    job = assign(world)
    settle(world)
    assert job in world.state.jobs
    assert world.state.settled_fence == 0


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.STARTING, JobState.RUNNING])
def test_at_the_end_of_the_lease_a_job_is_stopped_in_any_state(world: World, state: JobState) -> None:
    job = assign(world, train(8, image="img:1" if state is JobState.PENDING else None))
    if state is JobState.RUNNING:
        world.run()
    assert world.job(job).state is state
    world.apply(ev.LeaseEnded())
    world.run()
    assert world.job(job).state is JobState.RETURNED
    assert not world.containers


def test_at_the_end_of_the_lease_one_that_keeps_its_host_goes_on_and_local_jobs_too(world: World) -> None:
    local = running(world, gpus=4)
    job = assign(world, train(4), gpus=(4, 5, 6, 7), on_host_lost=OnHostLost.KEEP)
    world.run()
    world.apply(ev.LeaseEnded())
    world.run()
    assert [world.job(one).state for one in (local, job)] == [JobState.RUNNING] * 2


def stopping(world: World, job_spec: JobSpec | None = None) -> JobId:
    job = assign(world, job_spec)
    world.run()
    world.submit(spec("rival", gpus=8, priority=1000))
    while world.job(job).state is not JobState.STOPPING:
        world.act()
    return job


def told(world: World, job: JobId) -> list[Signal]:
    return [one.signal for one in world.lanes[job] if isinstance(one, fx.Deliver)]


def test_at_the_end_of_the_lease_a_job_saves_its_work(world: World) -> None:
    job = assign(world, train(8, checkpoint=CheckpointHook(command=("save",))))
    world.run()
    world.apply(ev.LeaseEnded())
    world.run()
    assert world.job(job).state is JobState.RETURNED
    assert world.job(job).checkpoint_at is not None


def test_one_that_saves_when_the_lease_ends_is_not_spared(world: World) -> None:
    job = stopping(world, train(8, checkpoint=CheckpointHook(command=("save",))))
    assert told(world, job) == []
    world.apply(ev.LeaseEnded())
    world.apply(ev.CancelRequested(job=JobId(job + 1)))
    world.run()
    assert world.job(job).state is JobState.RETURNED


def on_disk(world: World, job: JobId) -> None:
    """Let the engine write a job to disk, whatever it was told since."""
    world.lanes.pop(job)
    next(box for box in world.containers.values() if box.job == job).status = ContainerStatus.EXITED
    world.apply(ev.Frozen(job=job, attempt=1, ok=True, life=1.0))
    world.run()


def test_at_the_end_of_the_lease_nothing_is_frozen(world: World) -> None:
    job = stopping(world, train(8, on_preempt=OnPreempt.CHECKPOINT))
    world.apply(ev.LeaseEnded())
    assert told(world, job) == [Signal.TERM]
    on_disk(world, job)
    assert world.job(job).state is JobState.RETURNED


def frozen(world: World) -> JobId:
    job = stopping(world, train(8, on_preempt=OnPreempt.CHECKPOINT))
    on_disk(world, job)
    return job


def test_a_frozen_job_stays_for_only_this_host_can_restore_it(world: World) -> None:
    job = frozen(world)
    assert world.job(job).state is JobState.PENDING
    world.apply(ev.HostDrained(reason="fan"))
    assert world.job(job).state is JobState.PENDING


def test_at_the_end_of_the_lease_a_frozen_job_is_given_back(world: World) -> None:
    job = frozen(world)
    world.apply(ev.LeaseEnded())
    world.run()
    assert world.job(job).state is JobState.RETURNED


def test_a_revoked_job_that_was_being_preempted_is_returned_once(world: World) -> None:
    job = stopping(world)
    world.apply(ev.Revoked(job=FLEET_JOB, fence=5, requeue=True))
    world.run()
    assert (world.job(job).state, world.job(job).reason) == (
        JobState.RETURNED,
        "taken back by the coordinator",
    )


def test_a_cancelled_job_whose_hook_runs_does_not_start_again_because_it_failed(world: World) -> None:
    job = world.submit(
        train(8, checkpoint=CheckpointHook(command=("save",)), restart=RestartPolicy.ON_FAILURE)
    )
    world.run()
    world.submit(spec("rival", gpus=8, priority=1000))
    while world.job(job).state is not JobState.STOPPING:
        world.act()
    world.apply(ev.CancelRequested(job=job))
    world.apply(ev.Exited(job=job, attempt=1, exit_code=3))
    assert world.job(job).state is JobState.CANCELLED


@pytest.mark.parametrize("size", [1, 2])
def test_only_a_job_that_runs_on_one_host_alone_may_be_moved_on_it(world: World, size: int) -> None:
    job = assign(world, size=size, go=True)
    world.run()
    assert (job in movable_jobs(world.state)) is (size == 1)


def test_a_job_that_had_waited_for_long_is_guarded_as_the_coordinator_says(world: World) -> None:
    job = assign(world, train(8, priority=100), guard_priority=900, guard_seconds=60.0)
    world.run()
    local = world.submit(spec("local", gpus=8, priority=800))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    world.advance(61.0)
    world.run()
    assert world.job(job).state is JobState.RETURNED
    assert world.job(local).state is JobState.RUNNING
