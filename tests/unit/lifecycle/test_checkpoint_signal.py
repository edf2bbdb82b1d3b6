"""A checkpoint hook that is a signal: the job saves and ends by itself, and runs again later."""

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import events as ev
from topod.lifecycle.states import JobState, StopPhase
from topod.model.container import Signal
from topod.model.job import CheckpointHook, JobId, OnPreempt

HOOK = CheckpointHook(signal=Signal.USR1, timeout_seconds=60)


@pytest.fixture
def world() -> World:
    return World(load_library_host("hgx-h100").topology)


def victim(world: World, *, deaf: bool = False, **changes: object) -> JobId:
    """Start a job of low priority on all GPUs; a deaf one goes on after its signals."""
    job = world.submit(spec("train", gpus=8, priority=100, checkpoint=HOOK, **changes))
    world.run()
    (container,) = world.containers.values()
    container.ignores_term = deaf
    return job


def told(world: World, job: JobId) -> list[Signal]:
    return [
        signal for container in world.containers.values() if container.job == job for signal in container.told
    ]


def names(world: World) -> list[str]:
    return [notice.name for notice in world.notices]


def test_the_signal_takes_the_place_of_sigterm_and_the_job_runs_again(world: World) -> None:
    job = victim(world)
    winner = world.submit(spec(gpus=8, priority=1000))
    world.run()
    assert world.job(winner).state is JobState.RUNNING
    assert world.job(job).state is JobState.PENDING
    assert world.job(job).preemptions == 1
    assert world.job(job).checkpoint_at == world.now
    assert [n.data for n in world.notices if n.name == "job.signalled"] == [(("signal", "SIGUSR1"),)]
    world.exit(winner)
    world.run()
    assert world.job(job).state is JobState.RUNNING


def test_a_job_that_ends_well_after_its_signal_was_preempted_and_has_not_succeeded(world: World) -> None:
    job = victim(world, deaf=True)
    world.submit(spec(gpus=8, priority=1000))
    world.run()
    assert told(world, job) == [Signal.USR1]
    stop = world.job(job).stop
    assert stop is not None
    assert (stop.phase, stop.deadline) == (StopPhase.HOOK, world.now + 60)
    world.exit(job, 0)
    world.run()
    assert world.job(job).state is JobState.PENDING
    assert "hook.done" in names(world)


def test_a_job_that_takes_too_long_is_terminated(world: World) -> None:
    job = victim(world, deaf=True, grace_seconds=10)
    world.submit(spec(gpus=8, priority=1000))
    world.run()
    world.advance(59)
    assert told(world, job) == [Signal.USR1]
    world.advance(2)
    assert told(world, job) == [Signal.USR1, Signal.TERM]
    assert "hook.expired" in names(world)
    world.advance(11)
    assert world.job(job).state is JobState.PENDING


def test_a_job_that_dies_of_the_signal_is_told_not_to_handle_it(world: World) -> None:
    job = victim(world, deaf=True)
    world.submit(spec(gpus=8, priority=1000))
    world.run()
    world.exit(job, 138)
    world.run()
    assert world.job(job).checkpoint_at is None
    (failed,) = [notice for notice in world.notices if notice.name == "hook.failed"]
    assert failed.text == f"job {job} (train) does not handle its checkpoint signal: SIGUSR1 killed it"


def test_a_job_that_is_cancelled_gets_no_checkpoint_signal(world: World) -> None:
    job = victim(world)
    world.apply(ev.CancelRequested(job=job))
    world.run()
    assert world.job(job).state is JobState.CANCELLED
    assert [n.data for n in world.notices if n.name == "job.signalled"] == [(("signal", "SIGTERM"),)]


def test_a_victim_of_no_return_that_saved_is_cancelled(world: World) -> None:
    job = victim(world, on_preempt=OnPreempt.CANCEL)
    world.submit(spec(gpus=8, priority=1000))
    world.run()
    assert world.job(job).state is JobState.CANCELLED


def test_a_cancel_while_the_job_saves_ends_it_for_good(world: World) -> None:
    job = victim(world, deaf=True)
    world.submit(spec(gpus=8, priority=1000))
    world.run()
    world.apply(ev.CancelRequested(job=job))
    world.exit(job, 0)
    world.run()
    assert world.job(job).state is JobState.CANCELLED


def test_after_a_crash_the_job_is_asked_again_and_has_its_whole_time(world: World) -> None:
    job = victim(world, deaf=True)
    world.submit(spec(gpus=8, priority=1000))
    world.run()
    world.now += 50
    world.crash()
    world.run()
    assert told(world, job) == [Signal.USR1, Signal.USR1]
    stop = world.job(job).stop
    assert stop is not None
    assert stop.deadline == world.now + 60
