"""A refusal says exactly what is in the way."""

import pytest

from tests.oracles.random_hosts import CUBE_MESH, make_host
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Block, Holder, Occupancy
from topod.model.plan import Refusal
from topod.model.request import Affinity, CpuAffinity, Policy, ResourceRequest
from topod.model.topology import Topology
from topod.preemption.search import plan

DGX1 = make_host(nodes=[0, 0, 0, 0, 1, 1, 1, 1], nvlinks=CUBE_MESH, cpus_per_node=8)


def refused(
    topology: Topology, request: ResourceRequest, *holders: Holder, blocks: tuple[Block, ...] = ()
) -> Refusal:
    found = plan(TopologyTables(topology), Occupancy(holders=holders, blocks=blocks), request)
    assert isinstance(found, Refusal), found
    return found


def test_more_gpus_than_the_host_has() -> None:
    assert refused(DGX1, ResourceRequest(gpus=9)).reason == "9 GPUs asked for, the host has 8"


def test_an_affinity_that_this_host_can_never_give() -> None:
    found = refused(DGX1, ResourceRequest(gpus=5, affinity=Affinity.NUMA))
    assert found.reason == "5 GPUs on one NUMA node: this host has no such set, the next smaller has 4"
    assert found.details == ("largest: GPUs 0-3",)


def test_the_node_and_the_job_that_are_in_the_way_are_named() -> None:
    found = refused(
        DGX1,
        ResourceRequest(gpus=4, affinity=Affinity.NUMA, priority=1000),
        Holder(job="16", priority=100, gpus=0b0000_0110),
        Holder(job="17", priority=1000, gpus=0b0011_0000),
        blocks=(Block(reason="unhealthy: Xid 79", gpus=0b0000_1000),),
    )
    assert found.reason == (
        "4 GPUs on one NUMA node: node 0 has 3 that can be freed, node 1 has 2: "
        "GPU 3 unhealthy: Xid 79, job 17 (priority 1000) holds 2"
    )
    assert found.details == (
        "node 0: 1 free, 2 more can be freed; GPU 3 unhealthy: Xid 79",
        "node 1: 2 free, 0 more can be freed; job 17 (priority 1000) holds 2",
    )


def test_a_protected_job_is_named_with_its_reason() -> None:
    found = refused(
        DGX1,
        ResourceRequest(gpus=8, priority=1000),
        Holder(job="5", priority=100, gpus=1, evictable=False, protection="protected for 40 s more"),
    )
    assert found.reason == (
        "8 GPUs: the host has 7 that can be freed: job 5 (protected for 40 s more) holds 1"
    )


def test_an_nvlink_ring_that_is_broken_says_how_much_is_left_of_it() -> None:
    found = refused(
        DGX1,
        ResourceRequest(gpus=4, affinity=Affinity.NVLINK, priority=500),
        Holder(job="9", priority=500, gpus=0b0111_0110),
    )
    assert found.reason.startswith(
        "4 GPUs in one NVLink ring: the largest such set that can be freed has 2: job 9"
    )


@pytest.mark.parametrize("policy", list(Policy))
def test_too_many_cpus_for_the_host(policy: Policy) -> None:
    found = refused(DGX1, ResourceRequest(gpus=1, cpus=17, policy=policy))
    assert found.reason == "17 CPUs asked for, the host has 16"


def test_cpus_on_a_host_that_tells_nothing_of_its_cpus() -> None:
    bare = make_host(nodes=[0, 0], nvlinks={}, know=frozenset())
    found = refused(bare, ResourceRequest(gpus=1, cpus=2))
    assert found.reason == "2 CPUs asked for, but nothing is known of this host's CPUs"


def test_the_numa_node_that_is_short_of_cpus_is_named() -> None:
    found = refused(
        DGX1,
        ResourceRequest(gpus=8, cpus=16, cpu_affinity=CpuAffinity.NUMA, priority=500),
        Holder(job="3", priority=500, cpus=CpuSet.parse("0-2")),
        Holder(job="4", priority=100, cpus=CpuSet.parse("8-9")),
    )
    assert found.reason == (
        "16 CPUs (CPU affinity numa): NUMA node 0 has 5 of 8 that can be freed: job 3 (priority 500) holds 3"
    )
    assert found.details == (
        "NUMA node 0: 5 CPUs free, 0 more can be freed",
        "NUMA node 1: 6 CPUs free, 2 more can be freed",
    )
