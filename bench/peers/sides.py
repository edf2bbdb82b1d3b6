"""What the runner needs of a scheduler: to be filled to the last GPU, asked, and emptied."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from bench.peers.scenario import Scenario

T = TypeVar("T")
SECONDS = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one request."""

    gpus: list[int]
    victims: list[int]
    """Places within the scenario's jobs."""
    seconds: float
    """From the command that submits to the first line of the job."""


class Side(Protocol):
    """A scheduler with the hosts of the scenarios, under real daemons."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    def start(self, host: str, sizes: Sequence[int]) -> list[str]:
        """Start jobs of low priority with so many GPUs each; return them once all run."""
        ...

    def holds(self, job: str) -> list[int]:
        """Return the GPUs of a running job."""
        ...

    def stop(self, jobs: Sequence[str]) -> None:
        """End jobs; return once their GPUs are free."""
        ...

    def ask(self, scenario: Scenario, jobs: Sequence[str]) -> Answer:
        """Submit the scenario's request with high priority; return what came of it once it runs."""
        ...

    def submits(self, host: str, many: int) -> list[float]:
        """Submit jobs that have to wait, one after the other; return how many a second.

        By the command line, and where there is such a thing over a connection that is open already.
        """
        ...

    def clear(self) -> None:
        """End all jobs."""
        ...


def fill(side: Side, scenario: Scenario) -> list[str]:
    """Bring a host into the scenario's state; return its jobs.

    Jobs of one GPU hold every GPU first; those whose GPUs the next job is to get are ended before it starts.
    """
    total = len(scenario.free) + sum(map(len, scenario.jobs))
    at = {side.holds(job)[0]: job for job in side.start(scenario.host, [1] * total)}
    jobs = []
    for gpus in scenario.jobs:
        side.stop([at[gpu] for gpu in gpus])
        jobs += side.start(scenario.host, [len(gpus)])
        held = side.holds(jobs[-1])
        assert sorted(held) == sorted(gpus), f"{side.name}: wanted {gpus}, got {held}"
    side.stop([at[gpu] for gpu in scenario.free])
    return jobs


def until(look: Callable[[], T | None], what: str, seconds: float = SECONDS) -> T:
    """Return what `look` finds, as soon as it finds anything."""
    end = time.monotonic() + seconds
    while (found := look()) is None or found is False:
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.02)
    return found
