"""Hundreds of bad days on one host: whatever goes wrong, the rules of the referee hold and all comes to rest.

A failing seed is lived through again by `make soak SEED=...`.
"""

from collections import Counter

import pytest

from tests.simulation.chance import ALL_FAULTS
from tests.simulation.day import Day

SEEDS = 300
CHUNKS = 10
FIRST = 0
OFTEN = 3
"""How often each kind of fault strikes in all days together, at least."""


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_fault_breaks_a_rule_and_every_job_ends(chunk: int) -> None:
    for seed in range(FIRST + chunk, FIRST + SEEDS, CHUNKS):
        wrong = Day(seed).run()
        assert not wrong, f"make soak SEED={seed}: {wrong[0]}"


def test_every_kind_of_fault_really_strikes() -> None:
    happened: Counter[str] = Counter()
    for seed in range(FIRST, FIRST + SEEDS):
        day = Day(seed)
        day.run()
        happened += day.chance.happened
        if all(happened[fault] >= OFTEN for fault in ALL_FAULTS):
            return
    assert not [fault for fault in ALL_FAULTS if happened[fault] < OFTEN]


@pytest.mark.parametrize("seed", [1, 7, 43])
def test_the_same_seed_is_the_same_day(seed: int) -> None:
    first, again = Day(seed), Day(seed)
    assert first.run() == again.run()
    assert first.chance.digest == again.chance.digest
    assert first.steps == again.steps > 100


def test_another_seed_is_another_day() -> None:
    one, other = Day(1), Day(2)
    one.run()
    other.run()
    assert one.chance.digest != other.chance.digest
