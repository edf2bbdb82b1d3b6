"""Who waits first or longest has a target kept for it."""

from tests.fakes.fleet_world import FleetWorld, job_spec
from topod.fleet.states import FleetJobState
from topod.model.rules import Rules

NO_HOLD = Rules(hold_after_seconds=0.0)


def world_with(rules: Rules) -> FleetWorld:
    world = FleetWorld(["a100-pcie-x4", "rtx3090x2", "rtx3090x2"], rules=rules)
    world.advance(5)
    assert len(world.leader.state.hosts) == 3
    return world


def fill(world: FleetWorld) -> None:
    """Two jobs run on the host that is large enough, and one on each of the others."""
    times = (("*a100*", 20), ("*a100*", 60), ("*3090*", 1000), ("*3090*", 1000))
    jobs = [world.submit(job_spec(gpus=2, seconds=seconds), gpu_model=model) for model, seconds in times]
    world.advance(5)
    assert all(world.job(job).state is FleetJobState.RUNNING for job in jobs)


def test_small_jobs_behind_a_large_one_do_not_take_what_is_kept_for_it() -> None:
    world = world_with(NO_HOLD)
    fill(world)
    large = world.submit(job_spec(gpus=4))
    small = [world.submit(job_spec(gpus=2, seconds=1000)) for _ in range(3)]
    world.advance(40)
    assert {world.job(job).state for job in small} == {FleetJobState.PENDING}
    assert "kept for" in world.job(small[0]).reason
    world.advance(30)
    assert world.job(large).state is FleetJobState.RUNNING


def test_who_can_be_stopped_for_the_large_job_fills_the_gap_before_it() -> None:
    world = world_with(NO_HOLD)
    fill(world)
    large = world.submit(job_spec(gpus=4))
    filler = world.submit(job_spec(gpus=2, priority=100, seconds=1000))
    world.advance(35)
    assert world.job(filler).state is FleetJobState.RUNNING
    world.advance(100)
    assert world.job(large).starts == 1


def test_jobs_that_go_before_it_do_not_put_a_job_off_that_has_waited_for_long() -> None:
    world = world_with(Rules(hold_after_seconds=30.0))
    fill(world)
    large = world.submit(job_spec(gpus=4, priority=100, seconds=20))
    for _ in range(30):
        world.submit(job_spec(gpus=2, priority=500, seconds=25))
        world.advance(10)
    assert world.job(large).state is FleetJobState.SUCCEEDED


def test_without_a_hold_they_do() -> None:
    world = world_with(NO_HOLD)
    fill(world)
    large = world.submit(job_spec(gpus=4, priority=100, seconds=20))
    for _ in range(30):
        world.submit(job_spec(gpus=2, priority=500, seconds=25))
        world.advance(10)
    assert world.job(large).state is FleetJobState.PENDING


def test_a_target_is_written_down_and_outlives_the_coordinator() -> None:
    world = world_with(NO_HOLD)
    fill(world)
    large = world.submit(job_spec(gpus=4))
    target = world.job(large).target
    assert target
    world.lead()
    world.advance(5)
    assert world.job(large).target == target
