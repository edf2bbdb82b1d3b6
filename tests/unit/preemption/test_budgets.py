"""Disruption budgets, quotas and the wait before anyone is stopped, by example."""

from dataclasses import replace

from tests.oracles.random_hosts import make_host
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Budget, Holder, Occupancy, Room
from topod.model.plan import Plan, Refusal
from topod.model.request import Affinity, CpuAffinity, ResourceRequest
from topod.preemption.explain import explain
from topod.preemption.search import plan

BRIDGES = TopologyTables(make_host(nodes=[0, 0, 1, 1], nvlinks={(0, 1): 4, (2, 3): 4}, cpus_per_node=8))
CHAT = Budget(name="service=chat", stops=1, reason="service=chat must keep 2 running")
KEEP_ALL = Budget(name="service=chat", stops=0, reason="service=chat must keep 2 running")
PAIR = ResourceRequest(gpus=2, affinity=Affinity.NVLINK, priority=1000)


def job(name: str, *gpus: int, cpus: str = "", priority: int = 100, chat: bool = False) -> Holder:
    budgets = ("service=chat",) if chat else ()
    mask = sum(1 << i for i in gpus)
    return Holder(job=name, priority=priority, gpus=mask, cpus=CpuSet.parse(cpus), budgets=budgets)


def planned(occupancy: Occupancy, request: ResourceRequest = PAIR) -> Plan:
    found = plan(BRIDGES, occupancy, request)
    assert isinstance(found, Plan), found
    return found


def refused(occupancy: Occupancy, request: ResourceRequest = PAIR) -> Refusal:
    found = plan(BRIDGES, occupancy, request)
    assert isinstance(found, Refusal), found
    return found


def test_a_service_is_left_the_replicas_it_must_keep_though_others_cost_more() -> None:
    holders = (job("1", 0, chat=True), job("2", 1, chat=True), job("3", 2, 3, priority=500))
    assert planned(Occupancy(holders=holders)).victims == ("1", "2")
    assert planned(Occupancy(holders=holders, budgets=(CHAT,))).victims == ("3",)


def test_a_plan_may_stop_as_many_as_the_budget_can_spare() -> None:
    holders = (job("1", 0, chat=True), job("2", 1), job("3", 2, 3, priority=500))
    assert planned(Occupancy(holders=holders, budgets=(CHAT,))).victims == ("1", "2")


def test_who_is_stopped_for_its_cpus_counts_too() -> None:
    holders = tuple(job(str(i), cpus=f"{2 * i}-{2 * i + 1}", chat=i < 3) for i in range(8))
    request = ResourceRequest(gpus=1, cpus=4, priority=1000)
    assert planned(Occupancy(holders=holders), request).victims == ("0", "1")
    within = planned(Occupancy(holders=holders, budgets=(CHAT,)), request)
    assert within.victims == ("0", "3")
    assert within.gpus == (0,)


def test_a_job_that_two_budgets_count_must_keep_both() -> None:
    team = Budget(name="team=a", stops=1, reason="team=a must keep 1 running")
    both = Holder(job="1", priority=100, gpus=0b01, budgets=("service=chat", "team=a"))
    other = Holder(job="2", priority=100, gpus=0b10, budgets=("team=a",))
    holders = (both, other, job("3", 2, 3, priority=500))
    assert planned(Occupancy(holders=holders, budgets=(CHAT,))).victims == ("1", "2")
    assert planned(Occupancy(holders=holders, budgets=(CHAT, team))).victims == ("3",)


def test_a_service_that_can_spare_nobody_is_named_as_what_is_in_the_way() -> None:
    holders = (job("1", 0, chat=True), job("2", 2, chat=True))
    found = refused(Occupancy(holders=holders, budgets=(KEEP_ALL,)))
    assert found.reason == (
        "2 GPUs in one NVLink ring: the largest such set that can be freed has 1: "
        "job 1 (service=chat must keep 2 running) holds 1, job 2 (service=chat must keep 2 running) holds 1"
    )


def test_a_plan_that_would_stop_too_many_is_refused_with_the_budget_and_the_jobs() -> None:
    holders = tuple(job(str(i), i, chat=True) for i in range(4))
    found = refused(Occupancy(holders=holders, budgets=(CHAT,)))
    assert found.reason == (
        "2 GPUs in one NVLink ring: every plan stops too many of a service: "
        "service=chat must keep 2 running, so only 1 of jobs 0, 1 may be stopped"
    )
    assert found.details == ("the cheapest of them stops jobs 0, 1",)


def test_the_cheaper_plan_that_a_budget_forbids_is_explained() -> None:
    occupancy = Occupancy(
        holders=(job("1", 0, chat=True), job("2", 1, chat=True), job("3", 2, 3, priority=500)),
        budgets=(CHAT,),
    )
    why = explain(BRIDGES, occupancy, PAIR, planned(occupancy))
    assert why.ruled_out is not None
    assert why.ruled_out.victims == ("1", "2")
    assert why.ruled_out_by == "service=chat must keep 2 running"
    free = Occupancy(budgets=(CHAT,))
    assert explain(BRIDGES, free, PAIR, planned(free)).ruled_out is None


def test_a_quota_leaves_so_many_gpus_and_no_more() -> None:
    room = Room(gpus=2, reason="the quota of user alice is 8 GPUs, 6 held")
    assert planned(Occupancy(room=room)).gpus == (0, 1)
    found = refused(Occupancy(room=room), ResourceRequest(gpus=4))
    assert found.reason == "the quota of user alice is 8 GPUs, 6 held: 2 are left, 4 asked"
    none = refused(
        Occupancy(room=Room(gpus=0, reason="the quota of user alice is 8 GPUs, 8 held")),
        ResourceRequest(gpus=1),
    )
    assert none.reason == "the quota of user alice is 8 GPUs, 8 held: none is left, 1 asked"
    never = refused(Occupancy(room=room), ResourceRequest(gpus=5))
    assert never.reason == "5 GPUs asked for, the host has 4"


def test_before_anyone_may_be_stopped_only_what_is_free_is_taken() -> None:
    wait = "waits 28 s more for free GPUs before anyone is stopped"
    waiting = Occupancy(holders=(job("1", 0),), may_evict=False, evict_reason=wait)
    assert planned(waiting).gpus == (2, 3)
    found = refused(waiting, ResourceRequest(gpus=4, priority=1000))
    assert (found.reason, found.details) == (wait, ("then: stops job 1",))


def test_the_wait_is_not_the_reason_where_stopping_others_would_not_help() -> None:
    blocked = Occupancy(
        holders=(job("1", 0, priority=1000),), may_evict=False, evict_reason="waits 28 s more"
    )
    assert "job 1 (priority 1000) holds 1" in refused(blocked, ResourceRequest(gpus=4, priority=1000)).reason


def test_many_alike_replicas_do_not_make_the_search_long() -> None:
    holders = tuple(job(str(i), cpus=str(i), chat=i < 12) for i in range(16))
    request = ResourceRequest(gpus=1, cpus=5, cpu_affinity=CpuAffinity.ANY, priority=1000)
    found = planned(Occupancy(holders=holders, budgets=(replace(CHAT, stops=2),)), request)
    assert found.victims == ("0", "1", "12", "13", "14")
