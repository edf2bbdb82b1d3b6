"""The search for moves against brute force: the same goal reached at the same cost, by the same moves."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from tests.oracles import brute_moves
from tests.oracles.brute_force import Host
from tests.oracles.random_hosts import make_host, random_host, random_occupancy
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.links import LinkClass
from topod.model.moves import Goal, Rebalance
from topod.model.occupancy import Budget, Holder, Occupancy
from topod.model.request import CPU_LADDER, LADDER, Affinity, CpuAffinity, Policy, ResourceRequest
from topod.model.topology import Topology
from topod.placement.cpus import choose_cpus
from topod.placement.demand import cpu_levels, cpu_need
from topod.rebalance.search import rebalance


def requests_of(
    rng: random.Random, tables: TopologyTables, occupancy: Occupancy
) -> tuple[Occupancy, dict[str, ResourceRequest]]:
    """Give most holders a request that they may have made, and CPUs as such a request gets them."""
    requests: dict[str, ResourceRequest] = {}
    holders: list[Holder] = []
    pool = tables.cpus & ~sum(block.cpus.mask for block in occupancy.blocks[:1])
    for block in occupancy.blocks:
        pool &= ~block.cpus.mask
    for holder in occupancy.holders:
        gpus = holder.gpus.bit_count()
        policy = rng.choice(list(Policy))
        met = [level for level in LADDER if tables.satisfies(level)[holder.gpus]]
        request = ResourceRequest(
            gpus=gpus,
            affinity=rng.choice([Affinity.ANY, *(met if policy is Policy.GUARANTEED else LADDER)]),
            policy=policy,
            cpus=rng.choice([0, 0, 1, 2, 3, "auto"]) if gpus else len(holder.cpus),
            cpu_affinity=rng.choice(list(CpuAffinity)),
            priority=holder.priority,
        )
        cpus = holder.cpus.mask & pool if not gpus else 0
        for level in cpu_levels(request) if gpus else ():
            need = cpu_need(tables, tables.mix_of(holder.gpus), request, level)
            if need.met_by(pool):
                cpus = choose_cpus(tables, holder.gpus, need, level, pool)
                break
        else:
            request = replace(request, cpus=cpus.bit_count())
        pool &= ~cpus
        if gpus or cpus:
            holders.append(replace(holder, cpus=CpuSet(cpus)))
            if rng.random() < 0.9:
                requests[holder.job] = request
    return replace(occupancy, holders=tuple(holders)), requests


def random_goal(rng: random.Random, topology: Topology) -> Goal:
    goal = Goal(
        affinity=rng.choice([Affinity.NVLINK, Affinity.NVLINK_ALL, Affinity.NUMA, *Affinity]),
        gpus=rng.choice([None, None, None, 3, 4]),
        below=rng.choice([200, 1000, 1000, 1000, 1000, 1000]),
        most=rng.choice([None, None, None, None, 1, 2]),
    )
    if rng.random() < 0.4:
        ask = ResourceRequest(
            gpus=rng.randint(0, min(4, len(topology.gpus))),
            affinity=goal.affinity,
            policy=rng.choice(list(Policy)),
            cpus=rng.choice([0, 0, 2, 4, "auto"]),
            cpu_affinity=rng.choice(list(CpuAffinity)),
            priority=1000,
        )
        return replace(goal, ask=ask, gpus=None)
    return goal


def check(
    tables: TopologyTables,
    oracle: Host,
    occupancy: Occupancy,
    requests: dict[str, ResourceRequest],
    goal: Goal,
) -> str:
    got = rebalance(tables, occupancy, requests, goal)
    want = brute_moves.best(oracle, occupancy, requests, goal)
    case = (occupancy, requests, goal)
    assert got.proven, case
    if want is None:
        assert not got.reached, case
        assert not got.moves, case
        return "no way"
    wanted = oracle.n if goal.gpus is None else goal.gpus
    assert want == brute_moves.Best(
        missed=0 if goal.ask is not None else max(0, wanted - len(got.after.group)),
        restarts=got.cost.restarts,
        lost=(got.cost.affinity_lost, got.cost.cpu_affinity_lost),
        work=got.cost.work_lost,
        links=got.cost.links_lost,
        left=got.after.left,
        places=tuple((move.job, move.gpus) for move in got.moves),
        ask=got.ask_gpus,
    ) or not_searched(want, got, goal), case
    check_moves(oracle, occupancy, requests, goal, got)
    return f"{min(3, len(got.moves))} moves"


def not_searched(want: brute_moves.Best, got: Rebalance, goal: Goal) -> bool:
    """What is as good as it can be is left alone, whatever else could be said of it."""
    return goal.ask is None and not want.places and not got.moves


def check_moves(
    oracle: Host,
    occupancy: Occupancy,
    requests: dict[str, ResourceRequest],
    goal: Goal,
    got: Rebalance,
) -> None:
    """Nobody shares a GPU or a CPU afterwards, and each moved job has what it asked for."""
    moved = {move.job: move for move in got.moves}
    gpus = Counter(i for block in occupancy.blocks for i in brute_moves.indices(block.gpus))
    cpus = Counter(c for block in occupancy.blocks for c in set(block.cpus))
    gpus, cpus = Counter(dict.fromkeys(gpus, 1)), Counter(dict.fromkeys(cpus, 1))
    blocked, kept_back = set(gpus), set(cpus)
    gpus.clear()
    cpus.clear()
    for holder in occupancy.holders:
        move = moved.get(holder.job)
        gpus.update(move.gpus if move else brute_moves.indices(holder.gpus))
        cpus.update(set(move.cpus) if move else set(holder.cpus))
        if move is not None:
            request = requests[holder.job]
            assert not set(move.gpus) & blocked
            assert not set(move.cpus) & kept_back
            assert (move.gpus, move.cpus) != (brute_moves.indices(holder.gpus), holder.cpus)
            assert oracle.satisfies(move.gpus, move.affinity.value)
            if request.policy is Policy.GUARANTEED:
                assert move.affinity is request.affinity
                assert move.cpu_affinity is request.cpu_affinity
            count = sum(oracle.share(i) for i in move.gpus) if request.cpus == "auto" else request.cpus
            assert len(move.cpus) == count
            if move.gpus:
                assert oracle.cpus_fit(move.gpus, set(move.cpus), request, move.cpu_affinity.value)
            assert CPU_LADDER.index(move.cpu_affinity) >= CPU_LADDER.index(request.cpu_affinity)
    gpus.update(got.ask_gpus)
    cpus.update(set(got.ask_cpus))
    assert set(gpus.values()) <= {1}
    assert set(cpus.values()) <= {1}
    if goal.ask is not None and got.reached and goal.ask.gpus:
        assert any(
            oracle.cpus_fit(got.ask_gpus, set(got.ask_cpus), goal.ask, level.value)
            for level in cpu_levels(goal.ask)
        )


def scattered(rng: random.Random) -> tuple[Topology, Occupancy]:
    """A host of islands with small jobs all over it, so that moving some of them helps."""
    count = rng.choice([5, 6, 7, 8])
    size = rng.choice([2, 3, 3, 4, 4])
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    topology = make_host(
        nodes=[i // size for i in range(count)],
        nvlinks={pair: 2 for pair in pairs if pair[0] // size == pair[1] // size and rng.random() < 0.9},
        pcie={pair: LinkClass.PIX for pair in pairs if rng.random() < 0.2},
        cpus_per_node=rng.choice([4, 6, 8]),
        nodes_per_socket=rng.choice([1, 2]),
    )
    order = sorted(range(count), key=lambda i: (rng.random() < 0.2, i % size, rng.random()), reverse=True)
    holders: list[Holder] = []
    free = rng.randint(3, count - 1)
    while len(order) > free and len(holders) < 4:
        gpus = [order.pop() for _ in range(min(len(order) - free, rng.choice([1, 1, 1, 1, 2])))]
        holders.append(
            Holder(
                job=f"g{len(holders)}",
                priority=rng.choice([100, 100, 500]),
                gpus=sum(1 << i for i in gpus),
                evictable=rng.random() < 0.95,
                work=rng.choice([0, 5, 10**6]),
            )
        )
    if rng.random() < 0.5:
        cpus = list(topology.cpus)
        if rng.random() < 0.5:
            rng.shuffle(cpus)
        for number in range(rng.randint(1, 2)):
            taken = [cpus.pop() for _ in range(min(len(cpus), rng.randint(1, 4)))]
            holders.append(Holder(job=f"c{number}", priority=100, cpus=CpuSet.of(taken)))
    return topology, Occupancy(holders=tuple(holders))


@pytest.mark.parametrize("part", range(4))
def test_moves_on_random_hosts_agree_with_brute_force(part: int) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(part * 400, part * 400 + 400):
        rng = random.Random(seed)
        if rng.random() < 0.3:
            topology = random_host(rng, largest=6)
            occupancy = random_occupancy(rng, topology, jobs=4)
        else:
            topology, occupancy = scattered(rng)
        tables, oracle = TopologyTables(topology), Host(topology)
        occupancy, requests = requests_of(rng, tables, occupancy)
        if rng.random() < 0.3:
            occupancy = replace(
                occupancy,
                holders=tuple(
                    replace(holder, budgets=("chat",)) if rng.random() < 0.6 else holder
                    for holder in occupancy.holders
                ),
                budgets=(Budget(name="chat", stops=rng.randint(0, 2)),),
            )
        kinds[check(tables, oracle, occupancy, requests, random_goal(rng, topology))] += 1
    # The generator must keep reaching every kind of answer, else agreement means little.
    assert min(kinds[kind] for kind in ("no way", "0 moves", "1 moves", "2 moves")) >= 4, kinds
