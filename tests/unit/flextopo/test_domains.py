from dataclasses import replace

from tests.oracles.random_hosts import make_host
from topod.flextopo.domains import cpu_domains, known_cpus
from topod.model.cpuset import CpuSet


def cpus(text: str) -> int:
    return CpuSet.parse(text).mask


def test_the_domain_of_a_gpu_is_its_numa_node() -> None:
    domains, places = cpu_domains(make_host(nodes=[0, 0, 1], nvlinks={}, cpus_per_node=8, nodes_per_socket=2))
    assert [(d.name, d.cpus, d.gpus) for d in domains] == [
        ("NUMA node 0", cpus("0-7"), 0b011),
        ("NUMA node 1", cpus("8-15"), 0b100),
    ]
    assert [place.domain for place in places] == [0, 0, 1]
    assert {place.socket for place in places} == {cpus("0-15")}


def test_the_fair_share_is_whole_cores() -> None:
    domains, _ = cpu_domains(make_host(nodes=[0, 0, 0], nvlinks={}, cpus_per_node=8, threads=2))
    assert domains[0].share == 2  # 8 / 3 = 2.67, in cores of two threads
    domains, _ = cpu_domains(make_host(nodes=[0, 0, 0], nvlinks={}, cpus_per_node=4, threads=2))
    assert domains[0].share == 1  # no whole core for each


def test_without_a_numa_node_the_cpus_that_a_source_names_are_the_domain() -> None:
    beside = [CpuSet.parse("0-3"), CpuSet.parse("0-3"), CpuSet.parse("4-7"), None]
    domains, places = cpu_domains(make_host(nodes=[None] * 4, nvlinks={}, gpu_cpus=list(beside)))
    assert [(d.name, d.cpus) for d in domains] == [
        ("the CPUs of GPU 0", cpus("0-3")),
        ("the CPUs of GPU 2", cpus("4-7")),
    ]
    assert [place.domain for place in places] == [0, 0, 1, None]


def test_cpu_sets_that_overlap_in_part_are_no_domain() -> None:
    beside = [CpuSet.parse("0-3"), CpuSet.parse("2-5"), CpuSet.parse("6-7")]
    _, places = cpu_domains(make_host(nodes=[None] * 3, nvlinks={}, gpu_cpus=list(beside)))
    assert [place.domain is None for place in places] == [True, True, False]


def test_a_host_known_from_a_matrix_alone_has_the_cpus_its_gpus_name() -> None:
    host = make_host(nodes=[0, 1], nvlinks={}, gpu_cpus=[CpuSet.parse("0-3"), CpuSet.parse("4-7")])
    bare = replace(host, numa_nodes=(), cores=(), core_groups=(), sockets=())
    assert known_cpus(bare) == cpus("0-7")
    assert [place.domain for place in cpu_domains(bare)[1]] == [0, 1]
