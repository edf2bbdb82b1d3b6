"""The best hosts together against brute force, where jobs over several hosts are among those to be stopped."""

import random
from collections import Counter
from functools import cache

import pytest

from tests.oracles import brute_together
from tests.oracles.brute_force import Host as Oracle
from tests.oracles.random_hosts import make_host
from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.fleet.pick.cost import Chosen
from topod.fleet.pick.fleet import Fleet
from topod.flextopo.tables import TopologyTables
from topod.model.occupancy import Block
from topod.model.request import Affinity, Policy, ResourceRequest

NOW = 1_790_000_000.0
GPUS = 4


@cache
def kind(number: int) -> tuple[TopologyTables, Oracle]:
    nvlinks = ({}, {(0, 1): 4, (2, 3): 4}, {(a, b): 2 for a in range(GPUS) for b in range(a)})[number]
    topology = make_host(nodes=[0, 0, 1, 1], nvlinks={(min(p), max(p)): n for p, n in nvlinks.items()})
    return TopologyTables(topology), Oracle(topology)


def random_members(rng: random.Random, names: list[str]) -> dict[str, list[HeldBy]]:
    """Return who holds what on each host: single jobs, and jobs over several, as a coordinator tells them."""
    free = {name: list(range(GPUS)) for name in names}
    held: dict[str, list[HeldBy]] = {name: [] for name in names}
    alike = rng.random() < 0.4
    for ident in range(1, rng.randint(1, 5) + 1):
        each = rng.choice([1, 2, 2, 4])
        fits = [name for name in names if len(free[name]) >= each]
        size = rng.choice([2, 2, 3])
        if len(fits) < 2:
            continue
        where, unseen = rng.sample(fits, min(size, len(fits))), rng.choice([0, 0, 0, 1])
        priority = 100 if alike else rng.choice([100, 100, 300])
        since = None if alike else rng.choice([None, NOW - 10, NOW - 100])
        movable = None if rng.random() < 0.1 else 0.0
        for name in where:
            gpus = sum(1 << free[name].pop(rng.randrange(len(free[name]))) for _ in range(each))
            held[name].append(
                HeldBy(
                    job=f"g{ident}",
                    gang=ident,
                    priority=priority,
                    gpus=gpus,
                    stops=len(where) + unseen,
                    elsewhere=(len(where) + unseen - 1) * each,
                    work_since=since,
                    work_gpus=(len(where) + unseen) * each,
                    evictable_from=movable,
                )
            )
    for name in names:
        while free[name] and rng.random() < 0.75:
            each = min(len(free[name]), rng.choice([1, 1, 2, 4]))
            held[name].append(
                HeldBy(
                    job=f"s{len(held[name])}",
                    priority=100 if alike else rng.choice([100, 100, 300, 500]),
                    gpus=sum(1 << free[name].pop() for _ in range(each)),
                    work_since=None if alike else rng.choice([None, NOW - 10, NOW - 50]),
                    work_gpus=each,
                    evictable_from=None if rng.random() < 0.1 else 0.0,
                )
            )
    return held


def random_case(rng: random.Random) -> tuple[list[tuple[HostSnapshot, int]], ResourceRequest, int]:
    names = [f"host-{number}" for number in range(rng.randint(2, 5))]
    members = random_members(rng, names)
    hosts = [
        (
            HostSnapshot(
                host=name,
                generation=1,
                holders=tuple(members[name]),
                blocks=(Block(reason="unhealthy", gpus=1 << rng.randrange(GPUS)),)
                if rng.random() < 0.1
                else (),
            ),
            rng.randrange(3),
        )
        for name in names
    ]
    request = ResourceRequest(
        gpus=rng.choice([1, 2, 2, 4]),
        affinity=rng.choice([Affinity.ANY, Affinity.NUMA, Affinity.NVLINK]),
        policy=rng.choice(list(Policy)),
        cpus=0,
        priority=rng.choice([300, 1000, 1000]),
    )
    return hosts, request, rng.choice([2, 2, 3])


def one_by_one(fleet: Fleet, request: ResourceRequest, wanted: int) -> list[Chosen]:
    chosen: list[Chosen] = []
    for _ in range(wanted):
        found = fleet.decide(request, NOW, exclude=[one.host for one in chosen])
        if isinstance(found, Chosen):
            chosen.append(found)
    return chosen


@pytest.mark.parametrize("part", range(2))
def test_the_hosts_of_a_job_are_those_that_cost_least_together(part: int) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(part * 600, part * 600 + 600):
        hosts, request, wanted = random_case(random.Random(seed))
        fleet = Fleet()
        for snapshot, number in hosts:
            fleet.put(snapshot, kind(number)[0])
        first = one_by_one(fleet, request, wanted)
        oracles = {snapshot.host: (snapshot, kind(number)[1]) for snapshot, number in hosts}
        least = brute_together.best([*oracles.values()], request, NOW, wanted)
        if least is None:
            assert len(first) < wanted, seed
            kinds["refused"] += 1
            continue
        assert len(first) == wanted, seed
        before = {snapshot.host: fleet.snapshot(snapshot.host) for snapshot, _ in hosts}
        got = fleet.together(request, NOW, first)
        price = brute_together.price([(*oracles[one.host], one.plan.gpus) for one in got], request, NOW)
        single = brute_together.price([(*oracles[one.host], one.plan.gpus) for one in first], request, NOW)
        assert price == least, (seed, single)
        assert len({one.host for one in got}) == wanted
        for one in got:
            gpus = sum(1 << i for i in one.plan.gpus)
            needed = {held.job for held in oracles[one.host][0].holders if held.gpus & gpus}
            assert needed <= set(one.plan.victims), (seed, one)
        assert before == {name: fleet.snapshot(name) for name in before}, seed
        kinds["better" if single != least else "the same"] += 1
    assert min(kinds["refused"], kinds["better"], kinds["the same"]) >= 20, kinds
