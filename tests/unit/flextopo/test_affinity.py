from itertools import combinations, permutations

import numpy as np
import pytest

from tests.oracles.random_hosts import CUBE_MESH, make_host
from topod.errors import DataError
from topod.flextopo.affinity import ring_table
from topod.flextopo.tables import TopologyTables
from topod.model.links import LinkClass
from topod.model.request import Affinity
from topod.model.topology import Topology


def dgx1() -> Topology:
    return make_host(nodes=[0, 0, 0, 0, 1, 1, 1, 1], nvlinks=CUBE_MESH)


def mask(*gpus: int) -> int:
    return sum(1 << i for i in gpus)


def test_all_gpus_of_a_dgx1_form_an_nvlink_ring_though_gpu0_and_gpu5_have_no_link() -> None:
    tables = TopologyTables(dgx1())
    assert (0, 5) not in CUBE_MESH
    assert tables.satisfies(Affinity.NVLINK)[mask(*range(8))]
    assert not tables.satisfies(Affinity.NVLINK)[mask(0, 5)]
    assert not tables.satisfies(Affinity.NVLINK_ALL)[mask(*range(8))]


def test_levels_are_not_nested() -> None:
    tables = TopologyTables(dgx1())
    everything = mask(*range(8))
    assert tables.satisfies(Affinity.NVLINK)[everything]
    assert not tables.satisfies(Affinity.PCIE)[everything]
    # Asked for `nvlink-all`, the set misses one step only; asked for `pcie`, it falls all the way to `any`.
    assert tables.steps(Affinity.NVLINK_ALL)[everything] == 1
    assert tables.steps(Affinity.PCIE)[everything] == 3


@pytest.mark.parametrize("level", list(Affinity))
def test_no_gpu_and_one_gpu_satisfy_every_level(level: Affinity) -> None:
    table = TopologyTables(make_host(nodes=[None, 0, 1], nvlinks={})).satisfies(level)
    assert all(table[m] for m in (0, 1, 2, 4))


@pytest.mark.parametrize("seed", range(30))
def test_rings_are_found_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 7))
    linked = {pair for pair in combinations(range(count), 2) if rng.random() < rng.random()}
    near = [sum(1 << j for j in range(count) if (min(i, j), max(i, j)) in linked) for i in range(count)]
    table = ring_table(near)
    for size in range(3, count + 1):
        for gpus in combinations(range(count), size):
            ring = any(
                all(
                    (min(a, b), max(a, b)) in linked
                    for a, b in zip(order, order[1:] + order[:1], strict=True)
                )
                for order in permutations(gpus)
            )
            assert table[mask(*gpus)] == ring, (linked, gpus)


def test_where_a_numa_node_is_unknown_pairs_decide() -> None:
    host = make_host(nodes=[None, 0, 1], nvlinks={}, pcie={(0, 1): LinkClass.NODE, (0, 2): LinkClass.SYS})
    numa = TopologyTables(host).satisfies(Affinity.NUMA)
    assert numa[mask(0, 1)]
    assert not numa[mask(0, 2)]
    assert not numa[mask(1, 2)]


def test_sockets_join_numa_nodes_and_without_them_no_pair_may_be_sys() -> None:
    nodes: list[int | None] = [0, 1, 2, 3]
    known = TopologyTables(make_host(nodes=nodes, nvlinks={}, nodes_per_socket=2))
    assert known.satisfies(Affinity.SOCKET)[mask(0, 1)]  # SYS by the matrix, yet one socket
    assert not known.satisfies(Affinity.SOCKET)[mask(1, 2)]
    unknown = TopologyTables(make_host(nodes=nodes, nvlinks={}, know=frozenset({"nodes"})))
    assert not unknown.satisfies(Affinity.SOCKET)[mask(0, 1)]


def test_link_quality_is_the_weakest_pair_and_the_sum() -> None:
    tables = TopologyTables(make_host(nodes=[0, 0, 1], nvlinks={(0, 1): 4}))
    assert tables.link_quality(mask(0, 1)) == (400, 400)
    assert tables.link_quality(mask(0, 1, 2)) == (10, 420)
    assert tables.link_quality(mask(2)) == (0, 0)


def test_a_family_comes_in_the_order_of_its_sorted_indices() -> None:
    tables = TopologyTables(make_host(nodes=[0] * 6, nvlinks={}))
    family = tables.family(3, Affinity.ANY, strict=False)
    assert family.masks.tolist() == [mask(*gpus) for gpus in combinations(range(6), 3)]


def test_a_host_of_more_than_20_gpus_is_refused_with_a_clear_error() -> None:
    TopologyTables(make_host(nodes=[0] * 20, nvlinks={}))
    with pytest.raises(DataError, match="21 GPUs; the planner handles hosts of up to 20"):
        TopologyTables(make_host(nodes=[0] * 21, nvlinks={}))
