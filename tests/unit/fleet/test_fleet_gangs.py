"""Jobs over several hosts: all or none."""

from tests.fakes.fleet_world import FleetWorld, job_spec
from topod.fleet import events as ev
from topod.fleet.asking import why_not_requeued
from topod.fleet.orders import environment
from topod.fleet.states import FleetJobId, FleetJobState
from topod.model.job import RestartPolicy


def ready(count: int = 2) -> FleetWorld:
    world = FleetWorld(["a100-pcie-x4"] * count)
    world.advance(5)
    return world


def stop_everyones_readiness(world: FleetWorld, name: str) -> None:
    """A host that never gets its container made."""
    world.hosts[name]._go_on = lambda *_: None  # type: ignore[method-assign]


def test_all_members_run_at_once_and_know_of_each_other() -> None:
    world = ready()
    job = world.submit(job_spec(gpus=4, seconds=10), hosts=2)
    assert sorted(world.where(job)) == ["h0", "h1"]
    world.advance(15)
    assert world.job(job).state is FleetJobState.RUNNING
    assert set(world.on(job).values()) == {"running"}
    env = environment(world.job(job), 1)
    hosts = world.where(job)
    assert (env["TOPOD_HOST_RANK"], env["TOPOD_HOSTS"], env["TOPOD_FIRST_HOST"]) == (
        "1",
        ",".join(hosts),
        hosts[0],
    )
    world.advance(30)
    assert world.job(job).state is FleetJobState.SUCCEEDED


def test_too_few_hosts_hold_nothing_for_it_and_it_says_how_many_there_are() -> None:
    world = ready()
    job = world.submit(job_spec(gpus=4), hosts=3)
    assert world.job(job).state is FleetJobState.PENDING
    assert world.job(job).reason == "the fleet has 2 hosts, 3 are asked for"
    other = world.submit(job_spec(gpus=4, seconds=5))
    assert world.job(other).state is FleetJobState.ASSIGNED


def test_nobody_is_stopped_for_it_before_all_are_ready() -> None:
    world = ready()
    victims = [world.submit(job_spec(gpus=4, priority=100, seconds=500)) for _ in range(2)]
    world.advance(5)
    stop_everyones_readiness(world, "h1")
    job = world.submit(job_spec(gpus=4, priority=1000, seconds=500), hosts=2)
    world.advance(60)
    assert not world.job(job).go
    assert [world.job(victim).state for victim in victims] == [FleetJobState.RUNNING] * 2
    del world.hosts["h1"]._go_on
    world.advance(60)
    assert world.job(job).go
    assert world.job(job).state is FleetJobState.RUNNING


def test_one_refusal_takes_all_back() -> None:
    world = ready()
    world.hosts["h1"].moody = 1.0
    job = world.submit(job_spec(gpus=4, seconds=10), hosts=2)
    world.advance(30)
    assert all(host.running() == [] for host in world.hosts.values())
    assert world.job(job).starts == 0
    world.hosts["h1"].moody = 0.0
    world.advance(400)
    assert world.job(job).state is FleetJobState.SUCCEEDED


def running_on_two(world: FleetWorld) -> FleetJobId:
    job = world.submit(job_spec(gpus=4, priority=100, seconds=100), hosts=2)
    world.advance(15)
    assert set(world.on(job).values()) == {"running"}
    return job


def test_a_member_that_is_preempted_takes_the_others_with_it() -> None:
    world = ready()
    job = running_on_two(world)
    world.submit(job_spec(gpus=4, priority=1000, seconds=30))
    world.advance(300)
    assert (world.job(job).state, world.job(job).preemptions) == (FleetJobState.SUCCEEDED, 1)
    assert (world.job(job).fence, world.job(job).starts) == (3, 2)


def test_a_member_that_fails_ends_the_job_or_begins_it_anew_as_its_policy_says() -> None:
    world = ready(4)
    ends = world.submit(job_spec(gpus=4, seconds=10, code=1), hosts=2)
    again = world.submit(
        job_spec(gpus=4, seconds=10, code=1, restart=RestartPolicy.ON_FAILURE, max_restarts=2), hosts=2
    )
    world.advance(200)
    assert (world.job(ends).state, world.job(ends).exit_code, world.job(ends).fence) == (
        FleetJobState.FAILED,
        1,
        1,
    )
    assert (world.job(again).state, world.job(again).starts) == (FleetJobState.FAILED, 3)


def test_a_member_whose_host_is_lost_takes_the_others_with_it() -> None:
    world = ready(3)
    job = running_on_two(world)
    lost, left = world.where(job)
    world.hosts[lost].power_off()
    world.advance(150)
    assert world.job(job).fence == 2
    assert lost not in world.where(job)
    assert left in world.where(job)


def test_it_is_cancelled_everywhere() -> None:
    world = ready()
    job = running_on_two(world)
    world.apply(ev.CancelRequested(job=job))
    world.advance(60)
    assert world.job(job).state is FleetJobState.CANCELLED
    assert not world.on(job)


def test_hosts_that_do_not_become_ready_in_time_are_left_for_others() -> None:
    world = ready(3)
    job = world.submit(job_spec(gpus=4, seconds=20), hosts=2)
    slow = world.where(job)[0]
    stop_everyones_readiness(world, slow)
    world.advance(100)
    assert sorted(world.where(job)) == sorted({*world.hosts} - {slow})
    assert (world.job(job).fence, world.job(job).starts) == (2, 0)
    world.advance(60)
    assert world.job(job).state is FleetJobState.SUCCEEDED


def test_it_is_requeued_as_a_whole_and_not_counted_as_preempted() -> None:
    world = ready()
    job = running_on_two(world)
    world.apply(ev.RequeueRequested(job=job, by="alice"))
    assert (world.job(job).state, world.job(job).reason) == (FleetJobState.STOPPING, "requeued by alice")
    assert why_not_requeued(world.job(job)) == "job 1 (job) is stopping already: requeued by alice"
    world.lead()
    world.advance(60)
    again = world.job(job)
    assert (again.state, again.fence, again.starts) == (FleetJobState.RUNNING, 2, 1)
    assert (again.preemptions, again.failures) == (0, 0)
    waits = world.submit(job_spec(gpus=4), hosts=2)
    world.apply(ev.RequeueRequested(job=waits))
    assert why_not_requeued(world.job(waits)) == f"job {waits} (job) does not run: it is assigned"
