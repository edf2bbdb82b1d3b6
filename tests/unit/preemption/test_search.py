"""The cost order by example: what the planner takes, and what it would rather not."""

import pytest

from tests.oracles.random_hosts import CUBE_MESH, make_host
from topod.errors import DataError
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Block, Holder, Occupancy
from topod.model.plan import Plan
from topod.model.request import Affinity, CpuAffinity, Policy, ResourceRequest
from topod.model.topology import Topology
from topod.preemption.search import plan

BRIDGES = make_host(nodes=[0, 0, 0, 0], nvlinks={(0, 1): 4, (2, 3): 4})
DGX1 = make_host(nodes=[0, 0, 0, 0, 1, 1, 1, 1], nvlinks=CUBE_MESH)
TWO_NODES = make_host(nodes=[0, 0, 1, 1], nvlinks={}, cpus_per_node=8)


def job(
    name: str, *gpus: int, priority: int = 100, cpus: str = "", work: int = 0, evictable: bool = True
) -> Holder:
    return Holder(
        job=name,
        priority=priority,
        gpus=sum(1 << i for i in gpus),
        cpus=CpuSet.parse(cpus),
        work=work,
        evictable=evictable,
    )


def planned(
    topology: Topology,
    *holders: Holder,
    gpus: int,
    affinity: Affinity = Affinity.ANY,
    policy: Policy = Policy.GUARANTEED,
    cpus: int = 0,
    cpu_affinity: CpuAffinity = CpuAffinity.NUMA,
    blocks: tuple[Block, ...] = (),
    priority: int = 1000,
) -> Plan:
    request = ResourceRequest(
        gpus=gpus, affinity=affinity, policy=policy, cpus=cpus, cpu_affinity=cpu_affinity, priority=priority
    )
    found = plan(TopologyTables(topology), Occupancy(holders=holders, blocks=blocks), request)
    assert isinstance(found, Plan), found
    return found


def test_an_empty_dgx1_gives_four_gpus_with_the_best_links() -> None:
    found = planned(DGX1, gpus=4, affinity=Affinity.NVLINK)
    assert found.gpus == (0, 1, 2, 3)
    assert found.victims == ()
    assert found.satisfied


def test_a_single_gpu_job_takes_the_leftover_of_a_broken_pair() -> None:
    assert planned(BRIDGES, job("a", 2), gpus=1).gpus == (3,)


def test_a_job_that_does_not_care_breaks_no_pair() -> None:
    found = planned(BRIDGES, gpus=2)
    assert found.gpus == (0, 1)
    assert found.cost.left[0] == (2,)


def test_no_job_is_stopped_to_spare_jobs_of_a_lower_level() -> None:
    low = [job(f"low-{i}", i) for i in (0, 1)]
    found = planned(BRIDGES, *low, job("mid", 2, 3, priority=500), gpus=2, affinity=Affinity.NVLINK)
    assert found.victims == ("low-0", "low-1")  # two of 100 rather than one of 500


def test_within_a_level_the_fewest_containers_stop() -> None:
    found = planned(BRIDGES, job("a", 0), job("b", 1), job("c", 2, 3), gpus=2)
    assert found.victims == ("c",)


def test_best_effort_never_stops_one_more_container_for_affinitys_sake() -> None:
    holders = [job("a", 0), job("b", 1), job("c", 2)]
    found = planned(BRIDGES, *holders, gpus=2, affinity=Affinity.NVLINK, policy=Policy.BEST_EFFORT)
    assert len(found.victims) == 1
    assert found.gpus == (2, 3)  # among equals it takes the affinity
    without = planned(
        BRIDGES,
        job("a", 0),
        job("b", 2),
        gpus=2,
        affinity=Affinity.NVLINK,
        policy=Policy.BEST_EFFORT,
    )
    assert without.victims == ()
    assert (without.gpus, without.satisfied, without.affinity) == ((1, 3), False, Affinity.NUMA)
    assert without.cost.affinity_steps == 2


def test_guaranteed_stops_as_many_as_the_affinity_takes() -> None:
    found = planned(BRIDGES, job("a", 0), job("b", 2), gpus=2, affinity=Affinity.NVLINK)
    assert (found.gpus, found.victims) == ((0, 1), ("a",))


def test_a_victim_whose_gpus_are_all_used_is_preferred_to_one_that_strands_some() -> None:
    found = planned(BRIDGES, job("big", 0, 1, 2), job("small", 3), gpus=1)
    assert found.victims == ("small",)


def test_of_equal_victims_the_one_with_the_least_work_lost_goes() -> None:
    found = planned(BRIDGES, *[job(f"j{i}", i, work=work) for i, work in enumerate((9, 5, 7, 8))], gpus=1)
    assert (found.victims, found.cost.work_lost) == (("j1",), 5)


def test_jobs_of_the_same_priority_and_protected_jobs_are_never_victims() -> None:
    holders = [job("same", 0, priority=1000), job("kept", 1, evictable=False), job("low", 2, 3)]
    assert planned(BRIDGES, *holders, gpus=1).victims == ("low",)


def test_blocked_gpus_are_neither_taken_nor_counted_as_left() -> None:
    blocks = (Block(reason="unhealthy: Xid 79", gpus=0b0001),)
    found = planned(BRIDGES, gpus=1, blocks=blocks)
    assert found.gpus == (1,)  # the partner of the broken GPU
    assert found.cost.left[0] == (2,)


def test_a_gpu_that_is_blocked_and_held_frees_nothing_when_its_job_stops() -> None:
    blocks = (Block(reason="unhealthy: Xid 79", gpus=0b0001),)
    found = planned(BRIDGES, job("a", 0, 1), job("b", 2), job("c", 3), gpus=1, blocks=blocks)
    assert found.victims == ("b",)


def test_when_cpus_are_short_a_job_without_gpus_is_stopped_too() -> None:
    holders = [job("cpu-0", cpus="0-6"), job("cpu-1", cpus="8-14")]
    found = planned(TWO_NODES, *holders, gpus=1, cpus=4)
    assert (found.gpus, found.victims) == ((0,), ("cpu-0",))
    assert found.cpus <= CpuSet.parse("0-7")
    assert len(found.cpus) == 4


def test_a_gpu_job_that_is_stopped_for_its_cpus_strands_its_gpus() -> None:
    found = planned(
        TWO_NODES, job("gpu", 1, cpus="0-7"), gpus=1, cpus=2, blocks=(Block(reason="x", gpus=0b1110),)
    )
    assert found.victims == ("gpu",)
    assert found.cost.stranded_gpus == 1


def test_cpu_affinity_is_given_up_under_best_effort_before_a_further_job_stops() -> None:
    holders = [job("a", cpus="0-7"), job("b", cpus="8-11")]
    found = planned(TWO_NODES, *holders, gpus=4, cpus=4, policy=Policy.BEST_EFFORT)
    assert found.victims == ()
    assert found.cpu_affinity is CpuAffinity.SOCKET  # both sockets have GPUs of the job
    assert (found.cost.cpu_affinity_steps, found.satisfied) == (1, False)
    assert planned(TWO_NODES, *holders, gpus=4, cpus=4).victims == ("a",)


def test_a_job_for_cpus_only_takes_no_gpu_and_its_cost_has_no_gpu_keys() -> None:
    found = planned(TWO_NODES, job("a", 0, cpus="0-11"), gpus=0, cpus=8)
    assert (found.gpus, found.victims, len(found.cpus)) == ((), ("a",), 8)
    assert found.cost.left == ((), (), ())


def test_two_jobs_on_one_gpu_are_an_error_in_the_state() -> None:
    with pytest.raises(DataError, match="jobs a and b both hold GPU 1"):
        planned(BRIDGES, job("a", 0, 1), job("b", 1), gpus=1)
    with pytest.raises(DataError, match="jobs a and b both hold CPUs 3"):
        planned(BRIDGES, job("a", cpus="0-3"), job("b", cpus="3"), gpus=1)


def test_costs_that_do_not_fit_64_bits_are_still_compared_exactly() -> None:
    holders = [job(f"j{i}", i, work=10**30 - (i == 2)) for i in range(4)]
    assert planned(BRIDGES, *holders, gpus=1).victims == ("j2",)
    crowd = [job(f"c{i}", priority=i, cpus=str(i)) for i in range(8)]
    found = planned(TWO_NODES, *crowd, job("g", 0, priority=90, work=10**30), gpus=1, cpus=3)
    assert (found.gpus, found.victims) == ((2,), ())


def test_extra_victims_with_costs_beyond_64_bits_are_exact_too() -> None:
    crowd = [job(f"c{i}", priority=i, cpus=str(i), work=10**25) for i in range(16)]
    found = planned(TWO_NODES, *crowd, gpus=1, cpus=3)
    assert (found.gpus, found.victims) == ((0,), ("c0", "c1", "c2"))
