"""The pure parts of `bench.peers`: scenarios, scores, the model's answer, what Slurm is told of a host."""

from pathlib import Path

import pytest

from bench.peers import __main__ as program
from bench.peers.model import nearness, predicted
from bench.peers.peer import indices
from bench.peers.scenario import Filler, Part, State, read_scenario, states_of
from bench.peers.scoring import Outcome, Score, fewest, figures, score
from bench.peers.slurm import links
from topod.discovery.library import load_library_host
from topod.errors import DataError, NotFoundError
from topod.flextopo.tables import TopologyTables
from topod.model.request import Affinity

DGX1 = TopologyTables(load_library_host("dgx1").topology)
PART = Part(name="p", host="dgx1", free=[0], sizes=[1], weights=[1.0], gpus=4, affinity=Affinity.SOCKET)
# GPUs 0-3 are on one socket. Low numbers are low GPUs: 0b0011 is GPUs 0 and 1.
STATE = State(
    "s",
    (
        Filler("across", "h1", 0b0001_0001),
        Filler("pair", "h1", 0b0000_0110),
        Filler("one", "h1", 0b0000_1000),
        Filler("far", "h1", 0b1110_0000),
    ),
    {"h1": 0},
)

NOT_FULL = """
seed = 1
states = 1
submits = 1
[[parts]]
name = "a"
host = "dgx1"
free = [2]
sizes = [1]
weights = [1]
gpus = 2
affinity = "socket"
"""


def test_the_shipped_scenario_fills_every_host_and_forces_everybody_to_preempt() -> None:
    scenario = read_scenario(program.SCENARIO)
    for part in scenario.parts:
        tables = TopologyTables(load_library_host(part.host).topology)
        states = states_of(scenario, part, tables.count)
        assert states == states_of(scenario, part, tables.count)
        assert len({state.fillers for state in states}) == scenario.states
        for state in states:
            assert (fewest(part, state, tables) or 0) >= 1
            for host in part.host_names:
                held = [filler.gpus for filler in state.fillers if filler.host == host]
                assert sum(held) + state.free[host] == tables.all_gpus
                assert state.free[host].bit_count() < part.gpus


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("seed = 1", "missing"),
        ("seed = 1\nstates = 0\nsubmits = 1\nparts = []", "states"),
        ("seed = 1\nstates = 1\nsubmits = 1\nspeed = 3\nparts = []", "speed"),
        ("[[", "Invalid initial character"),
        (NOT_FULL, "`free` must be less"),
    ],
)
def test_a_wrong_scenario_is_refused_with_its_mistake(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(DataError, match=what):
        read_scenario(file)
    with pytest.raises(NotFoundError):
        read_scenario(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("victims", "gpus", "expected"),
    [
        (("across", "pair", "one"), 0b0000_1111, Score(satisfied=True, victims=3, idled=1, spare=0)),
        (("pair", "far"), 0b0110_0110, Score(satisfied=False, victims=2, idled=1, spare=0)),
        (("across", "far"), 0b1111_0000, Score(satisfied=True, victims=2, idled=1, spare=0)),
        (("across", "far", "one"), 0b1111_0000, Score(satisfied=True, victims=3, idled=2, spare=1)),
    ],
)
def test_a_preemption_is_judged_by_the_gpus_it_gave(
    victims: tuple[str, ...], gpus: int, expected: Score
) -> None:
    assert score(PART, STATE, DGX1, Outcome("s", frozenset(victims), "h1", gpus)) == expected


def test_who_never_ran_is_not_satisfied_and_counts_in_no_latency() -> None:
    never = Outcome("s", frozenset({"one"}), None, 0)
    ran = Outcome("s", frozenset({"across", "far"}), "h1", 0b1111_0000, seconds=2.0, accepted=1.0)
    scores = [score(PART, STATE, DGX1, one) for one in (never, ran)]
    assert scores[0] == Score(satisfied=False, victims=1, idled=1, spare=1)
    found = figures(scores, [never, ran], [2, 2])
    assert (found["never_ran"], found["satisfied"], found["victims"]) == (1, 0.5, 1.5)
    assert found["latency_median"] == found["latency_worst"] == 2.0


def test_the_fewest_are_found_for_any_host_and_none_where_it_cannot_be() -> None:
    assert fewest(PART, STATE, DGX1) == 2
    more = State("s", STATE.fillers, {"h1": 0, "h2": 0b1111})
    assert fewest(PART, more, DGX1) == 0
    huge = Part(name="p", host="dgx1", free=[0], sizes=[1], weights=[1.0], gpus=5, affinity=Affinity.SOCKET)
    assert fewest(huge, STATE, DGX1) is None


def test_the_model_of_slurm_is_asked_in_the_same_state() -> None:
    # Oldest first, until four GPUs of one socket are free; the last one goes first, and again.
    bound = predicted(PART, STATE, DGX1, bind=True)
    assert bound.host == "h1"
    assert bound.gpus in {0b0000_1111, 0b1111_0000}
    counted = predicted(PART, STATE, DGX1, bind=False)
    assert counted.gpus.bit_count() == 4
    near = nearness([bound, counted], [bound, Outcome("s", frozenset(), "h1", counted.gpus)])
    assert (near.states, near.same_victims, near.same_gpus) == (2, 1, 1)


def test_slurm_is_told_the_links_of_a_host() -> None:
    assert links(DGX1.topology, 0) == "-1,1,1,2,2,0,0,0"
    assert links(load_library_host("l40s-x8").topology, 2) == "0,0,-1,1,0,0,0,0"


def test_lists_of_gpus_are_read_as_both_write_them() -> None:
    assert indices("0,2-4,7") == [0, 2, 3, 4, 7]


def test_without_slurm_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "missing", lambda: ["slurmctld"])
    assert program.main([]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "no slurmctld here; needed are, on Debian: apt install munge slurm-wlm\n"
