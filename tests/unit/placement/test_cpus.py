import pytest

from tests.oracles.random_hosts import make_host
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.request import CpuAffinity, ResourceRequest
from topod.placement.cpus import choose_cpus, pick
from topod.placement.demand import cpu_need


def tables(nodes: list[int | None], per_node: int = 16, group: int = 4) -> TopologyTables:
    return TopologyTables(make_host(nodes=nodes, nvlinks={}, cpus_per_node=per_node, threads=2, group=group))


def chosen(host: TopologyTables, gpus: int, cpus: int, level: CpuAffinity, pool: str) -> str:
    request = ResourceRequest(gpus=gpus.bit_count(), cpus=cpus, cpu_affinity=level)
    need = cpu_need(host, host.mix_of(gpus), request, level)
    assert need.met_by(CpuSet.parse(pool).mask)
    return str(CpuSet(choose_cpus(host, gpus, need, level, CpuSet.parse(pool).mask)))


@pytest.mark.parametrize(
    ("pool", "count", "expected"),
    [
        ("0-15", 4, "0-3"),  # a whole group
        ("2-15", 4, "4-7"),  # the lowest whole group, not the lowest CPUs
        ("2-15", 6, "2-7"),  # a whole group, and the core left over in the broken group
        ("2-15", 2, "2-3"),  # the group that is broken already
        ("1-15", 3, "1-3"),  # a whole core, then the thread of the core that is split already
        ("0-15", 3, "0-2"),  # one group: whole groups stay whole
        ("0,2,4-15", 1, "0"),  # a split core before a whole one
        ("0,2,4,6", 3, "0,2,4"),  # nothing whole is left
        ("0-1,4-7", 6, "0-1,4-7"),
        ("0-15", 16, "0-15"),
    ],
)
def test_whole_groups_then_whole_cores_then_threads(pool: str, count: int, expected: str) -> None:
    assert str(CpuSet(pick(tables([0]), CpuSet.parse(pool).mask, count))) == expected


def test_each_numa_node_gives_the_part_of_its_gpus() -> None:
    host = tables([0, 0, 0, 1])
    assert chosen(host, 0b1111, 8, CpuAffinity.NUMA, "0-31") == "0-5,16-17"


def test_the_node_that_is_short_gives_the_one_cpu_fewer() -> None:
    host = tables([0, 1])
    assert chosen(host, 0b11, 5, CpuAffinity.NUMA, "0-31") == "0-2,16-17"
    assert chosen(host, 0b11, 5, CpuAffinity.NUMA, "0-1,16-31") == "0-1,16-18"


def test_near_cpus_come_first_even_where_any_would_do() -> None:
    host = tables([0, 1])
    assert chosen(host, 0b10, 6, CpuAffinity.ANY, "0-15,28-31") == "0-1,28-31"


def test_a_job_without_gpus_keeps_to_as_few_numa_nodes_as_possible() -> None:
    host = tables([0, 1, 2])
    assert chosen(host, 0, 6, CpuAffinity.NUMA, "0-3,16-31,40-47") == "40-45"  # the tightest node that fits
    assert chosen(host, 0, 20, CpuAffinity.NUMA, "0-3,16-31,40-47") == "0-3,16-31"
