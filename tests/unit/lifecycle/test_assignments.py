"""Jobs of a fleet on one of its hosts: taken or refused, at most once, never waiting for room, given back."""

from dataclasses import replace

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.moving import movable_jobs
from topod.lifecycle.states import JobState, Mark, MarkKind, Stage
from topod.model.assignment import FleetTag, Place
from topod.model.container import ContainerStatus, Signal
from topod.model.job import (
    CheckpointHook,
    Dependency,
    JobId,
    JobSpec,
    OnHostLost,
    OnPreempt,
    RestartPolicy,
)
from topod.model.request import Affinity, Policy
from topod.model.rules import Quota, Rules, Scope

FLEET_JOB = 70
ALL = tuple(range(8))


@pytest.fixture
def world() -> World:
    return World(load_library_host("hgx-h100").topology)


def tag(fence: int = 5, **changes: object) -> FleetTag:
    return replace(FleetTag(job=FLEET_JOB, fence=fence), **changes)  # type: ignore[arg-type] # a test builder


def train(gpus: int = 8, priority: int = 500, **changes: object) -> JobSpec:
    return spec("train", gpus=gpus, priority=priority, **changes)


def assign(
    world: World,
    job: JobSpec | None = None,
    *,
    gpus: tuple[int, ...] = ALL,
    victims: tuple[int, ...] = (),
    **changes: object,
) -> JobId:
    place = Place(gpus=gpus, victims=tuple(map(str, victims)))
    return world.assign(job or train(len(gpus)), place, tag(**changes))  # type: ignore[arg-type] # a test builder


def running(world: World, gpus: int = 4, **changes: object) -> JobId:
    job = world.submit(spec("local", gpus=gpus, **({"priority": 100} | changes)))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    return job


def taken(world: World, job: JobId) -> bool:
    assignment = world.job(job).assignment
    assert assignment is not None
    return assignment.taken


def settle(world: World, fence: int = 5) -> None:
    world.apply(ev.Settled(job=FLEET_JOB, fence=fence))


# --- taking and refusing ------------------------------------------------------------------------------------


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


# --- never waiting for room ---------------------------------------------------------------------------------


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


# --- several hosts ------------------------------------------------------------------------------------------


def gang(world: World) -> tuple[JobId, JobId]:
    victim = running(world, gpus=8)
    return assign(world, victims=(victim,), size=2), victim


def test_one_of_several_stops_nobody_until_it_is_told_to_go(world: World) -> None:
    job, victim = gang(world)
    world.advance(3600.0)
    assert (world.job(job).stage, world.job(victim).state) == (Stage.CREATING, JobState.RUNNING)
    assert world.job(job).handle is not None
    world.apply(ev.Go(job=FLEET_JOB, fence=5))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    world.apply(ev.Go(job=FLEET_JOB, fence=5))
    assert world.job(victim).preemptions == 1


def test_an_assignment_that_comes_again_may_say_go(world: World) -> None:
    job, victim = gang(world)
    world.run()
    assign(world, victims=(victim,), size=2, go=True)
    world.run()
    assert world.job(job).state is JobState.RUNNING


def test_a_go_that_comes_before_the_container_is_made_counts_then(world: World) -> None:
    job, _ = gang(world)
    world.apply(ev.Go(job=FLEET_JOB, fence=5))
    world.run()
    assert world.job(job).state is JobState.RUNNING


def test_a_go_for_another_assignment_means_nothing(world: World) -> None:
    job, _ = gang(world)
    world.run()
    world.apply(ev.Go(job=FLEET_JOB, fence=4))
    world.apply(ev.Go(job=FLEET_JOB + 1, fence=5))
    world.run()
    assert world.job(job).stage is Stage.CREATING


@pytest.mark.parametrize("made", [True, False])
def test_one_that_is_revoked_before_it_went_stops_nobody(world: World, made: bool) -> None:
    job, victim = gang(world)
    if made:
        world.run()
    world.apply(ev.Revoked(job=FLEET_JOB, fence=5, requeue=True, reason="another host refused"))
    world.run()
    assert (world.job(job).state, world.job(job).reason) == (JobState.RETURNED, "another host refused")
    assert (world.job(victim).state, world.job(victim).preemptions) == (JobState.RUNNING, 0)
    assert [box.job for box in world.containers.values()] == [victim]


def test_a_crash_while_it_waits_changes_nothing(world: World) -> None:
    job, victim = gang(world)
    world.run()
    world.crash()
    world.run()
    assert world.job(job).stage is Stage.CREATING
    world.apply(ev.Go(job=FLEET_JOB, fence=5))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    assert world.job(victim).state is JobState.PENDING


def test_one_of_several_that_fails_is_not_started_again_alone(world: World) -> None:
    job = assign(world, train(8, restart=RestartPolicy.ON_FAILURE), size=2, go=True)
    world.run()
    world.exit(job, 3)
    world.run()
    assert (world.job(job).state, world.job(job).exit_code) == (JobState.FAILED, 3)


# --- taken back ---------------------------------------------------------------------------------------------


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
