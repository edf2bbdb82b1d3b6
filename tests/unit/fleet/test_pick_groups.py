"""What stays whole, as a change: it orders plans on one host as the planner does, and hosts as the fleet."""

import random
from dataclasses import replace

import pytest

from topod.discovery.library import load_library_host
from topod.fleet.kinds import Kinds, structure_key
from topod.fleet.pick.groups import all_codes, change, rank
from topod.flextopo.tables import TopologyTables
from topod.model.plan import Cost
from topod.model.request import Affinity, ResourceRequest
from topod.preemption.costs import cost_values

HOSTS = ("dgx1", "hgx-h100", "l40s-x8", "rtx4090x8", "dgx2", "one-gpu")
LEFT = ResourceRequest(gpus=2, affinity=Affinity.ANY)


@pytest.mark.parametrize("name", HOSTS)
def test_within_one_host_changes_order_as_the_planners_key_does(name: str) -> None:
    tables, rng = TopologyTables(load_library_host(name).topology), random.Random(name)
    for _ in range(6):
        before = rng.randrange(tables.all_gpus + 1)
        for _ in range(150):
            a, b = (rng.randrange(tables.all_gpus + 1) for _ in range(2))
            mine, other = (rank(change(tables, before, after)) for after in (a, b))
            host = [
                dict(cost_values(Cost(left=tables.left_profiles(after)), LEFT))["left"] for after in (a, b)
            ]
            assert (mine < other, mine == other) == (host[0] < host[1], host[0] == host[1])


@pytest.mark.parametrize("name", HOSTS)
def test_the_codes_of_the_arrays_tell_the_same_as_the_change_in_words(name: str) -> None:
    tables, rng = TopologyTables(load_library_host(name).topology), random.Random(name)
    codes = all_codes(tables)
    for _ in range(200):
        before, after = (rng.randrange(tables.all_gpus + 1) for _ in range(2))
        told = tuple(int(code[before] - code[after]) for code in codes)
        assert told == rank(change(tables, before, after))


def test_any_two_changes_compare_size_by_size_the_largest_first() -> None:
    rng = random.Random(2)
    sizes = range(20, 0, -1)
    for _ in range(3000):
        a, b = ([rng.choice([-1, 0, 1]) * (20 // size) for size in sizes] for _ in range(2))
        same = rng.randrange(20)
        b[:same] = a[:same]
        ranks = [
            rank(((), tuple((size, count) for size, count in zip(sizes, one, strict=True) if count), ()))
            for one in (a, b)
        ]
        assert (ranks[0] < ranks[1]) == (a > b)


def test_a_change_compares_as_the_groups_of_the_whole_fleet_do() -> None:
    names = ("dgx1", "hgx-h100", "rtx4090x8", "dgx2")
    every, rng = [TopologyTables(load_library_host(name).topology) for name in names], random.Random(4)

    def whole(free: list[int]) -> tuple[tuple[int, ...], ...]:
        found = [tables.left_profiles(mask) for tables, mask in zip(every, free, strict=True)]
        return tuple(
            tuple(sorted((size for one in found for size in one[at]), reverse=True)) for at in range(3)
        )

    for _ in range(400):
        free = [rng.randrange(tables.all_gpus + 1) for tables in every]
        choices = []
        for at, tables in enumerate(every):
            then = [*free[:at], free[at] & rng.randrange(tables.all_gpus + 1), *free[at + 1 :]]
            choices.append((rank(change(tables, free[at], then[at])), whole(then)))
        assert [one[1] for one in sorted(choices)] == sorted((one[1] for one in choices), reverse=True)


def test_hosts_that_differ_in_names_and_serial_numbers_only_share_their_tables() -> None:
    topology, kinds = load_library_host("hgx-h100").topology, Kinds()
    twin = replace(
        topology,
        name="node-17",
        gpus=tuple(
            replace(gpu, uuid=f"GPU-twin-{gpu.index}", pci_address=None, memory_bytes=1)
            for gpu in topology.gpus
        ),
        numa_nodes=tuple(replace(node, memory_bytes=7) for node in topology.numa_nodes),
        nics=(),
        nic_links=(),
    )
    assert kinds.tables(twin) is kinds.tables(topology)
    assert len(kinds) == 1


def test_hosts_whose_hardware_differs_do_not_share_them() -> None:
    topology = load_library_host("dgx1").topology
    nearer = replace(topology.gpus[0], numa_node=1)
    others = (
        replace(topology, gpus=(nearer, *topology.gpus[1:])),
        replace(topology, gpus=tuple(replace(gpu, name="other") for gpu in topology.gpus)),
        replace(topology, cores=()),
        replace(topology, sockets=()),
        load_library_host("hgx-h100").topology,
    )
    keys = {structure_key(one) for one in (topology, *others)}
    assert len(keys) == 1 + len(others)
