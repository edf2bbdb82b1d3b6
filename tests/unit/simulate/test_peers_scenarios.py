"""The states in which topod and a real Slurm are compared: read, made and judged."""

from pathlib import Path

import pytest

from bench.peers.__main__ import judge
from bench.peers.scenario import FILE, KINDS, Scenario, make, read
from bench.peers.sides import Answer
from topod.errors import DataError
from topod.model.request import Affinity


def test_the_file_holds_what_its_seed_makes_and_somebody_has_to_go_in_each() -> None:
    scenarios = read(FILE)
    assert scenarios == list(make(1))
    assert len(scenarios) == sum(many for *_, many in KINDS)
    assert all(one.fewest(one.affinity) >= one.fewest(Affinity.ANY) > 0 for one in scenarios)


def test_an_answer_is_judged_by_what_the_job_got() -> None:
    one = Scenario(
        name="s", host="l40s-x8", jobs=((0, 2), (1, 3), (4, 5, 6), (7,)), gpus=2, affinity=Affinity.PCIE
    )
    far = judge(one, Answer(gpus=[0, 2], victims=[0, 3], seconds=0.5), modelled=False)
    assert (far.satisfied, far.in_vain, far.idled, far.fewest, far.as_model) == (False, 1, 1, 1, None)
    near = judge(one, Answer(gpus=[4, 5], victims=[2], seconds=0.5), modelled=False)
    assert (near.satisfied, near.in_vain, near.idled) == (True, 0, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "truncated"),
        ('{"scenarios": [{"name": "a"}]}', "host"),
        (
            '{"scenarios": [{"name": "a", "host": "dgx1", "jobs": [[0], [0]], "gpus": 1, "affinity": "any"}]}',
            "two jobs hold one GPU",
        ),
        (
            '{"scenarios": [{"name": "a", "host": "dgx1", "jobs": [[8]], "gpus": 1, "affinity": "any"}]}',
            "that dgx1 has not",
        ),
    ],
)
def test_a_bad_file_is_refused_with_its_place(text: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text(text)
    with pytest.raises(DataError, match=why) as caught:
        read(file)
    assert str(file) in str(caught.value)
