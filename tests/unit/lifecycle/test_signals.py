"""The time a job has to obey a signal begins when the runtime has taken the signal, not when it was decided."""

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.states import JobState, StopPhase
from topod.lifecycle.stopping import KILL_SECONDS, STUCK_SECONDS
from topod.model.container import Signal
from topod.model.job import JobId


@pytest.fixture
def world() -> World:
    return World(load_library_host("one-gpu").topology)


def stopping(world: World) -> JobId:
    """Return a running job that was just cancelled; its SIGTERM still waits in the lane."""
    job = world.submit(spec(gpus=1, grace_seconds=30.0))
    world.run()
    world.apply(ev.CancelRequested(job=job))
    assert isinstance(world.lanes[job][0], fx.Deliver)
    return job


def phase(world: World, job: JobId) -> StopPhase:
    stop = world.job(job).stop
    assert stop is not None
    return stop.phase


def pass_time(world: World, seconds: float) -> None:
    """Let time pass for the daemon while the runtime does nothing."""
    world.now += seconds
    world.apply(ev.Tick())


def test_an_engine_that_hangs_costs_a_victim_nothing_of_its_grace_time(world: World) -> None:
    job = stopping(world)
    pass_time(world, 100.0)
    assert phase(world, job) is StopPhase.TERM
    world.apply(ev.Delivered(job=job, attempt=1, signal=Signal.TERM))
    pass_time(world, 29.0)
    assert phase(world, job) is StopPhase.TERM
    pass_time(world, 1.5)
    assert phase(world, job) is StopPhase.KILL


def test_a_sigkill_that_nobody_took_makes_no_job_stuck(world: World) -> None:
    job = stopping(world)
    world.apply(ev.Delivered(job=job, attempt=1, signal=Signal.TERM))
    pass_time(world, 31.0)
    pass_time(world, 10 * KILL_SECONDS)
    assert phase(world, job) is StopPhase.KILL
    world.apply(ev.Delivered(job=job, attempt=1, signal=Signal.KILL))
    pass_time(world, KILL_SECONDS + 1)
    assert phase(world, job) is StopPhase.STUCK


def test_a_stuck_job_gets_sigkill_again_and_again(world: World) -> None:
    job = stopping(world)
    container = world.containers.pop(str(world.job(job).handle))  # signals reach nobody
    world.run()
    world.advance(31 + KILL_SECONDS)
    assert phase(world, job) is StopPhase.STUCK
    world.containers["c-1-1"] = container
    world.advance(STUCK_SECONDS + 1)
    assert world.job(job).state is JobState.CANCELLED


def test_after_a_restart_the_signal_is_sent_again_with_the_whole_grace_time(world: World) -> None:
    job = stopping(world)
    world.apply(ev.Delivered(job=job, attempt=1, signal=Signal.TERM))
    world.now += 29.0
    world.lanes.clear()
    world.apply(ev.Recovered(containers=world.look()))
    assert isinstance(world.lanes[job][0], fx.Deliver)
    world.apply(ev.Delivered(job=job, attempt=1, signal=Signal.TERM))
    pass_time(world, 29.0)
    assert phase(world, job) is StopPhase.TERM
