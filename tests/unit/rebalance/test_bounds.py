"""What the search for moves does where there is more to look at than it may."""

import pytest

from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.moves import Goal, Rebalance
from topod.model.occupancy import Budget, Holder, Occupancy
from topod.model.request import Affinity, CpuAffinity, ResourceRequest
from topod.placement.demand import CpuNeed
from topod.rebalance import outlook, search
from topod.rebalance.cpus import CpuParts, Wanted
from topod.rebalance.goals import closest_affinity, what_it_has
from topod.rebalance.movers import Scene

GOAL = Goal(affinity=Affinity.NVLINK_ALL)
TABLES = TopologyTables(load_library_host("dgx1").topology)
HOLDERS = tuple(Holder(job=f"j{i}", priority=100, gpus=1 << i) for i in (0, 1, 4, 5))
ASKS = {holder.job: ResourceRequest(gpus=1) for holder in HOLDERS}


def answer(goal: Goal = GOAL, **fields: object) -> Rebalance:
    return search.rebalance(TABLES, Occupancy(holders=HOLDERS, **fields), ASKS, goal)  # type: ignore[arg-type] # a test builder


def test_without_a_bound_the_answer_is_proven() -> None:
    found = answer()
    assert found.proven
    assert len(found.after.group) == 4
    assert found.cost.restarts == ((100, 2),)


def test_too_many_arrangements_are_cut_to_few_moves_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = outlook.Outlook
    asked: list[int | None] = []

    def choosy(scene: Scene) -> outlook.Outlook:
        asked.append(scene.goal.most)
        if scene.goal.most is None:
            raise outlook.TooManyError
        return whole(scene)

    monkeypatch.setattr(search, "Outlook", choosy)
    found = answer()
    assert asked == [None, 2]
    assert not found.proven
    assert len(found.after.group) == 4


def test_what_cannot_be_looked_at_at_all_moves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "PAIRS_MOST", 0)
    found = answer()
    assert not found.proven
    assert not found.moves
    assert found.after == found.before


def test_a_search_that_is_cut_off_gives_a_real_answer_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "POINTS_MOST", 4)
    holders = tuple(
        Holder(job=holder.job, priority=100, gpus=holder.gpus, budgets=("chat",)) for holder in HOLDERS
    )
    taken = Occupancy(holders=holders, budgets=(Budget(name="chat", stops=1),))
    found = search.rebalance(TABLES, taken, ASKS, GOAL)
    assert not found.proven
    assert len(found.moves) <= 1
    assert not {i for move in found.moves for i in move.gpus} & {0, 1, 4, 5}


def test_a_budget_bounds_how_many_move_together() -> None:
    holders = tuple(
        Holder(job=holder.job, priority=100, gpus=holder.gpus, budgets=("chat",)) for holder in HOLDERS
    )
    taken = Occupancy(holders=holders, budgets=(Budget(name="chat", stops=1),))
    found = search.rebalance(TABLES, taken, ASKS, GOAL)
    assert found.proven
    assert len(found.moves) == 1
    assert len(found.after.group) == 3


def test_jobs_share_cpus_where_the_first_choice_of_one_leaves_too_few_for_another() -> None:
    node = [domain.cpus for domain in TABLES.domains]
    both = node[0] | node[1]
    near = node[0].bit_count()
    anywhere = CpuNeed(total=near, fixed=((TABLES.cpus, near),))
    here = CpuNeed(total=near, fixed=((node[0], near),))
    jobs = [
        Wanted(gpus=1, need=anywhere, level=CpuAffinity.ANY),  # would like the CPUs beside GPU 0, too
        Wanted(gpus=2, need=here, level=CpuAffinity.NUMA),
    ]
    first, second = CpuParts(TABLES).assign(both, jobs)
    assert second == node[0]
    assert first == node[1]
    assert not CpuParts(TABLES).suffice(both & ~1, [anywhere, here])


def test_the_closest_level_of_a_host_is_what_groups_are_told_by() -> None:
    hosts = {"dgx1": Affinity.NVLINK, "rtx4090x8": None}
    for name, level in hosts.items():
        found = closest_affinity(TopologyTables(load_library_host(name).topology))
        assert found is level if level else found in (Affinity.PCIE, Affinity.NUMA)


def test_of_a_job_that_is_only_seen_nothing_is_taken_away() -> None:
    cpus = CpuSet(TABLES.domains[0].cpus & 0xFF)
    asked = what_it_has(TABLES, Holder(job="a", priority=100, gpus=0b11, cpus=cpus))
    assert (asked.gpus, asked.affinity, asked.cpus) == (2, Affinity.NVLINK_ALL, len(cpus))
    assert asked.cpu_affinity is CpuAffinity.NUMA
