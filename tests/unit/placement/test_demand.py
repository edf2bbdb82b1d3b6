from tests.oracles.random_hosts import make_host
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.request import AUTO, CpuAffinity, Policy, ResourceRequest
from topod.placement.demand import CpuNeed, cpu_levels, cpu_need


def need(host: TopologyTables, gpus: int, request: ResourceRequest) -> CpuNeed:
    return cpu_need(host, host.mix_of(gpus), request, request.cpu_affinity)


def test_shares_are_rounded_up_and_as_many_nodes_as_needed_give_one_fewer() -> None:
    host = TopologyTables(make_host(nodes=[0, 0, 1], nvlinks={}, cpus_per_node=8))
    found = need(host, 0b111, ResourceRequest(gpus=3, cpus=7))
    assert [count for _, count in found.flexible] == [5, 3]  # 7 * 2/3 and 7 * 1/3, rounded up
    assert found.fewer == 1
    assert found.met_by(CpuSet.parse("0-4,8-9").mask)
    assert found.met_by(CpuSet.parse("0-3,8-10").mask)
    assert not found.met_by(CpuSet.parse("0-3,8-9").mask)


def test_auto_is_the_fair_share_of_each_gpus_node() -> None:
    host = TopologyTables(make_host(nodes=[0, 0, 1], nvlinks={}, cpus_per_node=8))
    found = need(host, 0b101, ResourceRequest(gpus=2, cpus=AUTO))
    assert found.total == 4 + 8
    assert need(host, 0, ResourceRequest(gpus=0, cpus=AUTO)).total == 0


def test_a_gpu_without_a_known_place_takes_its_part_from_anywhere() -> None:
    host = TopologyTables(make_host(nodes=[0, None], nvlinks={}, cpus_per_node=8, extra_nodes=1))
    found = need(host, 0b11, ResourceRequest(gpus=2, cpus=6))
    assert found.met_by(CpuSet.parse("0-2,8-10").mask)
    assert not found.met_by(CpuSet.parse("0-1,8-15").mask)


def test_best_effort_goes_down_the_cpu_ladder_and_guaranteed_does_not() -> None:
    assert cpu_levels(ResourceRequest(gpus=1, policy=Policy.BEST_EFFORT)) == tuple(CpuAffinity)
    assert cpu_levels(ResourceRequest(gpus=1, policy=Policy.GUARANTEED)) == (CpuAffinity.NUMA,)
    # Without GPUs every level holds, so none is ever missed.
    assert cpu_levels(ResourceRequest(gpus=0, policy=Policy.BEST_EFFORT)) == (CpuAffinity.NUMA,)
