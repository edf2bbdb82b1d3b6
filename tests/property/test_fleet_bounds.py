"""The bounds by which a fleet orders its hosts: never above what the host's own planner finds, mostly equal."""

import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from tests.oracles.random_fleets import (
    NOW,
    Host,
    crossed,
    fleet_request,
    random_fleet,
    with_many_levels,
)
from topod.fleet.hosts import occupancy_at
from topod.fleet.pick.cost import FleetKey, choice, fleet_key, free_share
from topod.fleet.pick.kept import Kept
from topod.fleet.pick.levels import NEVER, Levels
from topod.fleet.pick.rows import KindRows, Priorities
from topod.fleet.pick.shape import Shapes
from topod.fleet.pick.victims import VictimBounds
from topod.model.plan import Plan
from topod.model.request import ResourceRequest
from topod.preemption.search import plan


def bounds_of(
    kind: KindRows, levels: Levels, request: ResourceRequest, *, spread: bool
) -> dict[int, FleetKey]:
    """Return the bound of each host (by row) that may have a plan."""
    rows = np.arange(kind.count)
    share = np.array([free_share(kind, row, request) for row in rows.tolist()]) if spread else None
    shape = Shapes(kind).of(request)
    bounds = VictimBounds(kind, shape, rows, share, levels=levels, now=NOW, kept=Kept(kind))
    found: dict[int, FleetKey] = {}
    last: FleetKey = ()
    while (tier := int(bounds.head.min())) != NEVER:
        bounds.look(tier)
        for key, row in bounds.in_order(tier):
            assert row not in found
            assert last <= key, "bounds come in order"
            found[row], last = key, key
    return found


def check(rng: random.Random, hosts: list[Host], kinds: Counter[str]) -> None:
    """Compare the bounds of all hosts with what their planners find."""
    priorities = Priorities()
    by_kind = {tables: KindRows(tables, priorities) for _, tables in hosts}
    for snapshot, tables in hosts:
        by_kind[tables].put(snapshot)
    for _ in range(4):
        request, spread = fleet_request(rng, hosts), rng.random() < 0.4
        levels = Levels(priorities, request.priority)
        for tables, kind in by_kind.items():
            bounds = bounds_of(kind, levels, request, spread=spread)
            for row, snapshot in enumerate(kind.snapshots):
                here = plan(tables, occupancy_at(snapshot, NOW), request)
                if not isinstance(here, Plan):
                    kinds["promised in vain" if row in bounds else "no plan"] += 1
                    continue
                key = fleet_key(choice(kind, row, here, request, spread=spread), request)
                assert row in bounds, (snapshot, request, here)
                assert bounds[row] <= key, (snapshot, request, bounds[row], key)
                kinds["equal" if bounds[row] == key else "below"] += 1


@pytest.mark.parametrize("part", range(6))
def test_no_plan_costs_less_than_its_bound(part: int) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(part * 60, part * 60 + 60):
        rng = random.Random(seed)
        hosts = random_fleet(rng)
        check(rng, with_many_levels(rng, hosts) if rng.random() < 0.1 else hosts, kinds)
    # Bounds that are never equal would be right and of no use.
    assert kinds["equal"] > 7 * (kinds["below"] + kinds["promised in vain"]), kinds
    assert kinds["no plan"] > 100, kinds


@pytest.mark.parametrize("part", range(2))
def test_no_plan_costs_less_where_jobs_give_cpus_to_several_nodes(part: int) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(part * 150, part * 150 + 150):
        rng = random.Random(seed)
        check(rng, [crossed(rng, f"host-{number}") for number in range(3)], kinds)
    assert kinds["equal"] > 3 * (kinds["below"] + kinds["promised in vain"]), kinds
    assert min(kinds["below"], kinds["no plan"]) > 50, kinds


def test_levels_tell_victims_and_heads_as_they_compare() -> None:
    priorities, rng = Priorities(), random.Random(1)
    for priority in rng.sample(range(0, 4000, 100), 30):
        priorities.number(priority)
    levels = Levels(priorities, 3500)
    assert levels.values == sorted(value for value in priorities.values if value < 3500)
    plans = []
    for _ in range(300):
        chosen = Counter(rng.choices(range(levels.count), k=rng.randint(0, 20)))
        words = sum((levels.weights[rank] * count for rank, count in chosen.items()), levels.weights[-1] * 0)
        victims = tuple((levels.values[rank], chosen[rank]) for rank in sorted(chosen, reverse=True))
        assert levels.victims(words.tolist()) == victims
        head = int(levels.heads([np.array([word]) for word in words], 1)[0])
        assert head == levels.head_of(victims)
        plans.append((victims, words.tolist(), head))
    for (a, a_words, a_head), (b, b_words, b_head) in combinations(plans, 2):
        assert (a < b) == (a_words < b_words)
        assert a_head <= b_head or a > b


def test_a_head_that_does_not_fit_counts_as_the_highest_that_does() -> None:
    priorities = Priorities()
    priorities.number(100)
    levels = Levels(priorities, 500)
    assert levels.head_of(((100, 9000),)) == levels.head_of(((100, 4095),)) > levels.head_of(((100, 4094),))
    assert levels.head_of(()) == 0
