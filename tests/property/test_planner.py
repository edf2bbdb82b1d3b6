"""The planner against brute force: same feasibility, same cost key by key, same GPUs, same victims."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracles import brute_force
from tests.oracles.random_hosts import (
    alike_occupancy,
    full_occupancy,
    large_host,
    make_host,
    random_host,
    random_occupancy,
    random_request,
    with_gangs,
    with_rules,
)
from topod.flextopo.tables import TopologyTables
from topod.model.occupancy import Holder, Occupancy
from topod.model.plan import Plan, Refusal
from topod.model.request import CPU_LADDER, LADDER, Affinity, CpuAffinity, Policy, ResourceRequest
from topod.preemption.budgets import broken
from topod.preemption.costs import cost_key
from topod.preemption.explain import explain
from topod.preemption.search import plan

CASES_PER_HOST = 5


def check(
    tables: TopologyTables, oracle: brute_force.Host, occupancy: Occupancy, request: ResourceRequest
) -> str:
    """Compare one decision; returns what kind of case it was."""
    got = plan(tables, occupancy, request)
    want = brute_force.best(oracle, occupancy, request)
    if want is None:
        assert isinstance(got, Refusal), (occupancy, request, got)
        assert got.reason
        return "refused"
    assert isinstance(got, Plan), (occupancy, request, got, want)
    cost = got.cost
    assert want == brute_force.Best(
        key1=cost.victims,
        steps=(cost.affinity_steps, cost.cpu_affinity_steps),
        stranded=cost.stranded_gpus,
        work=cost.work_lost,
        links=(cost.weakest_link, cost.link_sum),
        left=cost.left,
        gpus=got.gpus,
        victims=got.victims,
    ), (occupancy, request)
    assert cost.gpus == got.gpus
    assert got.affinity == LADDER[LADDER.index(request.affinity) + cost.affinity_steps]
    assert got.cpu_affinity == CPU_LADDER[CPU_LADDER.index(request.cpu_affinity) + cost.cpu_affinity_steps]
    assert got.satisfied == (cost.affinity_steps == cost.cpu_affinity_steps == 0)
    check_cpus(oracle, occupancy, request, got)
    taken = sum(1 << i for i in got.gpus)
    extra = [h for h in occupancy.holders if h.job in got.victims and not h.gpus & taken]
    if any(h.gpus for h in extra):
        return "an extra victim with GPUs"
    return "an extra victim" if extra else "victims" if got.victims else "no victim"


def check_cpus(oracle: brute_force.Host, occupancy: Occupancy, request: ResourceRequest, got: Plan) -> None:
    """The CPUs are as many as asked for, nobody keeps them, and they lie where the achieved level says."""
    kept = {c for h in occupancy.holders if h.job not in got.victims for c in h.cpus}
    kept |= {c for block in occupancy.blocks for c in block.cpus}
    cpus = set(got.cpus)
    count = sum(oracle.share(i) for i in got.gpus) if request.cpus == "auto" else request.cpus
    assert len(cpus) == count
    assert cpus <= oracle.cpus - kept
    if request.gpus:
        assert oracle.cpus_fit(got.gpus, cpus, request, got.cpu_affinity.value)


@given(rng=st.randoms(use_true_random=False))
@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
def test_a_plan_is_of_least_cost_and_exists_exactly_when_one_is_feasible(rng: random.Random) -> None:
    topology = random_host(rng, largest=6)
    occupancy = random_occupancy(rng, topology, jobs=5)
    check(TopologyTables(topology), brute_force.Host(topology), occupancy, random_request(rng, topology))


@pytest.mark.parametrize("part", range(8))
def test_thousands_of_random_hosts_and_states_agree_with_brute_force(part: int) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(part * 200, part * 200 + 200):
        rng = random.Random(seed)
        topology = random_host(rng)
        tables, oracle = TopologyTables(topology), brute_force.Host(topology)
        for _ in range(CASES_PER_HOST):
            kinds[check(tables, oracle, random_occupancy(rng, topology), random_request(rng, topology))] += 1
    # The generator must keep reaching every kind of decision, else agreement means little.
    assert kinds.keys() == {
        "refused",
        "no victim",
        "victims",
        "an extra victim",
        "an extra victim with GPUs",
    }, kinds
    assert min(kinds.values()) >= 3, kinds


@pytest.mark.parametrize("part", range(2))
def test_jobs_over_several_hosts_count_as_a_whole(part: int) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(part * 200, part * 200 + 200):
        rng = random.Random(seed)
        topology = random_host(rng)
        tables, oracle = TopologyTables(topology), brute_force.Host(topology)
        for state in (random_occupancy, alike_occupancy):
            if state is alike_occupancy and not topology.cpus:
                continue
            occupancy = with_gangs(rng, state(rng, topology))
            if rng.random() < 0.3:
                occupancy = with_rules(rng, occupancy)
            kinds[check(tables, oracle, occupancy, random_request(rng, topology))] += 1
    assert min(kinds["victims"], kinds["an extra victim"], kinds["an extra victim with GPUs"]) >= 5, kinds


@pytest.mark.parametrize("part", range(4))
def test_plans_that_tie_in_all_but_the_last_keys_agree_with_brute_force(part: int) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(part * 50, part * 50 + 50):
        rng = random.Random(seed)
        topology = random_host(rng)
        tables, oracle = TopologyTables(topology), brute_force.Host(topology)
        for _ in range(2):
            request = ResourceRequest(
                gpus=rng.randint(0, min(len(topology.gpus), 5)),
                affinity=rng.choice(list(Affinity)),
                policy=rng.choice(list(Policy)),
                cpus=rng.randint(0, max(len(topology.cpus), 1)),
                cpu_affinity=rng.choice(list(CpuAffinity)),
                priority=1000,
            )
            kinds[check(tables, oracle, alike_occupancy(rng, topology), request)] += 1
    assert min(kinds["an extra victim"], kinds["an extra victim with GPUs"]) >= 8, kinds


@pytest.mark.parametrize("part", range(2))
def test_full_hosts_of_16_gpus_that_lack_cpus_agree_with_brute_force(part: int) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(part * 5, part * 5 + 5):
        rng = random.Random(seed)
        topology = large_host(rng)
        tables, oracle = TopologyTables(topology), brute_force.Host(topology)
        for _ in range(3):
            request = ResourceRequest(
                gpus=rng.choice([0, 1, 2, 4, 4, 8]),
                affinity=rng.choice([Affinity.ANY, Affinity.NUMA, Affinity.NVLINK_ALL]),
                policy=rng.choice(list(Policy)),
                cpus=rng.randint(4, 24),
                cpu_affinity=rng.choice(list(CpuAffinity)),
                priority=1000,
            )
            kinds[check(tables, oracle, full_occupancy(rng, topology), request)] += 1
    assert min(kinds["an extra victim"], kinds["an extra victim with GPUs"]) >= 2, kinds


def check_with_rules(
    tables: TopologyTables,
    oracle: brute_force.Host,
    occupancy: Occupancy,
    request: ResourceRequest,
    kinds: Counter[str],
) -> None:
    """Compare one decision under a site's rules, and count what they did to it."""
    bare = replace(occupancy, budgets=(), room=None, may_evict=True)
    kind = check(tables, oracle, occupancy, request)
    free, got = plan(tables, bare, request), plan(tables, occupancy, request)
    if free == got:
        kinds["as without rules"] += 1
    elif isinstance(got, Refusal):
        kinds["refused by a rule"] += 1
    else:
        kinds["a dearer plan"] += 1
        kinds[f"a dearer plan with {kind}"] += 1
    if isinstance(got, Plan):
        assert not broken(occupancy, got.victims)


@pytest.mark.parametrize("part", range(4))
def test_budgets_quotas_and_waits_are_kept_at_the_least_cost(part: int) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(part * 250, part * 250 + 250):
        rng = random.Random(seed)
        topology = random_host(rng)
        tables, oracle = TopologyTables(topology), brute_force.Host(topology)
        for make in (random_occupancy, alike_occupancy):
            request = random_request(rng, topology)
            if make is alike_occupancy:  # short of CPUs, so that further victims are needed
                request = replace(request, cpus=rng.randint(0, len(topology.cpus) or 1), priority=1000)
            check_with_rules(tables, oracle, with_rules(rng, make(rng, topology)), request, kinds)
    assert min(kinds["as without rules"], kinds["refused by a rule"]) >= 20, kinds
    for kind in ("victims", "an extra victim", "an extra victim with GPUs"):
        assert kinds[f"a dearer plan with {kind}"] >= 1, kinds


def test_budgets_are_kept_on_full_hosts_of_16_gpus_that_lack_cpus() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(12):
        rng = random.Random(seed)
        topology = large_host(rng)
        tables, oracle = TopologyTables(topology), brute_force.Host(topology)
        for _ in range(2):
            request = ResourceRequest(
                gpus=rng.choice([0, 1, 2, 4]),
                cpus=rng.randint(4, 20),
                cpu_affinity=rng.choice(list(CpuAffinity)),
                priority=1000,
            )
            check_with_rules(tables, oracle, with_rules(rng, full_occupancy(rng, topology)), request, kinds)
    assert min(kinds["a dearer plan"], kinds["as without rules"]) >= 2, kinds


def test_where_nothing_is_known_of_cpus_auto_asks_for_none() -> None:
    topology = make_host(nodes=[None] * 8, nvlinks={}, know=frozenset())
    tables, oracle = TopologyTables(topology), brute_force.Host(topology)
    holders = tuple(Holder(job=f"j{i}", priority=100, gpus=3 << 2 * i) for i in range(4))
    for policy in Policy:
        request = ResourceRequest(gpus=4, cpus="auto", policy=policy, priority=1000)
        assert check(tables, oracle, Occupancy(), request) == "no victim"
        assert check(tables, oracle, Occupancy(holders=holders), request) == "victims"


def test_the_alternative_of_an_explanation_is_never_cheaper_and_is_a_real_plan() -> None:
    with_victims = without = 0
    for seed in range(150):
        rng = random.Random(seed)
        topology = random_host(rng)
        tables = TopologyTables(topology)
        occupancy, request = random_occupancy(rng, topology), random_request(rng, topology)
        got = plan(tables, occupancy, request)
        if not isinstance(got, Plan):
            continue
        explanation = explain(tables, occupancy, request, got)
        assert [reason.job for reason in explanation.victims] == list(got.victims)
        assert bool(explanation.decided_by) == (explanation.alternative is not None)
        if explanation.alternative is not None:
            assert cost_key(explanation.alternative.cost, request) >= cost_key(got.cost, request)
            assert (explanation.alternative.victims, explanation.alternative.gpus) != (got.victims, got.gpus)
            with_victims += bool(got.victims)
            without += not got.victims
    assert with_victims > 10
    assert without > 10


def test_the_same_input_gives_the_same_plan() -> None:
    rng = random.Random(5)
    topology = random_host(rng)
    occupancy, request = random_occupancy(rng, topology), random_request(rng, topology)
    first = plan(TopologyTables(topology), occupancy, request)
    warm = TopologyTables(topology)
    for _ in range(3):
        assert plan(warm, occupancy, request) == first
