"""Hundreds of bad days on one host: whatever goes wrong, the rules of the referee hold and all comes to rest.

A failing seed is lived through again by `make soak SEED=...`.
"""

from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from tests.once import once
from tests.simulation.chance import ALL_FAULTS
from tests.simulation.day import Day

SEEDS = 300
CHUNKS = 10
FIRST = 0
OFTEN = 3
"""How often each kind of fault strikes in all days together, at least."""


class Lived(msgspec.Struct, frozen=True):
    """What became of a chunk of days."""

    wrong: str | None
    """What went wrong first; the days after that were not lived through."""
    happened: dict[str, int]
    """How often each kind of fault struck."""


def live(chunk: int) -> Lived:
    happened: Counter[str] = Counter()
    for seed in range(FIRST + chunk, FIRST + SEEDS, CHUNKS):
        day = Day(seed)
        wrong = day.run()
        happened += day.chance.happened
        if wrong:
            return Lived(f"make soak SEED={seed}: {wrong[0]}", dict(happened))
    return Lived(None, dict(happened))


@pytest.fixture
def lived(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Lived]:
    """Give what became of a chunk of days, which only the first test that asks lives through."""

    def of(chunk: int) -> Lived:
        told = once(tmp_path_factory, f"days-{chunk}", lambda: msgspec.json.encode(live(chunk)))
        return msgspec.json.decode(told, type=Lived)

    return of


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_fault_breaks_a_rule_and_every_job_ends(lived: Callable[[int], Lived], chunk: int) -> None:
    assert lived(chunk).wrong is None


def test_every_kind_of_fault_really_strikes(lived: Callable[[int], Lived]) -> None:
    happened: Counter[str] = Counter()
    for chunk in range(CHUNKS):
        happened.update(lived(chunk).happened)
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
