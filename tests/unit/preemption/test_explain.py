from tests.oracles.random_hosts import make_host
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Holder, Occupancy
from topod.model.plan import Plan
from topod.model.request import Affinity, ResourceRequest
from topod.preemption.explain import Explanation, explain
from topod.preemption.search import plan

BRIDGES = make_host(nodes=[0, 0, 1, 1], nvlinks={(0, 1): 4, (2, 3): 4}, cpus_per_node=8)


def explained(request: ResourceRequest, *holders: Holder) -> tuple[Plan, Explanation]:
    tables, occupancy = TopologyTables(BRIDGES), Occupancy(holders=holders)
    found = plan(tables, occupancy, request)
    assert isinstance(found, Plan)
    return found, explain(tables, occupancy, request, found)


def test_the_alternative_would_have_stopped_someone_else_and_says_what_it_lost_by() -> None:
    found, why = explained(
        ResourceRequest(gpus=2, affinity=Affinity.NVLINK, priority=1000),
        Holder(job="a", priority=100, gpus=0b0011),
        Holder(job="b", priority=500, gpus=0b1100),
    )
    assert found.victims == ("a",)
    assert [(reason.job, reason.why) for reason in why.victims] == [
        ("a", "holds GPUs 0-1, which the plan takes")
    ]
    assert why.alternative is not None
    assert why.alternative.victims == ("b",)
    assert why.decided_by == "victims: 1 of priority 100, instead of 1 of priority 500"


def test_a_difference_too_small_for_seconds_is_told_exactly() -> None:
    _, why = explained(
        ResourceRequest(gpus=2, affinity=Affinity.NVLINK, priority=1000),
        Holder(job="a", priority=100, gpus=0b0011, work=1020),
        Holder(job="b", priority=100, gpus=0b1100, work=1270),
    )
    assert why.decided_by == "work lost: less by 250 GPU-milliseconds"


def test_without_victims_the_alternative_has_other_gpus() -> None:
    found, why = explained(ResourceRequest(gpus=1), Holder(job="a", priority=100, gpus=0b0001))
    assert found.gpus == (1,)
    assert why.alternative is not None
    assert why.alternative.gpus == (2,)
    assert why.decided_by.startswith("left: groups that stay whole: NVLink 2,")


def test_a_victim_for_its_cpus_is_explained_by_them() -> None:
    _, why = explained(
        ResourceRequest(gpus=4, cpus=16, priority=1000),
        Holder(job="a", priority=100, cpus=CpuSet.parse("2-3")),
    )
    assert why.victims[0].why == "holds CPUs 2-3, which the plan takes"
    assert why.alternative is None
    assert why.decided_by == ""


def test_every_cost_key_is_told_in_the_order_of_comparison() -> None:
    _, any_level = explained(ResourceRequest(gpus=2))
    _, nvlink = explained(ResourceRequest(gpus=2, affinity=Affinity.NVLINK))
    keys = ["victims", "affinity", "stranded GPUs", "work lost"]
    assert [line.key for line in any_level.cost] == [*keys, "left", "links", "indices"]
    assert [line.key for line in nvlink.cost] == [*keys, "links", "left", "indices"]
    assert any_level.cost[-1].value == "GPUs 0,1"
