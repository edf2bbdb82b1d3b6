"""A member of a job over several hosts stands for the whole job, wherever the decision looks at it."""

from dataclasses import replace

from topod.discovery.library import load_library_host
from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.fleet.states import FleetJob, FleetJobId, FleetJobState, FleetRequest, Member
from topod.fleet.view import HostView
from topod.fleet.whole import with_wholes
from topod.flextopo.tables import TopologyTables
from topod.model.assignment import FleetJobReport, Place
from topod.model.job import JobSpec
from topod.model.occupancy import Budget
from topod.model.request import ResourceRequest

TABLES = TopologyTables(load_library_host("dgx1").topology)


def held(**more: object) -> HeldBy:
    mine = HeldBy(job="7", priority=100, gpus=0b11, work_since=100.0, work_gpus=4, stops=2, elsewhere=2)
    return replace(mine, **more)  # type: ignore[arg-type]  # test shorthand


def seen(host: str, *holders: HeldBy, budgets: tuple[Budget, ...] = ()) -> HostView:
    snapshot = HostSnapshot(host=host, generation=1, holders=holders, budgets=budgets)
    return HostView(session="s", tables=TABLES, heard_at=0.0, snapshot=snapshot)


def member(host: str, state: str | None) -> Member:
    report = None if state is None else FleetJobReport(job=3, fence=1, local=7, state=state)
    return Member(host=host, place=Place(), since=0.0, report=report)


def whole(other: HostView, state: str | None = "running") -> HostSnapshot:
    job = FleetJob(
        id=FleetJobId(3),
        request=FleetRequest(spec=JobSpec(name="t", command=(), request=ResourceRequest(gpus=2)), hosts=2),
        state=FleetJobState.RUNNING,
        submitted_at=0.0,
        members=(member("a", "running"), member("b", state)),
    )
    views = {"a": seen("a", held()), "b": other}
    snapshot = views["a"].snapshot
    assert snapshot is not None
    return with_wholes(snapshot, [job], views)


def test_work_protection_priority_and_gpus_are_those_of_all_members() -> None:
    found = whole(seen("b", held(work_since=106.0, evictable_from=130.0, priority=120, gpus=0b1100)))
    (one,) = found.holders
    assert (one.gang, one.stops, one.elsewhere) == (3, 2, 2)
    assert (one.work_since, one.work_gpus) == (103.0, 4)
    assert (one.evictable_from, one.priority, one.gpus) == (130.0, 120, 0b11)


def test_a_member_that_may_not_stop_protects_the_others() -> None:
    found = whole(seen("b", held(evictable_from=None, protection="not preemptible")))
    assert (found.holders[0].evictable_from, found.holders[0].protection) == (None, "not preemptible")
    assert whole(seen("b"), None).holders[0].protection == "being placed just now"


def test_budgets_of_the_other_hosts_bind_here_too() -> None:
    budget = Budget(name="app=x", stops=0, reason="app=x must keep 1 running")
    found = whole(seen("b", held(budgets=("app=x",)), budgets=(budget,)))
    assert found.holders[0].budgets == ("app=x on b",)
    assert [(one.name, one.stops, one.reason) for one in found.budgets] == [
        ("app=x on b", 0, "app=x must keep 1 running on b")
    ]


def test_a_member_that_is_over_counts_no_more() -> None:
    assert whole(seen("b"), "succeeded").holders[0].stops == 1
