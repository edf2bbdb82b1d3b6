"""Jobs of a fleet on one of its hosts: taken or refused, and at most once."""

import pytest

from tests.fakes.assignments import ALL, assign, running, settle, tag, taken, train
from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import events as ev
from topod.lifecycle.states import JobState, Mark, MarkKind
from topod.model.assignment import FleetTag, Place
from topod.model.job import (
    Dependency,
    JobId,
)
from topod.model.request import Affinity, Policy
from topod.model.rules import Quota, Rules, Scope


@pytest.fixture
def world() -> World:
    return World(load_library_host("hgx-h100").topology)


def test_an_assignment_runs_as_a_job_of_the_host_and_is_kept_until_its_end_is_settled(world: World) -> None:
    job = assign(world)
    world.run()
    assert world.job(job).state is JobState.RUNNING
    assert taken(world, job)
    world.exit(job)
    world.run()
    assert world.state.jobs[job].state is JobState.SUCCEEDED
    settle(world)
    assert job not in world.state.jobs
    assert world.state.settled_fence == 5


@pytest.mark.parametrize("late", ["while it runs", "after its end"])
def test_the_same_assignment_is_carried_out_once(world: World, late: str) -> None:
    job = assign(world)
    world.run()
    if late != "while it runs":
        world.exit(job)
        world.run()
    before = world.state
    assign(world)
    assert world.state == before


def test_what_is_settled_and_forgotten_is_refused_when_it_comes_again(world: World) -> None:
    job = assign(world, fence=5)
    world.run()
    world.exit(job)
    world.run()
    settle(world, fence=5)
    for fence in (5, 4):
        again = assign(world, fence=fence)
        assert world.job(again).state is JobState.RETURNED
        assert world.job(again).reason == f"an old order: {fence} is not above 5, which is settled"
        settle(world, fence)
    assert world.state.settled_fence == 5
    assert not world.state.jobs
    new = assign(world, fence=6)
    world.run()
    assert world.job(new).state is JobState.RUNNING


def test_an_assignment_of_a_lower_fence_than_one_that_is_known_is_ignored(world: World) -> None:
    assign(world, fence=9)
    before = world.state
    assign(world, fence=8)
    assert world.state == before


def test_a_higher_fence_stops_the_assignment_before_it_and_comes_after_that_one_has_gone(
    world: World,
) -> None:
    old = assign(world, fence=5)
    world.run()
    new = assign(world, fence=6)
    assert world.job(new).state is JobState.RETURNED
    assert "the same job as before, still stops" in world.job(new).reason
    world.run()
    assert world.job(old).state is JobState.RETURNED
    third = assign(world, fence=7)
    world.run()
    assert world.job(third).state is JobState.RUNNING


def test_victims_that_the_coordinator_named_are_stopped(world: World) -> None:
    victim = running(world, gpus=8)
    job = assign(world, victims=(victim,))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    assert world.job(victim).state is JobState.PENDING


def test_nobody_is_stopped_whom_the_coordinator_did_not_name(world: World) -> None:
    other = running(world, gpus=8)
    job = assign(world)
    assert world.job(job).state is JobState.RETURNED
    assert not taken(world, job)
    assert f"did not expect that job {other} (local) would have to be stopped" in world.job(job).reason
    assert world.job(job).attempt == 0


def test_a_victim_that_ended_meanwhile_need_not_be_stopped(world: World) -> None:
    victim = running(world, gpus=8)
    world.exit(victim)
    world.run()
    job = assign(world, victims=(victim,))
    world.run()
    assert world.job(job).state is JobState.RUNNING


def test_the_host_may_choose_other_gpus_as_near_to_each_other(world: World) -> None:
    job = assign(world, train(1), gpus=(6,))
    world.run()
    assert world.job(job).state is JobState.RUNNING


def test_gpus_further_apart_than_promised_are_refused() -> None:
    world = World(load_library_host("dgx1").topology)
    asked = train(2, affinity=Affinity.NVLINK, policy=Policy.BEST_EFFORT)
    for gpu in world.tables.topology.gpus:
        if gpu.index not in (0, 5):
            world.apply(
                ev.GpuMarked(uuid=gpu.uuid, mark=Mark(kind=MarkKind.DRAINED, reason="fan", since=0.0))
            )
    job = assign(world, asked, gpus=(0, 1))
    assert world.job(job).state is JobState.RETURNED
    assert "GPUs 0,5 now, which miss affinity nvlink by more than GPUs 0-1" in world.job(job).reason


@pytest.mark.parametrize("gpus", [(0,), (0, 99)])
def test_a_place_that_cannot_be_meant_is_refused(world: World, gpus: tuple[int, ...]) -> None:
    job = assign(world, train(2), gpus=gpus)
    assert world.job(job).state is JobState.RETURNED
    assert "not what it asks for on this host" in world.job(job).reason


def test_a_drained_host_takes_nothing(world: World) -> None:
    world.apply(ev.HostDrained(reason="fan"))
    job = assign(world)
    assert (world.job(job).state, world.job(job).reason) == (JobState.RETURNED, "the host is drained: fan")
    assert not taken(world, job)


def test_a_blind_host_takes_no_job_with_gpus(world: World) -> None:
    world.apply(ev.GpusSeen(problem="NVML hangs"))
    job = assign(world)
    light = world.assign(train(0), Place(), FleetTag(job=71, fence=6))
    world.run()
    assert world.job(job).state is JobState.RETURNED
    assert world.job(light).state is JobState.RUNNING


def test_the_quotas_of_the_host_hold_for_it() -> None:
    rules = Rules(quotas=(Quota(scope=Scope.USER, value="alice", gpus=4),))
    world = World(load_library_host("hgx-h100").topology, rules=rules)
    running(world, gpus=4, user="alice")
    job = assign(world, train(2, user="alice"), gpus=(4, 5))
    assert world.job(job).state is JobState.RETURNED
    assert "the quota of user alice is 4 GPUs" in world.job(job).reason


def test_what_the_shell_cannot_run_is_refused_with_its_reason(world: World) -> None:
    world.apply(ev.Assigned(tag=tag(), spec=train(), place=Place(gpus=ALL), refusal="no such secret"))
    job = world.job(1) if 1 in world.ended else world.state.jobs[JobId(1)]
    assert (job.state, job.reason) == (JobState.RETURNED, "no such secret")


def test_its_place_in_the_fleet_is_in_its_environment(world: World) -> None:
    env = {"TOPOD_HOSTS": "a,b", "MASTER_PORT": "1", "MASTER_ADDR": "a"}
    own = {"TOPOD_HOSTS": "mine", "MASTER_PORT": "2"}
    job = assign(world, train(8, env=own), env=env, rank=1, size=2)
    assert world.job(job).spec.env == {
        "TOPOD_HOSTS": "a,b",
        "MASTER_PORT": "2",
        "MASTER_ADDR": "a",
    }


def test_what_it_waited_for_in_the_fleet_it_does_not_wait_for_here(world: World) -> None:
    victim = running(world, gpus=8)
    asked = train(8, after=(Dependency(job=JobId(3)),), wait_before_preempt_seconds=100.0)
    job = assign(world, asked, victims=(victim,))
    world.run()
    assert world.job(job).state is JobState.RUNNING


def test_preemptions_of_before_protect_it_here() -> None:
    world = World(load_library_host("hgx-h100").topology, rules=Rules(preemption_cap=1))
    job = assign(world, train(8, priority=100), preemptions=6)
    world.run()
    rival = world.submit(spec("rival", gpus=8, priority=500))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    assert world.job(rival).state is JobState.PENDING
