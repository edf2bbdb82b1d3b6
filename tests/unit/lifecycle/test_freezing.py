"""A victim that is written to disk instead of stopped: every way this can go."""

from dataclasses import replace

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.states import JobState, Stage, StopPhase
from topod.model.container import ContainerStatus, Signal
from topod.model.job import CheckpointHook, JobId, JobSpec, OnPreempt
from topod.model.rules import Rules

GRACE = 20.0


class Freezing(World):
    """A world whose engine can freeze; `broken` says why it cannot just now."""

    broken = ""
    lost = False
    """Whether checkpoints are gone when they are needed."""

    def _do(self, effect: fx.Effect) -> ev.Event | None:
        if isinstance(effect, fx.Freeze):
            return self.freeze(effect)
        if isinstance(effect, fx.Launch) and effect.checkpoint is not None:
            return self.restore(effect)
        return super()._do(effect)

    def freeze(self, effect: fx.Freeze) -> ev.Event:
        container = self.containers[effect.handle]
        if self.broken:
            return ev.Frozen(job=effect.job, attempt=effect.attempt, ok=False, text=self.broken)
        if container.status is ContainerStatus.RUNNING:
            container.status, container.exit_code = ContainerStatus.EXITED, 137
            self.exits.append(self.death(effect, 137))
        return ev.Frozen(job=effect.job, attempt=effect.attempt, ok=True, life=1.0)

    def restore(self, effect: fx.Launch) -> ev.Event:
        if self.lost:
            return ev.Started(job=effect.job, attempt=effect.attempt, at=1.0)
        container = self.containers[effect.handle]
        self._check_room(container)
        container.status, container.exit_code = ContainerStatus.RUNNING, None
        return ev.Started(job=effect.job, attempt=effect.attempt, at=self.now)

    @staticmethod
    def death(effect: fx.Freeze, code: int) -> ev.Exited:
        return ev.Exited(job=effect.job, attempt=effect.attempt, exit_code=code, started_at=1.0)

    def named(self, name: str) -> list[str]:
        return [notice.text for notice in self.notices if notice.name == name]

    def until_freezing(self) -> fx.Freeze:
        """Act until the next effect of some lane is to freeze."""
        for _ in range(1000):
            for lane in self.lanes.values():
                if lane and isinstance(lane[0], fx.Freeze):
                    return lane[0]
            assert self.act()
        raise AssertionError


@pytest.fixture
def world() -> Freezing:
    return Freezing(load_library_host("dgx1").topology)


def low(**changes: object) -> JobSpec:
    fields = {"gpus": 8, "priority": 100, "on_preempt": OnPreempt.CHECKPOINT, "grace_seconds": GRACE}
    return spec("batch", **{**fields, **changes})


def high(**changes: object) -> JobSpec:
    return spec("serve", **{"gpus": 8, "priority": 1000, **changes})


def running(world: Freezing, **changes: object) -> JobId:
    job = world.submit(low(**changes))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    return job


def test_it_waits_for_its_own_place_and_goes_on_there(world: Freezing) -> None:
    job = running(world)
    before = world.job(job)
    serve = world.submit(high(gpus=2))
    world.run()
    frozen = world.job(job)
    assert (frozen.state, frozen.frozen, frozen.handle) == (JobState.PENDING, "preemption-1", before.handle)
    assert frozen.reason.startswith("frozen, to be restored on GPUs 0-7")
    assert not world.containers[frozen.handle or ""].told, "nobody asked it to stop"
    world.exit(serve)
    world.run()
    after = world.job(job)
    assert (after.state, after.frozen, after.pinned) == (JobState.RUNNING, None, None)
    assert after.allocation == before.allocation
    assert (after.attempt, after.starts, after.preemptions) == (1, 1, 1)
    assert world.named("job.restored")


def test_others_use_its_place_meanwhile_and_are_preempted_for_it(world: Freezing) -> None:
    job = running(world)
    serve = world.submit(high(gpus=2))
    world.run()
    other = world.submit(spec("other", gpus=6, priority=50))
    world.run()
    assert world.job(other).state is JobState.RUNNING
    world.exit(serve)
    world.run()
    assert world.job(job).state is JobState.RUNNING
    assert world.job(other).preemptions == 1


def test_equals_behind_it_leave_its_place_alone(world: Freezing) -> None:
    job = running(world)
    serve = world.submit(high(gpus=2))
    world.run()
    later = world.submit(spec("later", gpus=6, priority=100, preemptible=False))
    world.run()
    assert world.job(later).state is JobState.PENDING
    world.exit(serve)
    world.run()
    assert world.job(job).state is JobState.RUNNING


def test_it_and_one_that_was_blocked_for_long_do_not_wait_for_each_other() -> None:
    world = Freezing(load_library_host("dgx1").topology, rules=Rules(hold_after_seconds=60.0))
    job = running(world)
    serve = world.submit(high())
    world.run()
    later = world.submit(spec("later", gpus=1, priority=100))
    world.advance(60)
    assert world.job(later).reason.endswith("kept for it: GPU 0")
    world.exit(serve)
    world.run()
    assert world.job(later).state is JobState.RUNNING
    world.exit(later)
    world.run()
    assert world.job(job).state is JobState.RUNNING


@pytest.mark.parametrize("hook", [None, CheckpointHook(command=("save",))])
def test_what_cannot_be_frozen_is_stopped_with_the_reason(
    world: Freezing, hook: CheckpointHook | None
) -> None:
    world.broken = "no CRIU here"
    job = running(world, checkpoint=hook)
    handle = world.job(job).handle
    serve = world.submit(high())
    world.run()
    assert world.job(serve).state is JobState.RUNNING
    assert world.containers.get(handle or "") is None, "stopped and collected"
    assert "no CRIU here" in world.named("job.not-frozen")[0]
    assert bool(world.named("hook.done")) is (hook is not None)
    assert "not frozen: no CRIU here" in world.named("job.preempted")[0]
    world.exit(serve)
    world.run()
    again = world.job(job)
    assert (again.state, again.attempt, again.starts) == (JobState.RUNNING, 2, 2)


def test_a_freeze_that_takes_too_long_ends_with_sigterm(world: Freezing) -> None:
    job = running(world)
    serve = world.submit(high())
    freeze = world.until_freezing()
    assert freeze.timeout_seconds == GRACE
    world.lanes[job].clear()  # no answer comes
    world.advance(GRACE + 10)
    assert world.job(serve).state is JobState.RUNNING
    assert world.named("freeze.expired")
    assert world.job(job).preemptions == 1


@pytest.mark.parametrize(
    ("code", "state"), [(0, JobState.SUCCEEDED), (3, JobState.FAILED), (137, JobState.PENDING)]
)
def test_an_end_while_it_is_frozen_counts_unless_the_engine_may_have_made_it(
    world: Freezing, code: int, state: JobState
) -> None:
    job = running(world)
    world.submit(high())
    freeze = world.until_freezing()
    world.broken = "its container does not run any more"
    container = world.containers[freeze.handle]
    container.status, container.exit_code = ContainerStatus.EXITED, code
    world.apply(world.death(freeze, code))
    assert world.job(job).state is JobState.STOPPING, "the answer to the freeze says what it means"
    world.run()
    assert world.job(job).state is state


def test_the_late_end_of_the_frozen_life_does_not_end_the_restored_one(world: Freezing) -> None:
    job = running(world)
    serve = world.submit(high())
    freeze = world.until_freezing()
    world.run()
    world.exit(serve)
    while world.job(job).stage is not Stage.LAUNCHING:
        assert world.act()
    world.apply(world.death(freeze, 137))
    assert world.job(job).stage is Stage.LAUNCHING
    world.run()
    world.apply(world.death(freeze, 137))
    assert world.job(job).state is JobState.RUNNING
    world.apply(ev.Exited(job=job, attempt=1, exit_code=0, started_at=5.0))
    world.run()
    assert world.job(job).state is JobState.SUCCEEDED


def test_a_checkpoint_that_is_gone_means_a_new_start(world: Freezing) -> None:
    job = running(world)
    serve = world.submit(high())
    world.run()
    world.lost = True
    world.exit(serve)
    world.run()
    again = world.job(job)
    assert (again.state, again.attempt, again.starts, again.frozen) == (JobState.RUNNING, 2, 2, None)
    assert "its checkpoint is gone" in world.named("job.not-restored")[0]


def test_a_cancel_ends_a_frozen_job_and_one_that_is_being_frozen(world: Freezing) -> None:
    job = running(world)
    world.submit(high())
    world.until_freezing()
    world.apply(ev.CancelRequested(job=job))
    world.run()
    assert world.job(job).state is JobState.CANCELLED
    second = Freezing(load_library_host("dgx1").topology)
    job = running(second)
    second.submit(high())
    second.run()
    second.apply(ev.CancelRequested(job=job))
    second.run()
    assert second.job(job).state is JobState.CANCELLED
    assert len(second.containers) == 1, "the frozen container goes with the job"


def test_the_preemptor_gives_up_while_its_victim_is_frozen(world: Freezing) -> None:
    job = running(world)
    serve = world.submit(high())
    world.until_freezing()
    world.apply(ev.CancelRequested(job=serve))
    world.run()
    assert (world.job(job).state, world.job(job).starts) == (JobState.RUNNING, 1)


def test_a_time_limit_that_ends_meanwhile_and_hooks_do_not_hide_the_signal(world: Freezing) -> None:
    job = running(world)
    world.broken = "no"
    world.submit(high())
    world.until_freezing()
    world.act()
    world.run()
    told = [note for note in world.notices if note.name == "job.signalled" and note.job == job]
    assert [dict(note.data)["signal"] for note in told] == [Signal.TERM.value]


def test_topod_comes_back_at_every_stage(world: Freezing) -> None:
    """A restart before each act of a whole round: frozen once, restored once, never started anew."""
    job = running(world)
    serve = world.submit(high())
    for _ in range(100):
        restart(world)
        if not world.act():
            break
    assert world.job(serve).state is JobState.RUNNING
    assert world.job(job).frozen
    world.exit(serve)
    for _ in range(100):
        restart(world)
        if not world.act():
            break
    after = world.job(job)
    assert (after.state, after.attempt, after.starts) == (JobState.RUNNING, 1, 1)


def restart(world: Freezing) -> None:
    """End topod and start it: what was to be done is forgotten, and what runs is looked at."""
    for lane in world.lanes.values():
        lane.clear()
    seen = tuple(
        replace(one, started_at=1.0 if one.status is ContainerStatus.EXITED else world.now)
        for one in world.look()
    )
    world.apply(ev.Recovered(containers=seen))


def test_a_sweep_keeps_the_frozen_container(world: Freezing) -> None:
    job = running(world)
    world.submit(high())
    world.run()
    world.now += 60
    world.apply(ev.Swept(containers=world.look(), at=world.now))
    world.run()
    assert world.job(job).handle in world.containers
    assert not world.named("container.stray")


def test_a_frozen_container_that_somebody_removed_means_a_new_start(world: Freezing) -> None:
    job = running(world)
    serve = world.submit(high())
    world.run()
    world.exit(serve)
    while world.job(job).stage is not Stage.LAUNCHING and world.job(job).state is not JobState.STARTING:
        assert world.act()
    del world.containers[world.job(job).handle or ""]
    restart(world)
    world.run()
    again = world.job(job)
    assert (again.state, again.attempt, again.stop) == (JobState.RUNNING, 2, None)


def test_a_restore_that_may_have_been_ordered_before_is_withdrawn_with_its_checkpoint(
    world: Freezing,
) -> None:
    job = running(world)
    serve = world.submit(high())
    world.run()
    world.exit(serve)
    while world.job(job).stage is not Stage.LAUNCHING:
        assert world.act()
    restart(world)
    assert world.lanes[job].popleft() == fx.Launch(
        job=job, attempt=1, handle=f"c-{job}-1", checkpoint=world.job(job).frozen, again=True
    )
    world.apply(ev.StartFailed(job=job, attempt=1, error="away", final=False, in_doubt=True))
    restart(world)
    assert world.job(job).state is JobState.STARTING
    world.run()
    again = world.job(job)
    assert (again.state, again.attempt, again.starts, again.frozen) == (JobState.RUNNING, 2, 2, None)
    assert not again.withdrawn


def test_the_phase_is_told_apart_from_a_hook(world: Freezing) -> None:
    job = running(world, checkpoint=CheckpointHook(command=("save",)))
    world.submit(high())
    world.until_freezing()
    stop = world.job(job).stop
    assert stop is not None
    assert stop.phase is StopPhase.FREEZE
