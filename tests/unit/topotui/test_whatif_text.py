"""What the What-if screen makes of keys and of plans, as text."""

from typing import Any

import pytest

from tests.unit.topotui.hosts import hold, picture_of
from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.explaining import plan_data
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Holder, Occupancy
from topod.model.plan import Plan
from topod.model.request import Affinity, Policy
from topod.preemption.search import plan
from topod.protocol.replies import Planned
from topotui.blocks import Block, text_of
from topotui.whatif_text import alternative_of, head, marks_of, places_of, question, reasons
from topotui.wish import Wish, in_words, turned, typed


def lines_of(block: Block) -> list[str]:
    return text_of(block).plain.splitlines()


def planned_on_dgx1(wish: Wish) -> Planned:
    """Return topod's own answer on a DGX-1 where job 3 (low) has GPU 4 and job 2 (normal) has 0-3."""
    tables = TopologyTables(load_library_host("dgx1").topology)
    occupancy = Occupancy(
        holders=(Holder(job="2", priority=500, gpus=0b1111), Holder(job="3", priority=100, gpus=1 << 4))
    )
    found = plan(tables, occupancy, wish.request)
    assert isinstance(found, Plan)
    return Planned(feasible=True, plan=plan_data(tables, occupancy, wish.request, found))


WISH = Wish(gpus=4, affinity=Affinity.NVLINK_ALL, priority=1000, cpus=0)


def test_a_plan_says_what_it_takes_whom_it_stops_and_by_what_the_next_best_lost() -> None:
    planned = planned_on_dgx1(WISH)
    assert lines_of(head(planned, WISH, 78, at=0, other=False)) == [
        "! would start on 4 GPUs after stopping 1 job",
        "★ takes GPUs 4-7, the shared CPUs, affinity nvlink-all",
        "✗ stops job 3",
    ]
    told = lines_of(reasons(planned, 78, at=0))
    assert told[0] == "✗ job 3 (low): holds GPU 4, which the plan takes"
    assert told[2:5] == [
        "cost, in order  this plan                       next best",
        "▶ victims       1 of priority 100               1 of priority 500",
        "  affinity      as asked                        as asked",
    ]
    assert told[-1] == "▶ the next best loses by victims: n shows it"
    assert lines_of(head(planned, WISH, 78, at=0, other=True)) == [
        "the next best plan, which is not taken:",
        "★ takes GPUs 0-3, the shared CPUs, affinity nvlink-all",
        "✗ stops job 2",
    ]


def test_the_picture_marks_what_a_plan_takes_and_all_that_its_victims_lose() -> None:
    picture = picture_of("dgx1")
    hold(picture, 2, "train", [0, 1, 2, 3])
    hold(picture, 3, "eval", [4], priority=100)
    (plan,) = places_of(planned_on_dgx1(WISH))
    mine = marks_of(plan, picture.gpus.values())
    assert (sorted(mine.taken), sorted(mine.stopped)) == ([4, 5, 6, 7], [4])
    other = alternative_of(plan)
    assert other is not None
    theirs = marks_of({**other, "cpus": "3-4"}, picture.gpus.values())
    assert sorted(theirs.taken) == sorted(theirs.stopped) == [0, 1, 2, 3]
    assert theirs.cpus == CpuSet.parse("3-4")


def test_a_job_that_waits_says_why_in_full() -> None:
    planned = Planned(
        feasible=False, reason="4 GPUs: 2 can be freed", details=["node 0 has 2", "node 1 has 0"]
    )
    assert lines_of(head(planned, WISH, 78, at=0, other=False)) == [
        "… would wait",
        "because 4 GPUs: 2 can be freed",
    ]
    assert lines_of(reasons(planned, 78, at=0)) == ["node 0 has 2", "node 1 has 0"]


def test_a_plan_over_several_hosts_is_shown_host_by_host() -> None:
    one: dict[str, Any] = {"gpus": [0], "cpus": "", "victims": [7], "affinity": "any", "cost_text": []}
    plans = [{"host": "a", **one}, {"host": "b", **one, "victims": []}]
    next_host = {"host": "c", "gpus": [1], "in_place_of": "b", "decided_by": "names: a tie"}
    planned = Planned(feasible=True, plan={**plans[0], "next_host": next_host, "hosts": plans})
    wish = Wish(gpus=1, hosts=2)
    assert "  next host   c in place of b: GPU 1, stopping nobody" in lines_of(reasons(planned, 90, at=1))
    assert lines_of(head(planned, wish, 90, at=1, other=False)) == [
        "! would start on 1 GPU of each of 2 hosts after stopping 1 job",
        "★ takes GPU 0, the shared CPUs, affinity any on b, host 2 of 2 (o: the others)",
    ]
    assert "7 of a" in question(planned, wish, "train")


def test_before_a_submit_it_is_said_what_will_happen() -> None:
    stops = question(planned_on_dgx1(WISH), WISH, "python train.py")
    assert stops.splitlines()[:2] == [
        "Submit 4 GPUs, nvlink-all (guaranteed), priority high, 0 CPUs?",
        "It runs: python train.py",
    ]
    assert "As things are now it stops job 3:" in stops
    small = Wish(gpus=1)
    assert "starts at once and stops nobody" in question(planned_on_dgx1(small), small, "")
    waits = Planned(feasible=False, reason="no GPU is free")
    assert "It will wait: no GPU is free." in question(waits, small, "x")


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        ("gpus", 1, Wish(gpus=2)),
        ("gpus", -1, Wish(gpus=0)),
        ("affinity", 1, Wish(affinity=Affinity.SOCKET)),
        ("affinity", -1, Wish()),
        ("policy", 1, Wish(policy=Policy.BEST_EFFORT)),
        ("priority", 1, Wish(priority=1000)),
        ("priority", -1, Wish(priority=100)),
        ("cpus", 1, Wish(cpus=0)),
        ("cpus", -1, Wish()),
        ("hosts", -1, Wish()),
    ],
)
def test_a_choice_goes_a_step_further_or_back_and_stops_at_its_end(
    name: str, step: int, expected: Wish
) -> None:
    assert turned(Wish(), name, step, 8) == expected


def test_numbers_are_typed_digit_by_digit_and_gpus_stop_at_those_of_the_host() -> None:
    first = typed(Wish(), "priority", "7", more=False, most_gpus=8)
    assert typed(first, "priority", "5", more=True, most_gpus=8).priority == 75
    assert typed(Wish(), "cpus", "8", more=True, most_gpus=8).cpus == 8
    assert typed(Wish(gpus=1), "gpus", "6", more=True, most_gpus=8).gpus == 8
    assert typed(Wish(), "affinity", "6", more=False, most_gpus=8) == Wish()
    assert turned(Wish(cpus=0), "cpus", -1, 8).cpus == "auto"
    assert turned(Wish(priority=600), "priority", -1, 8).priority == 500
    assert in_words(Wish(gpus=8, hosts=2)) == "2 x 8 GPUs, any (guaranteed), priority normal"
    assert Wish(gpus=0).request.cpus == 0
