"""The fleet's decision against every host's own planner: same host, same plan, same refusals."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracles import brute_fleet
from tests.oracles.random_fleets import (
    NOW,
    ZONES,
    Host,
    crossed,
    fleet_request,
    library_tables,
    random_fleet,
    random_snapshot,
    with_gangs,
    with_many_levels,
)
from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.fleet.pick import free, victims
from topod.fleet.pick.cost import Chosen, fleet_key, why_better
from topod.fleet.pick.fleet import Fleet
from topod.fleet.select import EVERYWHERE, Selector
from topod.model.cpuset import CpuSet
from topod.model.plan import Refusal
from topod.model.request import ResourceRequest

DECISIONS = 6


def random_selector(rng: random.Random, hosts: list[Host]) -> Selector:
    if rng.random() < 0.6:
        return EVERYWHERE
    names = frozenset(snapshot.host for snapshot, _ in hosts if rng.random() < 0.7)
    return Selector(
        labels={"zone": rng.choice(ZONES)} if rng.random() < 0.5 else {},
        gpu_model=rng.choice(["", "", "*h100*", "NVIDIA*", "*"]),
        hosts=names if rng.random() < 0.3 else None,
    )


def taken(hosts: list[Host], selector: Selector, exclude: frozenset[str]) -> list[Host]:
    return [
        (snapshot, tables)
        for snapshot, tables in hosts
        if snapshot.closed is None
        and snapshot.host not in exclude
        and all(snapshot.labels.get(key) == value for key, value in selector.labels.items())
        and (selector.hosts is None or snapshot.host in selector.hosts)
        and selector.takes_kind(tables.topology)
    ]


def check(rng: random.Random, fleet: Fleet, hosts: list[Host], request: ResourceRequest) -> str:
    """Compare one decision; returns what kind of case it was."""
    spread, may_evict = rng.random() < 0.4, rng.random() < 0.9
    selector = random_selector(rng, hosts)
    exclude = frozenset(snapshot.host for snapshot, _ in hosts if rng.random() < 0.05)
    got = fleet.decide(request, NOW, selector=selector, spread=spread, may_evict=may_evict, exclude=exclude)
    candidates = taken(hosts, selector, exclude)
    want = brute_fleet.best(candidates, request, NOW, spread=spread, may_evict=may_evict)
    case = (hosts, request, selector, exclude, spread, may_evict)
    if spread and may_evict and not exclude:  # as often as is worth its time
        assert fleet.room(request, selector=selector) == brute_fleet.room(candidates, request, NOW), case
    if want is None:
        assert isinstance(got, Refusal), (case, got)
        assert got.reason
        assert len(got.details) <= 9
        return "refused"
    assert isinstance(got, Chosen), (case, got)
    assert (got.host, got.plan) == (want.host, want.plan), (case, got, want)
    snapshot, _ = next(host for host in hosts if host[0].host == got.host)
    assert got.generation == snapshot.generation
    taken_gpus = sum(1 << i for i in got.plan.gpus)
    further = [h for h in snapshot.holders if h.job in got.plan.victims and not h.gpus & taken_gpus]
    return "further victims" if further else "victims" if got.plan.victims else "no victim"


def change(rng: random.Random, fleet: Fleet, hosts: list[Host], generation: int) -> None:
    """Change a host, remove one or add one, in the fleet and in the list."""
    at = rng.randrange(len(hosts))
    old, tables = hosts[at]
    if rng.random() < 0.2 and len(hosts) > 1:
        fleet.remove(old.host)
        del hosts[at]
        return
    name = f"more-{generation}" if rng.random() < 0.2 else old.host
    other = rng.choice(hosts)[1] if rng.random() < 0.1 else tables  # a host may come back as another kind
    snapshot = random_snapshot(rng, name, other, generation=generation)
    fleet.put(snapshot, other)
    hosts[:] = [host for host in hosts if host[0].host != name] + [(snapshot, other)]


def run(rng: random.Random, kinds: Counter[str]) -> None:
    hosts = random_fleet(rng, most=rng.choice([8, 12, 40]))
    if rng.random() < 0.1:
        hosts = with_many_levels(rng, hosts)
    if rng.random() < 0.3:
        hosts = with_gangs(rng, hosts)
    fleet = Fleet()
    for snapshot, tables in hosts:
        fleet.put(snapshot, tables)
    requests = [fleet_request(rng, hosts) for _ in range(3)]
    for number in range(DECISIONS):
        # One that came before is answered from what is remembered of the hosts that did not change.
        request = rng.choice(requests) if rng.random() < 0.3 else fleet_request(rng, hosts)
        kinds[check(rng, fleet, hosts, request)] += 1
        if rng.random() < 0.5:
            change(rng, fleet, hosts, 100 + number)


@given(rng=st.randoms(use_true_random=False))
@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
def test_the_host_and_the_plan_are_those_of_least_cost(rng: random.Random) -> None:
    run(rng, Counter())


@pytest.mark.parametrize("part", range(8))
def test_thousands_of_decisions_agree_with_asking_every_host(part: int) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(part * 100, part * 100 + 100):
        run(random.Random(seed), kinds)
    # The generator must keep reaching every kind of decision, else agreement means little.
    assert kinds.keys() == {"refused", "no victim", "victims", "further victims"}, kinds
    assert min(kinds.values()) >= 4, kinds


def test_what_is_remembered_of_hosts_outlives_neither_their_change_nor_its_moment() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        hosts = random_fleet(rng, most=40)
        fleet = Fleet()
        for snapshot, tables in hosts:
            fleet.put(snapshot, tables)
        requests = [fleet_request(rng, hosts) for _ in range(3)]
        now = NOW - 20
        for number in range(40):
            # Jobs lose their protection, others get it, and clocks are set back.
            now += rng.choice([0.0, 0.0, 0.25, 0.5, 5.0, 30.0, -3.0])
            request, spread = rng.choice(requests), rng.random() < 0.5
            fresh = Fleet()
            for snapshot, tables in hosts:
                fresh.put(snapshot, tables)
            got, want = (one.decide(request, now, spread=spread) for one in (fleet, fresh))
            assert got == want, (seed, number)
            for _ in range(rng.choice([0, 0, 1, 2])):
                change(rng, fleet, hosts, 1000 * number)


@pytest.mark.parametrize("part", range(2))
def test_fleets_looked_at_in_small_parts_get_the_same_answers(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free, "_PAIRS", 150)
    monkeypatch.setattr(victims, "_CELLS", 300)
    for seed in range(1000 + part * 60, 1060 + part * 60):
        run(random.Random(seed), Counter())


def test_hosts_whose_bounds_promise_too_much_are_looked_at_until_none_can_win() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(300):
        rng = random.Random(seed)
        hosts = [crossed(rng, f"host-{number}") for number in range(10)]
        fleet = Fleet()
        for snapshot, tables in hosts:
            fleet.put(snapshot, tables)
        for _ in range(4):
            kinds[check(rng, fleet, hosts, fleet_request(rng, hosts))] += 1
    assert kinds["further victims"] > 100, kinds


def test_the_key_orders_choices_as_brute_force_does() -> None:
    pairs = 0
    for seed in range(100):
        rng = random.Random(seed)
        hosts = [(replace(snapshot, closed=None), tables) for snapshot, tables in random_fleet(rng)]
        request, spread = fleet_request(rng, hosts), rng.random() < 0.5
        found = []
        for snapshot, tables in hosts:
            fleet = Fleet()
            fleet.put(snapshot, tables)
            chosen = fleet.decide(request, NOW, spread=spread)
            if isinstance(chosen, Chosen):
                key = brute_fleet.key(tables, snapshot, request, chosen.plan, spread=spread)
                found.append((chosen, key))
        by_key = sorted(found, key=lambda one: fleet_key(one[0], request))
        assert all(why_better(a, b, request) for (a, _), (b, _) in pairwise(by_key))
        assert [one[1] for one in by_key] == sorted(one[1] for one in found)
        pairs += len(found) // 2
    assert pairs > 100


def test_a_clock_that_is_set_back_finds_no_bounds_of_later() -> None:
    tables = library_tables("hgx-h100")

    def full(host: str, *, since: float, gpus: int) -> HostSnapshot:
        held = HeldBy(
            job=f"on {host}",
            priority=100,
            gpus=tables.all_gpus,
            cpus=CpuSet(0),
            evictable_from=0.0,
            work_since=since,
            work_gpus=gpus,
        )
        return HostSnapshot(host=host, generation=1, holders=(held,))

    fleet, request = Fleet(), ResourceRequest(gpus=8, priority=1000)
    fleet.put(full("fast", since=1000.0, gpus=8), tables)
    fleet.put(full("slow", since=500.0, gpus=1), tables)
    chosen = [fleet.decide(request, now) for now in (1100.0, 1050.0)]
    assert [one.host for one in chosen if isinstance(one, Chosen)] == ["slow", "fast"]
