"""A high-priority job arrives on a full host: the order of a preemption, step by step."""

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.states import JobState, MarkKind, Stage
from topod.model.container import ContainerStatus, Signal
from topod.model.job import CheckpointHook, JobId, JobSpec, OnPreempt
from topod.model.request import Affinity, Policy


@pytest.fixture
def world() -> World:
    return World(load_library_host("dgx1").topology)


def low(**changes: object) -> JobSpec:
    return spec("batch", priority=100, **changes)


def high(gpus: int = 4, **changes: object) -> JobSpec:
    return spec("serve", **{"gpus": gpus, "priority": 1000, "affinity": Affinity.NVLINK, **changes})


def fill(world: World, sizes: tuple[int, ...] = (2, 2, 2, 2)) -> list[JobId]:
    jobs = [world.submit(low(gpus=size)) for size in sizes]
    world.run()
    assert all(world.job(job).state is JobState.RUNNING for job in jobs)
    return jobs


def drain_until(world: World, kind: type) -> fx.Effect:
    """Act until the next effect of some lane is of `kind`, and return it without carrying it out."""
    for _ in range(1000):
        for lane in world.lanes.values():
            if lane and isinstance(lane[0], kind):
                return lane[0]
        assert world.act(), f"no {kind.__name__} came"
    raise AssertionError


def test_a_job_that_fits_runs_without_stopping_anyone(world: World) -> None:
    fill(world, (2, 2))
    job = world.submit(high())
    world.run()
    assert world.job(job).state is JobState.RUNNING
    assert all(not container.told for container in world.containers.values())


def test_the_fewest_victims_stop_and_run_again_when_the_preemptor_is_done(world: World) -> None:
    jobs = fill(world)
    serve = world.submit(high())
    world.run()
    assert world.job(serve).state is JobState.RUNNING
    victims = [job for job in jobs if world.job(job).preemptions]
    assert len(victims) == 2
    assert {world.job(job).state for job in victims} == {JobState.PENDING}
    assert all(world.job(job).submitted_at == 1000.0 for job in victims)
    world.exit(serve)
    world.run()
    assert world.job(serve).state is JobState.SUCCEEDED
    assert {world.job(job).state for job in jobs} == {JobState.RUNNING}
    assert [world.job(job).starts for job in victims] == [2, 2]


def test_nobody_is_stopped_before_the_container_of_the_preemptor_exists(world: World) -> None:
    fill(world)
    serve = world.submit(high())
    create = drain_until(world, fx.Create)
    assert isinstance(create, fx.Create)
    assert create.job == serve
    assert world.job(serve).stage is Stage.CREATING
    running = [job for job in world.state.jobs.values() if job.state is JobState.RUNNING]
    assert len(running) == 4


def test_nobody_is_stopped_while_the_image_is_being_pulled(world: World) -> None:
    fill(world)
    serve = world.submit(high(image="registry/serve:1"))
    assert world.job(serve).reason == "waits for image registry/serve:1"
    assert world.job(serve).allocation is None
    world.run()
    assert world.job(serve).state is JobState.RUNNING


def test_a_victim_that_ends_while_the_container_is_made_is_not_missed(world: World) -> None:
    jobs = fill(world)
    serve = world.submit(high())
    drain_until(world, fx.Create)
    named = world.job(serve).victims
    world.exit(named[0])
    world.run()
    assert world.job(serve).state is JobState.RUNNING
    stopped = [job for job in jobs if world.job(job).preemptions]
    assert len(stopped) == 1, "one pair came free by itself, so one victim was enough"


def test_reserved_gpus_are_not_given_to_a_job_of_lower_priority(world: World) -> None:
    fill(world, (4, 4))
    serve = world.submit(high())
    drain_until(world, fx.Deliver)
    late = world.submit(low(gpus=1))
    world.run()
    assert world.job(serve).state is JobState.RUNNING
    assert world.job(late).state is JobState.PENDING


def test_the_grace_time_runs_before_sigkill(world: World) -> None:
    [job, *_] = fill(world, (8,))
    assert world.job(job).handle is not None
    container = world.containers[str(world.job(job).handle)]
    container.ignores_term = True
    serve = world.submit(high())
    world.run()
    assert container.told == [Signal.TERM]
    world.advance(29)
    assert container.told == [Signal.TERM]
    world.advance(2)
    assert container.told == [Signal.TERM, Signal.KILL]
    assert world.job(serve).state is JobState.RUNNING


def test_a_victim_that_does_not_die_is_quarantined_and_the_plan_made_anew(world: World) -> None:
    jobs = fill(world, (4, 4))
    serve = world.submit(high())
    drain_until(world, fx.Deliver)
    victim = world.job(serve).victims[0]
    handle = str(world.job(victim).handle)
    stubborn = world.containers.pop(handle)  # signals reach nobody any more
    world.run()
    world.advance(31)
    world.advance(31)
    marks = [mark for reasons in world.state.marks.values() for mark in reasons]
    assert {mark.kind for mark in marks} == {MarkKind.QUARANTINED}
    assert len(marks) == 4
    [other] = [job for job in jobs if job != victim]
    assert world.job(other).preemptions == 1
    assert world.job(serve).state is JobState.RUNNING
    assert not set(world.job(serve).allocation.gpus) & set(stubborn.allocation.gpus)  # type: ignore[union-attr]
    world.apply(ev.Exited(job=victim, attempt=1, exit_code=137))
    assert world.state.marks == {}


def test_a_cancelled_preemptor_gives_way_to_the_victims_that_already_stopped(world: World) -> None:
    jobs = fill(world, (4, 4))
    serve = world.submit(high(gpus=8))
    drain_until(world, fx.Deliver)
    while not any(world.job(job).state is JobState.PREEMPTED for job in jobs):
        assert world.act()
    world.apply(ev.CancelRequested(job=serve))
    world.run()
    assert world.job(serve).state is JobState.CANCELLED
    assert {world.job(job).state for job in jobs} == {JobState.RUNNING}


def test_a_victim_whose_hook_still_runs_is_spared_when_the_preemptor_gives_up(world: World) -> None:
    hook = CheckpointHook(command=("save",))
    job = world.submit(low(gpus=8, checkpoint=hook))
    world.run()
    serve = world.submit(high())
    drain_until(world, fx.RunHook)
    world.apply(ev.CancelRequested(job=serve))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    assert world.job(job).starts == 1


def test_a_checkpoint_hook_runs_before_sigterm(world: World) -> None:
    job = world.submit(low(gpus=8, checkpoint=CheckpointHook(command=("save",))))
    world.run()
    world.submit(high())
    drain_until(world, fx.RunHook)
    assert world.containers[str(world.job(job).handle)].told == []
    world.run()
    assert world.job(job).preemptions == 1
    assert world.job(job).checkpoint_at == world.now
    assert "hook.done" in [notice.name for notice in world.notices]


def test_a_victim_may_ask_to_be_cancelled_instead_of_requeued(world: World) -> None:
    job = world.submit(low(gpus=8, on_preempt=OnPreempt.CANCEL))
    world.run()
    serve = world.submit(high())
    world.run()
    assert world.job(job).state is JobState.CANCELLED
    assert f"preempted by job {serve}" in world.job(job).reason


def test_equal_priority_never_preempts(world: World) -> None:
    fill(world, (8,))
    job = world.submit(low(gpus=1))
    world.run()
    assert world.job(job).state is JobState.PENDING
    assert "priority" in world.job(job).reason


def test_best_effort_runs_without_the_affinity_rather_than_stop_one_more(world: World) -> None:
    fill(world, (1, 1, 1, 1))
    taken = {
        index
        for job in world.state.jobs.values()
        for index in (job.allocation.gpu_indices if job.allocation else ())
    }
    assert len(taken) == 4
    job = world.submit(high(gpus=4, policy=Policy.BEST_EFFORT))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    assert all(not container.told for container in world.containers.values())


def test_a_protected_job_becomes_a_victim_when_its_minimum_run_time_is_over(world: World) -> None:
    job = world.submit(low(gpus=8, min_runtime_seconds=60.0))
    world.run()
    serve = world.submit(high())
    world.run()
    assert world.job(serve).state is JobState.PENDING
    assert "protected" in world.job(serve).reason
    world.advance(61)
    assert world.job(serve).state is JobState.RUNNING
    assert world.job(job).preemptions == 1


def test_gpus_that_stay_busy_are_quarantined_and_the_job_goes_elsewhere(world: World) -> None:
    job = world.submit(high(gpus=2))
    check = drain_until(world, fx.CheckDevices)
    assert isinstance(check, fx.CheckDevices)
    world.lanes[job].popleft()
    busy = ((check.gpus[0], "pid 4711 (python) holds 22.1 GiB"),)
    world.apply(ev.DevicesBusy(job=job, attempt=check.attempt, busy=busy))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    assert check.gpus[0] not in world.job(job).allocation.gpus  # type: ignore[union-attr]
    assert world.state.marks[check.gpus[0]][0].reason == "pid 4711 (python) holds 22.1 GiB"


def test_a_driver_that_does_not_answer_puts_no_gpu_in_quarantine(world: World) -> None:
    job = world.submit(high(gpus=2))
    check = drain_until(world, fx.CheckDevices)
    assert isinstance(check, fx.CheckDevices)
    world.lanes[job].popleft()
    world.apply(ev.DevicesBusy(job=job, attempt=check.attempt, busy=(), unknown="NVML hangs"))
    world.run()
    assert world.job(job).state is JobState.PENDING
    assert world.job(job).reason == "its GPUs cannot be checked: NVML hangs"
    assert world.state.marks == {}
    world.advance(6)
    assert world.job(job).state is JobState.RUNNING


def test_a_victim_whose_exit_nobody_reported_is_found_by_the_sweep(world: World) -> None:
    fill(world, (8,))
    serve = world.submit(high())
    drain_until(world, fx.Deliver)
    while not world.exits:
        assert world.act()
    world.exits.clear()
    world.sweep()
    world.run()
    assert world.job(serve).state is JobState.RUNNING


def test_grace_runs_again_when_nobody_knows_whether_sigterm_arrived(world: World) -> None:
    [job] = fill(world, (8,))
    container = world.containers[str(world.job(job).handle)]
    container.ignores_term = True
    world.submit(high())
    drain_until(world, fx.Deliver)
    world.now += 1000
    world.lanes.clear()
    world.apply(ev.Recovered(containers=world.look()))
    world.run()
    world.advance(29)
    assert container.told == [Signal.TERM]
    world.advance(2)
    assert container.told == [Signal.TERM, Signal.KILL]


@pytest.mark.parametrize("started_late", [False, True])
def test_gpus_of_a_job_stopped_at_its_start_are_free_only_when_that_start_cannot_come_any_more(
    world: World, started_late: bool
) -> None:
    """topod died after the engine was told to start a container that is not to run any more."""
    batch = world.submit(low(gpus=8))
    drain_until(world, fx.Launch)
    serve = world.submit(high())
    while world.job(batch).state is not JobState.STOPPING:
        assert world.act()
    world.lanes.clear()
    world.apply(ev.Recovered(containers=world.look()))
    assert world.job(batch).allocation is not None
    container = world.containers[str(world.job(batch).handle)]
    if started_late:
        container.status = ContainerStatus.RUNNING
    world.run()
    assert world.job(serve).state is JobState.RUNNING
    assert (world.job(batch).state, world.job(batch).preemptions) == (JobState.PENDING, 1)
    assert container.told == ([Signal.TERM] if started_late else [])


def test_the_end_of_a_job_stopped_at_its_start_is_found_after_a_restart_though_nobody_tells_it(
    world: World,
) -> None:
    batch = world.submit(low(gpus=8))
    drain_until(world, fx.Launch)
    serve = world.submit(high())
    while world.job(batch).state is not JobState.STOPPING:
        assert world.act()
    container = world.containers[str(world.job(batch).handle)]
    world.lanes.clear()
    container.status = ContainerStatus.RUNNING  # the engine was slow, and topod was away by then
    world.apply(ev.Recovered(containers=world.look()))
    drain_until(world, fx.Deliver)
    while not world.exits:
        assert world.act()
    world.exits.clear()
    world.now += 60
    world.sweep()
    world.run()
    assert world.job(serve).state is JobState.RUNNING
    assert (world.job(batch).starts, world.job(batch).preemptions) == (1, 1)


def test_a_victim_that_is_placed_again_holds_what_it_got_whatever_its_preemptor_still_waits_for() -> None:
    world = World(load_library_host("a100-pcie-x4").topology)
    running = world.submit(low(gpus=2, on_preempt=OnPreempt.CANCEL))
    world.run()
    world.containers[str(world.job(running).handle)].ignores_term = True
    starting = world.submit(low(gpus=2))
    preemptor = world.submit(high(gpus=4, affinity=Affinity.ANY))
    world.submit(spec("other", priority=90, gpus=2))
    while world.job(preemptor).stage is not Stage.CLEARING:
        world.act()
    assert world.job(starting).state is JobState.PENDING
    world.apply(ev.PriorityChanged(job=preemptor, priority=50))
    world.advance(1)
    holding = [job.allocation for job in world.state.jobs.values() if job.state is JobState.STARTING]
    taken = [uuid for held in holding if held is not None for uuid in held.gpus]
    assert world.job(starting).state is JobState.STARTING
    assert len(taken) == len(set(taken)) == 2
