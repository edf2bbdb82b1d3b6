"""What administrators do with hosts: cordon, drain, resume, label, remove; and hosts that come back."""

from tests.fakes.fleet_world import FleetWorld, job_spec
from topod.fleet import events as ev
from topod.fleet.asking import why_not
from topod.fleet.states import FleetJobState


def ready(count: int = 2) -> FleetWorld:
    world = FleetWorld(["a100-pcie-x4"] * count)
    world.advance(5)
    return world


def test_a_cordoned_host_gets_no_work_and_its_jobs_run_to_their_end() -> None:
    world = ready(1)
    job = world.submit(job_spec(seconds=20))
    world.advance(5)
    world.apply(ev.HostCordoned(host="h0", reason="new fan"))
    other = world.submit()
    world.advance(30)
    assert world.job(job).state is FleetJobState.SUCCEEDED
    assert world.job(other).state is FleetJobState.PENDING
    assert "cordoned: new fan" in world.job(other).reason
    world.apply(ev.HostResumed(host="h0"))
    assert world.where(other) == ["h0"]


def test_the_jobs_of_a_drained_host_go_on_elsewhere_once_they_are_stopped() -> None:
    world = ready()
    jobs = [world.submit(job_spec(gpus=4, seconds=60)) for _ in range(2)]
    world.advance(5)
    (there,) = world.where(jobs[0])
    world.apply(ev.HostCordoned(host=there, reason="new fan", requeue=True))
    assert world.job(jobs[0]).state is FleetJobState.STOPPING
    assert world.where(jobs[0]) == [there]
    world.advance(250)
    assert {world.job(job).state for job in jobs} == {FleetJobState.SUCCEEDED}
    assert [(world.job(job).starts, world.job(job).preemptions) for job in jobs] == [(2, 0), (1, 0)]
    assert not world.hosts[there].running()


def test_a_drain_outlives_the_coordinator() -> None:
    world = ready(1)
    world.apply(ev.HostCordoned(host="h0", reason="new fan"))
    world.fail_over()
    world.advance(10)
    job = world.submit()
    world.advance(10)
    assert world.job(job).state is FleetJobState.PENDING


def test_a_host_that_is_there_or_has_jobs_is_not_removed() -> None:
    world = ready()
    job = world.submit(job_spec(seconds=1000))
    world.advance(5)
    (there,) = world.where(job)

    def refusal(*, dead: bool) -> str | None:
        event = ev.HostRemoved(host=there, dead=dead)
        return why_not(world.leader.state, world.leader.view, event)

    assert "heard of just now" in (refusal(dead=True) or "")
    world.cut[there] = world.now + 15
    world.advance(10)
    assert f"still has {world.job(job).label}" in (refusal(dead=False) or "")
    assert refusal(dead=True) is None
    world.apply(ev.HostRemoved(host=there))
    assert there in world.leader.state.hosts


def test_a_host_without_jobs_is_removed_and_joins_again_when_it_comes_back() -> None:
    world = ready()
    world.hosts["h0"].crash()
    world.advance(10)
    world.apply(ev.HostRemoved(host="h0"))
    assert set(world.leader.state.hosts) == {"h1"}
    world.back["h0"] = (world.now, True)
    world.advance(10)
    assert set(world.leader.state.hosts) == {"h0", "h1"}


def test_a_host_declared_dead_that_comes_back_learns_that_its_job_was_given_away() -> None:
    world = ready()
    job = world.submit(job_spec(seconds=300))
    world.advance(5)
    (there,) = world.where(job)
    world.hosts[there].power_off()
    world.advance(10)
    world.apply(ev.HostRemoved(host=there, dead=True))
    world.advance(5)
    assert world.where(job) not in ([], [there])
    world.back[there] = (world.now, False)
    world.advance(20)
    assert list(world.on(job)) == world.where(job)


def test_who_asks_for_a_host_that_is_not_known_is_told() -> None:
    world = ready(1)
    for event in (
        ev.HostCordoned(host="h9", reason="x"),
        ev.HostResumed(host="h9"),
        ev.HostLabelled(host="h9", labels={}),
        ev.HostRemoved(host="h9"),
        ev.CancelRequested(job=world.leader.state.next_job),
    ):
        assert why_not(world.leader.state, world.leader.view, event) is not None
        assert not world.apply(event).changed_hosts


def test_the_administrators_labels_win_and_outlive_a_restart_of_the_host() -> None:
    world = FleetWorld(["a100-pcie-x4"])
    world.apply(ev.HostAdded(host="h0", labels={"rack": "7"}))
    world.hosts["h0"].labels = {"rack": "1", "room": "2"}
    world.advance(5)
    assert world.leader.state.hosts["h0"].all_labels == {"rack": "7", "room": "2"}
    job = world.submit(select=("rack=7", "room=2"))
    assert world.where(job) == ["h0"]


def test_a_host_that_was_quickly_restarted_goes_on_with_its_job() -> None:
    world = ready(1)
    job = world.submit(job_spec(seconds=40))
    world.advance(5)
    world.hosts["h0"].crash()
    world.back["h0"] = (world.now + 2, True)
    world.advance(60)
    assert (world.job(job).state, world.job(job).starts, world.job(job).fence) == (
        FleetJobState.SUCCEEDED,
        1,
        1,
    )


def test_a_host_that_did_a_job_while_it_was_given_up_is_believed_while_the_job_waits() -> None:
    world = ready(1)
    job = world.submit(job_spec(seconds=10))
    world.advance(5)
    world.cut["h0"] = world.now + 100
    world.advance(90)
    assert world.job(job).state is FleetJobState.PENDING
    world.advance(30)
    assert (world.job(job).state, world.job(job).starts) == (FleetJobState.SUCCEEDED, 1)
