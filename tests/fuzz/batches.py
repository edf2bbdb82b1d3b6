"""One batch of damaged inputs; a module of its own, so that other processes can import it."""

import itertools
import traceback
from collections.abc import Iterator

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import TARGETS

BATCH = 250


def batch(task: tuple[str, int]) -> tuple[str, int, int, str]:
    """Try one batch of inputs on a target; return target, seed, how many, and what went wrong."""
    name, number = task
    target = next(each for each in TARGETS if each.name == name)
    tried = 0

    def check(value: object) -> None:
        nonlocal tried
        tried += 1
        target.check(value)

    quiet = settings(
        max_examples=BATCH,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[*HealthCheck],
        print_blob=False,
    )
    try:
        seed(number)(quiet(given(target.inputs)(check)))()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        notes = "\n".join(getattr(error, "__notes__", ()))
        return name, number, tried, "".join(traceback.format_exception(error)[-12:]) + notes
    return name, number, tried, ""


def tasks(first: int) -> Iterator[tuple[str, int]]:
    """Yield batches for ever, each target by its weight."""
    names = [target.name for target in TARGETS for _ in range(target.weight)]
    return zip(itertools.cycle(names), itertools.count(first), strict=False)
