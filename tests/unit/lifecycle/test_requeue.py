"""A user has running jobs stopped and queued again: saved first, not counted, never twice at once."""

from dataclasses import replace

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.asking import why_not_requeued
from topod.lifecycle.states import JobState, Stage, StopCause
from topod.model.assignment import FleetTag, Place
from topod.model.container import Signal
from topod.model.job import CheckpointHook, JobId, OnPreempt


@pytest.fixture
def world() -> World:
    return World(load_library_host("dgx1").topology)


def running(world: World, **changes: object) -> JobId:
    job = world.submit(spec("train", **{"gpus": 8, **changes}))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    return job


def requeue(world: World, job: JobId) -> None:
    world.apply(ev.RequeueRequested(job=job, by="alice"))


def test_it_is_stopped_keeps_its_turn_and_runs_again_uncounted(world: World) -> None:
    job = running(world, priority=500)
    submitted = world.job(job).submitted_at
    world.now += 5.0
    requeue(world, job)
    stop = world.job(job).stop
    assert stop is not None
    assert (stop.cause, stop.reason) == (StopCause.REQUEUE, "requeued by alice")
    world.run()
    again = world.job(job)
    assert (again.state, again.submitted_at, again.preemptions) == (JobState.RUNNING, submitted, 0)
    assert (again.starts, again.attempt, again.failures) == (2, 2, 0)
    assert "job 1 (train) is back in the queue: requeued by alice" in [n.text for n in world.notices]


def test_its_place_is_for_whoever_is_next_in_the_queue(world: World) -> None:
    job = running(world)
    after = world.submit(spec("next", gpus=8))
    requeue(world, job)
    world.run()
    assert world.states() == {job: "pending", after: "running"}
    world.exit(after)
    world.run()
    assert world.job(job).state is JobState.RUNNING


def test_its_hook_runs_before_it_is_told(world: World) -> None:
    job = running(world, checkpoint=CheckpointHook(command=("save",), timeout_seconds=5.0))
    requeue(world, job)
    assert [type(effect) for effect in world.lanes[job]] == [fx.RunHook]
    world.run()
    assert world.job(job).checkpoint_at == world.now
    assert world.job(job).starts == 2


def test_it_is_not_frozen_but_sent_its_signal(world: World) -> None:
    hook = CheckpointHook(signal=Signal.USR1, timeout_seconds=5.0)
    job = running(world, on_preempt=OnPreempt.CHECKPOINT, checkpoint=hook)
    requeue(world, job)
    (deliver,) = world.lanes[job]
    assert isinstance(deliver, fx.Deliver)
    assert deliver.signal is Signal.USR1


@pytest.mark.parametrize(("code", "state"), [(0, JobState.SUCCEEDED), (1, JobState.PENDING)])
def test_only_who_is_done_before_it_was_told_does_not_run_again(
    world: World, code: int, state: JobState
) -> None:
    job = running(world, checkpoint=CheckpointHook(command=("save",), timeout_seconds=5.0))
    world.apply(ev.HostDrained(reason="so that it waits"))
    requeue(world, job)
    world.exit(job, code)
    world.apply(world.exits.popleft())
    assert world.job(job).state is state


def test_a_cancel_meanwhile_ends_it(world: World) -> None:
    job = running(world)
    requeue(world, job)
    world.apply(ev.CancelRequested(job=job, by="bob"))
    world.run()
    assert world.job(job).state is JobState.CANCELLED


@pytest.mark.parametrize("steps", range(12))
def test_it_is_finished_after_a_crash_at_any_step(world: World, steps: int) -> None:
    job = running(world, checkpoint=CheckpointHook(command=("save",), timeout_seconds=5.0))
    requeue(world, job)
    for _ in range(steps):
        world.act()
    world.crash()
    world.run()
    again = world.job(job)
    assert (again.state, again.starts, again.preemptions) == (JobState.RUNNING, 2, 0)


def test_a_job_of_the_fleet_goes_back_to_the_coordinator_uncounted(world: World) -> None:
    tag = FleetTag(job=7, fence=3)
    job = world.assign(spec("train", gpus=2), Place(gpus=(0, 1)), tag)
    world.run()
    requeue(world, job)
    world.run()
    back = world.job(job)
    assert (back.state, back.reason, back.preemptions) == (JobState.RETURNED, "requeued by alice", 0)


def test_why_not_in_words(world: World) -> None:
    job = running(world)
    waits = world.submit(spec("waits", gpus=8))
    requeue(world, waits)
    assert why_not_requeued(world.job(waits)) == "job 2 (waits) does not run: it is pending"
    requeue(world, job)
    assert why_not_requeued(world.job(job)) == "job 1 (train) is stopping already: requeued by alice"
    never = replace(world.job(job), state=JobState.RUNNING, spec=spec("once", on_preempt=OnPreempt.CANCEL))
    assert why_not_requeued(never) == "job 1 (once) never runs twice: it was submitted with on-preempt cancel"
    launching = replace(never, spec=spec("new"), state=JobState.STARTING, stage=Stage.LAUNCHING)
    assert why_not_requeued(launching) is None
    world.run()
    world.exit(waits)
    world.run()
    world.exit(job)
    world.run()
    assert why_not_requeued(world.job(job)) == "job 1 (train) has ended: succeeded; submit it again"
