"""Random fleets for the property test of the fleet's decision."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from tests.oracles.random_hosts import (
    alike_occupancy,
    full_occupancy,
    large_host,
    make_host,
    random_host,
    random_occupancy,
    random_request,
    with_rules,
)
from topod.discovery.library import host_names, load_library_host
from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Holder, Occupancy
from topod.model.request import ResourceRequest
from topod.model.topology import Topology

NOW = 1_790_000_000.25
Host = tuple[HostSnapshot, TopologyTables]
ZONES = ("a", "b")


@cache
def library_tables(name: str) -> TopologyTables:
    return TopologyTables(load_library_host(name).topology)


def random_kind(rng: random.Random) -> TopologyTables:
    """Return a kind of host: of the library, small with few CPUs, or large."""
    chance = rng.random()
    if chance < 0.35:
        return library_tables(rng.choice(host_names()))
    return TopologyTables(large_host(rng) if chance < 0.4 else random_host(rng))


def held_by(rng: random.Random, holder: Holder) -> HeldBy:
    """Return a holder with moments about `NOW`: protections just over or not, work, a raised priority."""
    moments = (0.0, NOW - 0.5, NOW, NOW + 0.5, NOW + 90)
    return HeldBy(
        job=holder.job,
        priority=holder.priority,
        gpus=holder.gpus,
        cpus=holder.cpus,
        evictable_from=rng.choice([*moments, 0.0, 0.0, 0.0, 0.0]) if holder.evictable else None,
        protection="not preemptible" if not holder.evictable else "",
        work_since=rng.choice([None, NOW, NOW - 10, NOW - 10, NOW - 20.0625, NOW + 5]),
        work_gpus=holder.gpus.bit_count() + rng.choice([0, 0, 0, 0, 1]),
        budgets=holder.budgets,
        guard_priority=rng.choice([50, 300, 600, 2000]) if rng.random() < 0.1 else None,
        guarded_until=rng.choice(moments),
    )


def crowded(rng: random.Random, topology: Topology) -> Occupancy:
    """Return a state of a roomy host in which jobs hold most of the CPUs of some NUMA nodes."""
    pools = {node.id: list(node.cpus) for node in topology.numa_nodes if node.cpus}
    order = [gpu.index for gpu in topology.gpus]
    rng.shuffle(order)
    holders = []
    for number in range(rng.randint(1, 8)):
        gpus = [order.pop() for _ in range(min(len(order), rng.choice([0, 0, 1, 1, 2, 4])))]
        nodes = {topology.gpus[i].numa_node for i in gpus} & set(pools) or set(rng.choices([*pools]))
        cpus: list[int] = []
        for node in sorted(nodes, key=str):
            pool = pools[node] if node is not None else []
            cpus += [pool.pop() for _ in range(int(len(pool) * rng.choice([0.1, 0.3, 0.6, 0.9])))]
        if gpus or cpus:
            holders.append(
                Holder(
                    job=f"j{number}",
                    priority=rng.choice([100, 100, 300, 500, 1000]),
                    gpus=sum(1 << i for i in gpus),
                    cpus=CpuSet.of(cpus),
                    evictable=rng.random() < 0.9,
                )
            )
    return Occupancy(holders=tuple(holders))


def random_snapshot(
    rng: random.Random, host: str, tables: TopologyTables, *, generation: int
) -> HostSnapshot:
    topology, chance = tables.topology, rng.random()
    if chance < 0.08:
        state = Occupancy()
    elif chance < 0.3 and topology.numa_nodes:
        state = crowded(rng, topology)
    elif chance < 0.45 and topology.numa_nodes and tables.count > 1 and tables.cpus.bit_count() < 100:
        state = alike_occupancy(rng, topology)
    elif chance < 0.5 and tables.count == 16 and tables.cpus.bit_count() >= 48:
        state = full_occupancy(rng, topology)
    else:
        state = random_occupancy(rng, topology)
    if rng.random() < 0.3:
        state = with_rules(rng, state)
    return HostSnapshot(
        host=host,
        generation=generation,
        holders=tuple(held_by(rng, holder) for holder in state.holders),
        blocks=state.blocks,
        budgets=state.budgets,
        closed=rng.choice(["cordoned: fan", "drained"]) if rng.random() < 0.07 else None,
        labels={"zone": rng.choice(ZONES)} if rng.random() < 0.8 else {},
    )


def random_fleet(rng: random.Random, most: int = 12) -> list[Host]:
    """Return hosts of a few kinds; some are in the same state but for their names."""
    kinds = [random_kind(rng) for _ in range(rng.choice([1, 1, 2, 3]))]
    hosts: list[Host] = []
    for number in range(rng.randint(1, most)):
        tables = rng.choice(kinds)
        snapshot = random_snapshot(rng, f"host-{number}", tables, generation=number)
        if hosts and rng.random() < 0.15:
            twin, tables = rng.choice(hosts)
            snapshot = replace(twin, host=f"host-{number}", generation=number)
        hosts.append((snapshot, tables))
    return hosts


def fleet_request(rng: random.Random, hosts: Sequence[Host]) -> ResourceRequest:
    """Return a request; on roomy hosts sometimes for a good part of their CPUs."""
    tables = rng.choice(hosts)[1]
    request = random_request(rng, tables.topology)
    cpus = tables.cpus.bit_count()
    if cpus > 32 and rng.random() < 0.5:
        request = replace(request, cpus=rng.randrange(1, cpus))
    return request


def with_many_levels(rng: random.Random, hosts: list[Host]) -> list[Host]:
    """Return the hosts with dozens of different priorities."""
    return [
        (
            replace(
                snapshot,
                holders=tuple(replace(held, priority=rng.randrange(1, 400, 7)) for held in snapshot.holders),
            ),
            tables,
        )
        for snapshot, tables in hosts
    ]


def with_gangs(rng: random.Random, hosts: list[Host]) -> list[Host]:
    """Return the hosts with some of their jobs part of jobs over several hosts."""

    def part(held: HeldBy) -> HeldBy:
        size = rng.choice([1, 2, 2, 3, 250])
        lost = rng.choice([0, held.gpus.bit_count(), 9]) * (size - 1)
        return replace(held, stops=size, elsewhere=lost, work_gpus=held.work_gpus * size)

    return [
        (replace(snapshot, holders=tuple(part(held) for held in snapshot.holders)), tables)
        for snapshot, tables in hosts
    ]


@cache
def _narrow(nodes: int) -> TopologyTables:
    return TopologyTables(
        make_host(nodes=[i * nodes // 4 for i in range(4)], nvlinks={}, cpus_per_node=12 // nodes)
    )


def crossed(rng: random.Random, host: str) -> Host:
    """Return a small host without free CPUs; what jobs hold of them lies across its NUMA nodes or does not."""
    tables = _narrow(rng.choice([2, 4]))
    cpus = list(tables.topology.cpus)
    if rng.random() < 0.7:
        rng.shuffle(cpus)
    gpus = rng.sample(range(4), rng.randint(0, 3))
    holders: list[HeldBy] = []
    while cpus:
        mine = [cpus.pop() for _ in range(min(len(cpus), rng.choice([1, 1, 2, 3, 4])))]
        mask = 1 << gpus.pop() if gpus and rng.random() < 0.6 else 0
        holders.append(
            HeldBy(
                job=f"j{len(holders)}",
                priority=rng.choice([100, 100, 300]),
                gpus=mask,
                work_gpus=mask.bit_count(),
                cpus=CpuSet.of(mine),
                evictable_from=0.0 if rng.random() < 0.9 else None,
                work_since=rng.choice([None, NOW - 10, NOW - 20]),
            )
        )
    kept = rng.choice([0, 0, 1, 2])
    return HostSnapshot(host=host, generation=1, holders=tuple(holders[kept:])), tables
