"""A start is rejected that may have been ordered before: nothing is free until it cannot happen any more."""

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.states import JobState, Stage
from topod.model.container import ContainerStatus, Signal
from topod.model.job import JobId

REJECTED = "not allowed by this host's policy"


class Doubted(World):
    """A host whose topod was killed while its first job was being started, and comes back."""

    def __init__(self) -> None:
        super().__init__(load_library_host("dgx1").topology)
        self.first = self.submit(spec(gpus=8))
        while not self._next(fx.Launch):
            assert self.act()
        self.comes_back()
        self.other = self.submit(spec(gpus=8))

    def comes_back(self) -> None:
        self.lanes.clear()
        self.apply(ev.Recovered(containers=self.look()))

    def _next(self, kind: type) -> bool:
        return any(isinstance(effect, kind) for effect in self.lanes.get(self.first, ()))

    def rejects(self) -> None:
        """The start is rejected that was ordered again."""
        launch = self.lanes[self.first].popleft()
        assert isinstance(launch, fx.Launch)
        assert launch.again
        self.apply(ev.StartFailed(job=self.first, attempt=1, error=REJECTED, final=True, in_doubt=True))
        assert self._next(fx.Withdraw)

    def runs_all_the_same(self) -> None:
        self.containers[f"c-{self.first}-1"].status = ContainerStatus.RUNNING


@pytest.fixture
def world() -> Doubted:
    return Doubted()


def test_its_gpus_are_free_when_the_container_is_gone_and_not_before(world: Doubted) -> None:
    world.rejects()
    job = world.job(world.first)
    assert (job.state, job.stage) == (JobState.STARTING, Stage.LAUNCHING)
    assert REJECTED in job.reason
    assert world.job(world.other).state is JobState.PENDING
    while world.job(world.first).state is JobState.STARTING:
        assert world.act()
    assert world.job(world.first).state is JobState.FAILED
    assert world.job(world.first).reason == REJECTED
    world.run()
    assert world.job(world.other).state is JobState.RUNNING


def test_a_job_whose_earlier_start_was_carried_out_runs(world: Doubted) -> None:
    world.rejects()
    world.runs_all_the_same()
    world.run()
    assert world.job(world.first).state is JobState.RUNNING
    world.exit(world.first)
    world.run()
    assert world.job(world.first).state is JobState.SUCCEEDED


@pytest.mark.parametrize("removed", [False, True])
def test_a_topod_killed_meanwhile_goes_on_withdrawing_and_starts_nothing(
    world: Doubted, removed: bool
) -> None:
    world.rejects()
    if removed:
        world.containers.clear()
    world.comes_back()
    assert not world._next(fx.Launch)
    world.run()
    assert world.job(world.first).state is JobState.FAILED
    assert world.job(world.first).reason == REJECTED
    assert world.job(world.first).starts == 0


@pytest.mark.parametrize(
    ("code", "state"), [(137, JobState.FAILED), (None, JobState.FAILED), (0, JobState.SUCCEEDED)]
)
def test_what_the_removal_ended_failed_as_it_was_rejected_and_what_ended_well_did_not(
    world: Doubted, code: int | None, state: JobState
) -> None:
    world.rejects()
    world.apply(ev.Exited(job=world.first, attempt=1, exit_code=code))
    assert world.job(world.first).state is state
    assert (world.job(world.first).reason == REJECTED) == (state is JobState.FAILED)


@pytest.mark.parametrize("told_before", [False, True])
@pytest.mark.parametrize("runs", [False, True])
def test_a_cancel_meanwhile_ends_it_and_a_signal_sent_too_early_is_sent_again(
    world: Doubted, told_before: bool, runs: bool
) -> None:
    if told_before:
        # The cancel is decided before the answer to the start is heard: its signal waits behind that start.
        launch = world.lanes[world.first].popleft()
        world.apply(ev.CancelRequested(job=world.first))
        world.lanes[world.first].appendleft(launch)
        world.rejects()
    else:
        world.rejects()
        world.apply(ev.CancelRequested(job=world.first))
    container = world.containers[f"c-{world.first}-1"]
    if told_before:
        world._carry_out(world.lanes[world.first].popleft())
    if runs:
        world.runs_all_the_same()
    assert world.job(world.first).state is JobState.STOPPING
    world.run()
    assert world.job(world.first).state is JobState.CANCELLED
    assert container.told == [Signal.TERM] * runs
    assert world.job(JobId(world.other)).state is JobState.RUNNING
