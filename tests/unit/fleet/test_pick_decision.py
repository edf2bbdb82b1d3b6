"""The decision over a fleet by example: which host, and what a refusal says."""

from dataclasses import replace

import pytest

from tests.oracles.random_hosts import make_host
from topod.errors import DataError, NotFoundError
from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.fleet.pick.cost import Chosen, why_better
from topod.fleet.pick.fleet import Fleet
from topod.fleet.select import Selector
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Block, Budget
from topod.model.plan import Refusal
from topod.model.request import Affinity, ResourceRequest

PAIRS = [(i, j) for i in range(8) for j in range(i + 1, 8)]
HGX = TopologyTables(
    make_host(nodes=[0, 0, 0, 0, 1, 1, 1, 1], nvlinks=dict.fromkeys(PAIRS, 18), cpus_per_node=32)
)
PCIE = TopologyTables(make_host(nodes=[0, 0, 1, 1], nvlinks={}, cpus_per_node=32))
NO_GPUS = TopologyTables(make_host(nodes=[], nvlinks={}, cpus_per_node=32))
NOW = 1000.0


def held(job: str, *gpus: int, priority: int = 100, cpus: str = "", since: float | None = None) -> HeldBy:
    mask = sum(1 << i for i in gpus)
    return HeldBy(
        job=job,
        priority=priority,
        gpus=mask,
        cpus=CpuSet.parse(cpus),
        work_since=since,
        work_gpus=len(gpus),
    )


def host(name: str, *holders: HeldBy, closed: str | None = None, **labels: str) -> HostSnapshot:
    return HostSnapshot(host=name, generation=7, holders=holders, closed=closed, labels=labels)


def fleet(*hosts: HostSnapshot, tables: TopologyTables = HGX) -> Fleet:
    found = Fleet()
    for one in hosts:
        found.put(one, tables)
    return found


def chosen(answer: Chosen | Refusal) -> Chosen:
    assert isinstance(answer, Chosen), answer
    return answer


def refused(answer: Chosen | Refusal) -> Refusal:
    assert isinstance(answer, Refusal), answer
    return answer


def ask(
    gpus: int, *, affinity: Affinity = Affinity.ANY, priority: int = 500, cpus: int = 0
) -> ResourceRequest:
    return ResourceRequest(gpus=gpus, affinity=affinity, priority=priority, cpus=cpus)


def test_a_job_takes_leftovers_and_breaks_no_whole_host() -> None:
    hosts = fleet(
        host("a-empty"), host("half", held("1", 0, 1, 2, 3)), host("rest", held("2", 0, 1, 2, 3, 4, 5))
    )
    assert chosen(hosts.decide(ask(2), NOW)).host == "rest"
    assert chosen(hosts.decide(ask(4), NOW)).host == "half"
    assert chosen(hosts.decide(ask(8), NOW)).host == "a-empty"


def test_a_single_gpu_goes_where_there_is_no_nvlink_to_break() -> None:
    hosts = fleet(host("a-hgx", held("1", 0, 1, 2, 3)))
    hosts.put(host("pcie"), PCIE)
    assert chosen(hosts.decide(ask(1), NOW)).host == "pcie"


def test_spread_takes_the_host_with_the_larger_free_share() -> None:
    hosts = fleet(host("empty"), host("a-half", held("1", 0, 1, 2, 3)))
    assert chosen(hosts.decide(ask(2), NOW, spread=True)).host == "empty"
    assert chosen(hosts.decide(ask(2), NOW)).host == "a-half"


def test_links_count_before_what_is_left_for_a_job_that_cares() -> None:
    hosts = fleet(host("hgx"))
    hosts.put(host("a-pcie"), PCIE)
    assert chosen(hosts.decide(ask(2, affinity=Affinity.NUMA), NOW)).host == "hgx"
    assert chosen(hosts.decide(ask(2), NOW)).host == "a-pcie"


def test_a_job_without_gpus_stays_away_from_free_gpus() -> None:
    hosts = fleet(host("a-hgx"), host("full", held("1", *range(8))))
    assert chosen(hosts.decide(ask(0, cpus=4), NOW)).host == "full"
    hosts.put(host("b-none", held("2", cpus="0-9")), NO_GPUS)
    assert chosen(hosts.decide(ask(0, cpus=4), NOW)).host == "b-none"


def test_nobody_is_stopped_while_some_host_has_room() -> None:
    hosts = fleet(host("a", held("1", *range(8))), host("b", held("2", *range(4))))
    answer = chosen(hosts.decide(ask(4), NOW))
    assert (answer.host, answer.plan.victims, answer.generation) == ("b", (), 7)


def test_of_all_hosts_the_one_whose_victims_cost_least() -> None:
    low = host("c-low", held("1", 0, 1, 2, 3, since=10), held("2", 4, 5, 6, 7, since=10))
    late = host("d-late", held("3", 0, 1, 2, 3, since=NOW - 5), held("4", 4, 5, 6, 7, since=20))
    hosts = fleet(
        host("a-high", held("5", *range(8), priority=400)),
        host("b-many", *(held(f"b{i}", i) for i in range(8))),
        low,
        late,
    )
    answer = chosen(hosts.decide(ask(4), NOW))
    assert (answer.host, answer.plan.victims) == ("d-late", ("3",))
    hosts.put(replace(late, closed="cordoned"), HGX)
    assert chosen(hosts.decide(ask(4), NOW)).host == "c-low"
    hosts.remove("c-low")
    hosts.remove("never-there")
    assert chosen(hosts.decide(ask(4), NOW)).host == "b-many"


@pytest.mark.parametrize(
    ("gpus", "spread", "why"),
    [
        (2, False, "left: rest loses fewer, or smaller, free groups of GPUs by it than half"),
        (2, True, "spread: 8 GPUs are free on empty, 4 on half"),
        (0, False, "fuller hosts first: 2 GPUs and 64 CPUs are free on rest, 4 GPUs and 64 CPUs on half"),
    ],
)
def test_a_choice_says_why_it_is_better_than_the_next_host(gpus: int, *, spread: bool, why: str) -> None:
    hosts = fleet(
        host("empty"), host("half", held("1", 0, 1, 2, 3)), host("rest", held("2", 0, 1, 2, 3, 4, 5))
    )
    best = chosen(hosts.decide(ask(gpus), NOW, spread=spread))
    other = chosen(hosts.decide(ask(gpus), NOW, spread=spread, exclude={best.host}))
    assert why_better(best, other, ask(gpus)) == why


def test_of_hosts_with_victims_it_says_which_cost_decided() -> None:
    low, high = host("z", held("1", *range(8))), host("a", held("2", *range(8), priority=200))
    hosts = fleet(low, high, host("zz", held("3", *range(8))))
    best, next_ = (chosen(hosts.decide(ask(4), NOW, exclude=without)) for without in ((), ("z",)))
    assert (best.host, next_.host) == ("z", "zz")
    assert why_better(best, next_, ask(4)) == "names in their order: as good in all else"
    hosts.remove("zz")
    last = chosen(hosts.decide(ask(4), NOW, exclude=("z",)))
    assert why_better(best, last, ask(4)) == "victims: 1 of priority 100, instead of 1 of priority 200"


def test_time_alone_makes_a_victim() -> None:
    young = replace(held("1", *range(8)), evictable_from=NOW + 60)
    hosts = fleet(host("a", young), host("b", replace(held("2", *range(8)), evictable_from=None)))
    assert "protected for 60 s more" in refused(hosts.decide(ask(8), NOW)).details[0]
    assert chosen(hosts.decide(ask(8), NOW + 60)).plan.victims == ("1",)


def test_a_guarded_job_is_no_victim_of_who_it_was_held_for() -> None:
    guarded = replace(held("1", *range(8)), guard_priority=999, guarded_until=NOW + 60)
    hosts = fleet(host("a", guarded))
    assert isinstance(hosts.decide(ask(8), NOW), Refusal)
    assert chosen(hosts.decide(ask(8, priority=1000), NOW)).plan.victims == ("1",)
    assert chosen(hosts.decide(ask(8), NOW + 60)).plan.victims == ("1",)


def test_cpus_that_are_short_decide_between_hosts() -> None:
    no_cpus = host("a", held("1", 0, 1, 2, 3), held("2", cpus="32-60"))
    hosts = fleet(no_cpus, host("b-empty"))
    assert chosen(hosts.decide(ask(4, cpus=8), NOW)).host == "b-empty"
    hosts.put(host("b-empty", closed="drained"), HGX)
    answer = chosen(hosts.decide(ask(4, cpus=8), NOW))
    assert (answer.host, answer.plan.victims) == ("a", ("1",))


def test_a_budget_that_cannot_be_kept_leaves_the_choice_to_another_host() -> None:
    replicas = [replace(held(f"r{i}", i), budgets=("svc",)) for i in range(8)]
    kept = replace(host("a", *replicas), budgets=(Budget(name="svc", stops=1, reason="svc must keep 7"),))
    hosts = fleet(kept, host("b", *(held(f"x{i}", i, priority=400) for i in range(8))))
    assert chosen(hosts.decide(ask(1), NOW)).host == "a"
    assert chosen(hosts.decide(ask(2), NOW)).host == "b"


def test_selectors_and_exclusions_leave_hosts_out() -> None:
    hosts = fleet(host("a", zone="x"), host("b", zone="y"), host("c"))
    assert chosen(hosts.decide(ask(8), NOW, selector=Selector(labels={"zone": "y"}))).host == "b"
    assert chosen(hosts.decide(ask(8), NOW, selector=Selector(hosts=frozenset({"c"})))).host == "c"
    assert chosen(hosts.decide(ask(8), NOW, exclude={"a", "b", "nobody"})).host == "c"
    hosts.put(host("b", zone="z"), HGX)
    told = refused(hosts.decide(ask(8), NOW, selector=Selector(labels={"zone": "y"})))
    assert told == Refusal(reason="none of 3 hosts can take it now: without the label zone=y (3)")
    told = refused(hosts.decide(ask(8), NOW, selector=Selector(gpu_model="*a100*"), exclude={"a"}))
    assert told.reason == "none of 2 other hosts can take it now: GPU model is not *a100* (2)"
    assert refused(hosts.decide(ask(8), NOW, exclude={"a", "b", "c"})).reason == "there is no other host"


def test_without_leave_to_stop_anybody_the_refusal_names_whom_it_would_stop() -> None:
    array = replace(held("17", 4, 5, 6, 7), ident="12[3]")
    hosts = fleet(host("a", held("1", 0, 1, 2, 3), array))
    told = refused(hosts.decide(ask(8), NOW, may_evict=False))
    assert told == Refusal(
        reason="no host has room without stopping a job", details=("then: on a, stops jobs 1, 12[3]",)
    )


def test_a_refusal_counts_hosts_by_reason_and_gives_one_hosts_words_for_each() -> None:
    hosts = fleet(
        *(host(f"full-{i:02}", held("1", *range(8), priority=900)) for i in range(20)),
        host("split", held("2", 0, 1, 4, 5, priority=900)),
        host("shut", closed="cordoned: fan"),
    )
    hosts.put(host("small"), PCIE)
    told = refused(hosts.decide(ask(4, affinity=Affinity.NUMA), NOW))
    assert told.reason == (
        "none of 23 hosts can take it now: too few GPUs can be freed (20); "
        "4 GPUs on one NUMA node: this host has no such set, the next smaller has 2 (1); "
        "closed: cordoned: fan (1); other reasons (1)"
    )
    assert told.details[0].startswith(
        "20 hosts: too few GPUs can be freed; full-00: 4 GPUs on one NUMA node: node 0 has 0 that can be freed"
    )
    assert len(told.details) == 4


def test_the_details_of_a_refusal_are_bounded() -> None:
    hosts = fleet(*(host(f"h{i:03}", closed=f"not heard of for {i} s") for i in range(300)))
    told = refused(hosts.decide(ask(1), NOW))
    assert len(told.details) == 9
    assert told.details[-1] == "292 hosts: other reasons"


def test_an_empty_fleet_says_so() -> None:
    assert refused(Fleet().decide(ask(1), NOW)).reason == "the fleet has no hosts"


def test_damaged_snapshots_are_refused_and_change_nothing() -> None:
    hosts = fleet(host("a"))
    with pytest.raises(DataError, match="a: job 2 holds what another job holds too"):
        hosts.put(host("a", held("1", 0), held("2", 0)), HGX)
    with pytest.raises(DataError, match="a: a job holds a GPU that the host does not have"):
        hosts.put(host("a", held("1", 8)), HGX)
    assert hosts.snapshot("a") == host("a")
    with pytest.raises(NotFoundError):
        hosts.snapshot("b")


def test_a_host_may_come_back_with_other_hardware() -> None:
    hosts = fleet(host("a"))
    hosts.put(host("a"), PCIE)
    assert len(hosts) == 1
    assert isinstance(hosts.decide(ask(8), NOW), Refusal)
    blocked = replace(host("a"), blocks=(Block(reason="foreign", gpus=0b0111),))
    hosts.put(blocked, PCIE)
    assert chosen(hosts.decide(ask(1), NOW)).plan.gpus == (3,)
