"""A job of the fleet from submit to its end, with hosts that keep the contract."""

from dataclasses import replace

import pytest

from tests.fakes.fleet_world import TERMS, FleetWorld, job_spec
from tests.oracles.plain_picker import PlainPicker
from topod.fleet import events as ev
from topod.fleet.asking import why_not
from topod.fleet.hosts import HeldBy, HostSnapshot, occupancy_at
from topod.fleet.orders import NO_ORDERS, orders_for
from topod.fleet.states import FleetJobState, FleetRequest
from topod.fleet.view import FleetView
from topod.flextopo.tables import TopologyTables
from topod.model.assignment import FleetJobReport
from topod.model.job import OnHostLost
from topod.model.rules import Quota, Rules, Scope
from topod.preemption.victims import read_state


class StrictPicker(PlainPicker):
    """Takes in no host on which two hold one GPU."""

    def put(self, snapshot: HostSnapshot, tables: TopologyTables) -> None:
        read_state(tables, occupancy_at(snapshot, 0.0), 0)
        super().put(snapshot, tables)


def ready(*kinds: str, rules: Rules | None = None) -> FleetWorld:
    world = FleetWorld(list(kinds) or ["a100-pcie-x4", "a100-pcie-x4"], rules=rules or Rules())
    world.advance(5)
    return world


def test_a_job_runs_on_a_host_and_its_end_is_told_and_settled() -> None:
    world = ready()
    job = world.submit(job_spec(gpus=2, seconds=10))
    assert world.job(job).state is FleetJobState.ASSIGNED
    world.advance(5)
    assert world.job(job).state is FleetJobState.RUNNING
    world.advance(15)
    assert world.job(job).state is FleetJobState.SUCCEEDED
    assert world.job(job).exit_code == 0
    assert not world.on(job)
    assert not world.leader.state.jobs


def test_two_decisions_in_a_row_never_give_the_same_gpus() -> None:
    world = ready("a100-pcie-x4")
    first, second = world.submit(job_spec(gpus=2)), world.submit(job_spec(gpus=2))
    places = [set(world.job(job).members[0].place.gpus) for job in (first, second)]
    assert not places[0] & places[1]
    third = world.submit(job_spec(gpus=1))
    assert world.job(third).state is FleetJobState.PENDING


def test_a_victim_is_stopped_on_the_best_host_and_comes_back_with_its_submit_time() -> None:
    world = ready()
    low = [world.submit(job_spec(gpus=4, priority=priority, seconds=60)) for priority in (100, 200)]
    world.advance(5)
    submitted = world.job(low[0]).submitted_at
    high = world.submit(job_spec(gpus=4, priority=1000, seconds=30))
    assert world.job(high).members[0].place.victims
    assert world.where(high) == world.where(low[0])
    world.advance(50)
    assert world.job(low[0]).preemptions == 1
    assert world.job(low[0]).submitted_at == submitted
    world.advance(100)
    assert {world.job(job).state for job in (*low, high)} == {FleetJobState.SUCCEEDED}


def test_of_a_burst_the_more_urgent_job_is_decided_first() -> None:
    world = ready("a100-pcie-x4")
    requests = [FleetRequest(spec=job_spec(gpus=4, priority=priority)) for priority in (100, 1000)]
    world.apply(*(ev.Submitted(request=request) for request in requests))
    states = [world.leader.state.jobs[ident].state for ident in sorted(world.leader.state.jobs)]
    assert states == [FleetJobState.PENDING, FleetJobState.ASSIGNED]


def test_a_refused_job_is_planned_anew_at_once_and_after_the_second_time_elsewhere() -> None:
    world = ready()
    world.hosts["h0"].moody = 1.0
    job = world.submit(job_spec(gpus=1, seconds=10))
    assert world.where(job) == ["h0"]
    world.advance(8)
    assert (world.where(job), world.job(job).fence) == (["h1"], 3)
    world.advance(20)
    assert world.job(job).state is FleetJobState.SUCCEEDED


def test_a_job_goes_only_where_labels_and_model_are_as_asked() -> None:
    world = FleetWorld(["a100-pcie-x4", "rtx4090x8", "a100-pcie-x4"])
    world.hosts["h2"].labels = {"rack": "7"}
    world.advance(5)
    by_label = world.submit(select=("rack=7",))
    by_model = world.submit(gpu_model="*4090*")
    nowhere = world.submit(select=("rack=8",))
    assert world.where(by_label) == ["h2"]
    assert world.where(by_model) == ["h1"]
    assert world.job(nowhere).state is FleetJobState.PENDING
    world.apply(ev.HostLabelled(host="h0", labels={"rack": "8"}))
    assert world.where(nowhere) == ["h0"]


def test_a_selector_that_is_no_label_is_refused() -> None:
    with pytest.raises(ValueError, match="key=value"):
        FleetRequest(spec=job_spec(), select=("rack",))


def test_a_cancelled_job_is_stopped_where_it_runs_and_only_then_has_ended() -> None:
    world = ready()
    job = world.submit(job_spec(seconds=1000))
    world.advance(5)
    world.apply(ev.CancelRequested(job=job, by="alice"))
    assert world.job(job).state is FleetJobState.STOPPING
    world.advance(60)
    assert (world.job(job).state, world.job(job).reason) == (FleetJobState.CANCELLED, "cancelled by alice")
    assert not world.on(job)


def test_a_job_cancelled_before_its_host_heard_of_it_never_runs() -> None:
    world = ready()
    world.cut = {"h0": world.now + 5, "h1": world.now + 5}
    job = world.submit(job_spec(seconds=10))
    world.apply(ev.CancelRequested(job=job))
    world.advance(20)
    assert world.job(job).state is FleetJobState.CANCELLED
    assert world.job(job).starts == 0


def test_a_changed_priority_reaches_the_host() -> None:
    world = ready("a100-pcie-x4")
    job = world.submit(job_spec(gpus=4, priority=500, seconds=100))
    world.advance(5)
    world.apply(ev.PriorityChanged(job=job, priority=50))
    other = world.submit(job_spec(gpus=4, priority=100, seconds=10))
    world.advance(60)
    assert world.job(other).starts == 1
    assert world.job(job).preemptions == 1


def test_a_host_cut_off_for_longer_than_its_lease_loses_its_job_to_another_but_not_earlier() -> None:
    world = ready()
    job = world.submit(job_spec(seconds=1000))
    world.advance(5)
    (there,) = world.where(job)
    world.cut[there] = world.now + 1000
    spec = world.job(job).spec
    world.advance(int(TERMS.certainly_stopped(0, spec)) - 3)
    assert world.where(job) == [there]
    world.advance(10)
    assert world.where(job) not in ([], [there])
    assert world.job(job).state is FleetJobState.RUNNING


def test_a_job_that_is_to_be_kept_waits_for_its_host_until_that_is_declared_dead() -> None:
    world = ready()
    job = world.submit(job_spec(seconds=1000, on_host_lost=OnHostLost.KEEP))
    world.advance(5)
    (there,) = world.where(job)
    world.hosts[there].power_off()
    world.advance(500)
    assert world.where(job) == [there]
    world.apply(ev.HostRemoved(host=there, dead=True, by="root"))
    world.advance(5)
    assert world.where(job) not in ([], [there])
    assert there not in world.leader.state.hosts


def test_a_coordinator_that_crashes_after_it_decided_goes_on_with_what_is_durable() -> None:
    world = ready()
    job = world.submit(job_spec(seconds=20))
    world.wire.clear()  # what was to be sent never was
    world.lead()
    world.advance(5)
    assert (world.job(job).state, world.job(job).fence) == (FleetJobState.RUNNING, 1)
    world.fail_over()
    world.advance(30)
    assert (world.job(job).state, world.job(job).starts) == (FleetJobState.SUCCEEDED, 1)


def test_nothing_is_ordered_of_a_host_before_its_first_report_tells_what_it_has() -> None:
    world = ready()
    world.submit(job_spec(seconds=100))
    world.advance(5)
    assert orders_for(world.leader.state, FleetView(), "h0") == NO_ORDERS


def test_a_host_that_lost_its_memory_is_told_to_stop_what_it_had_and_the_job_runs_anew() -> None:
    world = ready()
    job = world.submit(job_spec(seconds=30))
    world.advance(5)
    (there,) = world.where(job)
    world.wipe(there)
    world.back[there] = (world.now + 10, False)
    world.advance(60)
    assert world.job(job).fence == 2
    world.advance(30)
    assert world.job(job).state is FleetJobState.SUCCEEDED


def test_a_job_of_another_fleet_is_left_alone() -> None:
    world = ready()
    job = world.submit(job_spec(seconds=100))
    world.advance(5)
    (there,) = world.where(job)
    forgotten = replace(world.leader.state, jobs={}, next_job=job)
    assert orders_for(forgotten, world.leader.view, there) == NO_ORDERS
    ended = replace(forgotten, next_job=world.leader.state.next_job)
    assert [revoke.job for revoke in orders_for(ended, world.leader.view, there).revoke] == [job]


def test_what_an_earlier_assignment_came_to_says_nothing_of_the_present_one() -> None:
    world = ready("a100-pcie-x4")
    job = world.submit(job_spec(seconds=100))
    world.advance(3)
    world.apply(ev.HostCordoned(host="h0", reason="fan", requeue=True))
    world.advance(60)
    world.apply(ev.HostResumed(host="h0"))
    seen = world.leader.view.hosts["h0"]
    assert (world.job(job).fence, world.job(job).state) == (2, FleetJobState.ASSIGNED)
    old = FleetJobReport(job=job, fence=1, state="returned", reason="still told")
    world.apply(
        ev.HostReported(
            host="h0", session=seen.session, seq=seen.seq + 1, snapshot=seen.snapshot, jobs=(old,)
        )
    )
    assert (world.job(job).fence, world.job(job).state) == (2, FleetJobState.ASSIGNED)
    orders = orders_for(world.leader.state, world.leader.view, "h0")
    assert [entry.tag.fence for entry in orders.assign] == [2]
    assert [entry.fence for entry in orders.settled] == [1]


def test_an_older_report_that_comes_late_is_ignored() -> None:
    world = ready("a100-pcie-x4")
    job = world.submit(job_spec(seconds=100))
    seen = world.leader.view.hosts["h0"]
    world.advance(5)
    now = world.leader.view.hosts["h0"]
    world.apply(
        ev.HostReported(host="h0", session=seen.session, seq=seen.seq, snapshot=seen.snapshot, jobs=())
    )
    assert world.leader.view.hosts["h0"] == now
    assert world.job(job).state is FleetJobState.RUNNING


def test_a_coordinator_that_remembers_less_than_a_host_goes_on_after_what_that_has_heard() -> None:
    world = ready("a100-pcie-x4")
    before, seen = world.leader.state, world.leader.view.hosts["h0"]
    report = ev.HostReported(host="h0", session=seen.session, seq=seen.seq + 1, epoch=before.epoch, fence=40)
    world.apply(report)
    now = world.leader.state
    assert (now.epoch, now.next_fence) == (before.epoch + 1, 41)
    world.apply(replace(report, seq=seen.seq + 2, epoch=0))
    assert world.leader.state.epoch == now.epoch
    job = world.submit(job_spec(seconds=100))
    assert world.job(job).fence == 41


def test_a_host_that_contradicts_itself_keeps_nobody_else_from_work() -> None:
    world = FleetWorld(["a100-pcie-x4", "a100-pcie-x4"], picker=StrictPicker)
    world.advance(5)
    seen = world.leader.view.hosts["h0"]
    assert seen.snapshot is not None
    both = tuple(HeldBy(job=name, priority=1, gpus=1) for name in ("1", "2"))
    broken = replace(seen.snapshot, holders=both)
    event = ev.HostReported(host="h0", session=seen.session, seq=seen.seq + 1, snapshot=broken, jobs=())
    world.apply(event)
    assert world.where(world.submit(job_spec(gpus=1))) == ["h1"]
    assert list(world.board.unfit) == ["h0"]


def test_a_twin_takes_neither_name_nor_jobs_from_a_host_that_is_there() -> None:
    world = ready()
    tables = world.hosts["h0"].tables
    world.apply(ev.HostSeen(host="h0", session="twin", tables=tables))
    assert world.leader.view.knows("h0", "h0-1")
    assert world.leader.view.turned_away("h0", "twin") is not None


def test_quotas_count_over_the_fleet_and_keep_nobody_else_waiting() -> None:
    rules = Rules(quotas=(Quota(scope=Scope.USER, value="alice", gpus=4),))
    world = ready(rules=rules)
    jobs = [world.submit(job_spec(gpus=2, user="alice", seconds=20)) for _ in range(3)]
    other = world.submit(job_spec(gpus=1, user="bob"))
    assert [world.job(job).state for job in (*jobs, other)] == [
        FleetJobState.ASSIGNED,
        FleetJobState.ASSIGNED,
        FleetJobState.PENDING,
        FleetJobState.ASSIGNED,
    ]
    assert "quota of user alice" in world.job(jobs[2]).reason
    world.advance(60)
    assert world.job(jobs[2]).state is FleetJobState.SUCCEEDED
    for request in (
        FleetRequest(spec=job_spec(gpus=5, user="alice")),
        FleetRequest(spec=job_spec(gpus=3, user="alice"), hosts=2),
    ):
        event = ev.Submitted(request=request)
        assert why_not(world.leader.state, world.leader.view, event, rules) is not None


def test_a_pending_job_says_why() -> None:
    world = FleetWorld([])
    job = world.submit()
    assert world.job(job).reason == "no host has joined the fleet"
    world = ready("a100-pcie-x4")
    world.cut["h0"] = world.now + 100
    world.advance(10)
    assert world.job(world.submit()).reason == "no host can be reached now"


def test_a_new_leader_stops_nobody_before_it_has_heard_the_hosts_it_knows() -> None:
    world = ready()
    low = world.submit(job_spec(gpus=4, priority=100, seconds=1000))
    world.advance(5)
    (full,) = world.where(low)
    (empty,) = {"h0", "h1"} - {full}
    world.cut[empty] = world.now + 4
    world.lead()
    world.advance(2)
    high = world.submit(job_spec(gpus=4, priority=1000, seconds=20))
    text = f"only free GPUs will do: {empty}, not heard since this coordinator began to lead)"
    assert text in world.job(high).reason
    world.advance(4)
    assert (world.where(high), world.job(low).preemptions) == ([empty], 0)


def test_a_host_that_does_not_come_back_is_waited_for_as_long_as_one_that_falls_silent() -> None:
    world = ready()
    low = world.submit(job_spec(gpus=4, priority=100, seconds=1000))
    world.advance(5)
    (full,) = world.where(low)
    (empty,) = {"h0", "h1"} - {full}
    world.cut[empty] = world.now + 1000
    world.lead()
    began = world.now
    high = world.submit(job_spec(gpus=4, priority=1000, seconds=20))
    while not world.where(high):
        world.advance(1)
    assert world.where(high) == [full]
    assert TERMS.silent_after_seconds <= world.now - began <= TERMS.silent_after_seconds + 2


def test_troubles_of_an_idle_host_come_and_go_with_its_reports() -> None:
    world = ready("a100-pcie-x4")
    seen = world.leader.view.hosts["h0"]
    for seq, troubles in enumerate([("engine: does not answer",), ()], start=seen.seq + 1):
        world.apply(ev.HostReported(host="h0", session=seen.session, seq=seq, troubles=troubles))
        assert world.leader.view.hosts["h0"].troubles == troubles
