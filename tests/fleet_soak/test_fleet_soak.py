"""Some seconds of the soak of a real fleet: links cut, processes killed and stopped, jobs of all kinds meanwhile."""

from pathlib import Path

from tests.cut_fleet import Witness
from tests.fleet_soak.__main__ import soak
from tests.fleet_soak.schedule import schedule
from tests.fleet_soak.stage import Books
from tests.fleet_soak.verdict import at_once, overlaps
from tests.short_terms import AWAY_SECONDS

SEED = 6
SECONDS = 9.0
HOSTS = ("a", "b", "c")


def test_the_same_seed_is_the_same_schedule_with_faults_of_every_kind() -> None:
    steps = schedule(5, 600.0, HOSTS)
    assert steps == schedule(5, 600.0, HOSTS) != schedule(6, 600.0, HOSTS)
    faults = {"kill", "stop", "cut", "cut-in", "cut-out", "worsen"}
    mends = {"start", "go-on", "heal"}
    assert {step.what for step in steps} == {*faults, *mends, "submit", "cancel", "priority"}
    assert {step.target for step in steps if step.what in faults} == {"head", *HOSTS}


def test_a_fleet_under_faults_loses_and_doubles_nothing(tmp_path: Path) -> None:
    stage, wrong = soak(tmp_path, seed=SEED, seconds=SECONDS, hosts=HOSTS, fault_every=1.5, longest=4.0)
    assert wrong == []
    assert stage.books.faults.total() == 6
    assert len(stage.books.accepted) == 14


def test_the_verdict_sees_what_ran_twice_unless_a_topod_was_away_for_too_long(tmp_path: Path) -> None:
    lines = (
        "a 1 1 77 begins 10.0 0",
        "b 1 1 78 begins 11.0 0",
        "b 1 1 78 twice 11.0 0",
        "a 1 1 77 ends 12.0 0",
    )
    told = "".join(f"5 0 {line}\n" for line in (*lines, "b 1 1 78 ends 15.0 0"))
    (tmp_path / "witness").write_text(told)
    witness, books, fences = Witness(tmp_path), Books(), {"a": {1: 3}, "b": {1: 4}}
    assert len(at_once(witness, books)) == 1
    assert len(overlaps(witness, fences, books)) == 1
    assert overlaps(witness, {"a": {1: 3}, "b": {1: 3}}, books) == []
    books.away["a"] = [(11.0 - AWAY_SECONDS, 11.5)]
    assert at_once(witness, books) == overlaps(witness, fences, books) == []
    (tmp_path / "witness").write_text(f"{told}5 0 b 1 1 79 begins 20.0 0\n6 0 b 2 1 80 shares 21.0 0\n")
    assert len(at_once(witness, books)) == 2
