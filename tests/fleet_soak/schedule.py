"""What befalls a fleet in one soak: jobs and faults, each with its moment. The same seed, the same schedule. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HEAD: Final = "head"
JOBS_A_SECOND: Final = 1.5
FAULT_EVERY_SECONDS: Final = 4.0
LONGEST_SECONDS: Final = 8.0
CALM_SECONDS: Final = 1.0
"""At the beginning, until some jobs run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job that is submitted; `number` names it in the schedule, for the fleet numbers jobs itself."""

    number: int
    gpus: int
    priority: int
    hosts: int
    keep: bool
    defiant: bool
    seconds: float
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that is done, at a moment (seconds from the beginning).

    `what`: submit, cancel, priority; kill, start, stop, go-on (of a topod or the coordinator); cut, cut-in, cut-out,
    worsen, heal (of a host's link).
    """

    at: float
    what: str
    target: str = ""
    job: Job | None = None
    number: int = 0
    priority: int = 0


def schedule(
    seed: int,
    seconds: float,
    hosts: Sequence[str],
    *,
    fault_every: float = FAULT_EVERY_SECONDS,
    longest: float = LONGEST_SECONDS,
) -> list[Step]:
    """Return what happens, in order of time; what ends a fault may lie behind `seconds`.

    `fault_every`: seconds from fault to fault on average; `longest`: of a job.
    """
    rng = random.Random(seed)
    steps = [*_load(rng, seconds, longest), *_faults(rng, seconds, hosts, fault_every)]
    return sorted(steps, key=lambda step: step.at)


def _load(rng: random.Random, seconds: float, longest: float) -> list[Step]:
    steps: list[Step] = []
    at, number = 0.0, 0
    while (at := at + rng.expovariate(JOBS_A_SECOND)) < seconds:
        number += 1
        job = Job(
            number=number,
            gpus=rng.choice((0, 1, 1, 2, 2, 4, 8)),
            priority=rng.choice((100, 100, 500, 500, 1000)),
            hosts=_hosts(rng.random()),
            keep=rng.random() < 0.3,
            defiant=rng.random() < 0.1,
            seconds=round(rng.uniform(0.2, longest), 1),
            code=7 if rng.random() < 0.1 else 0,
        )
        steps.append(Step(at=at, what="submit", job=job))
        later, chance = at + rng.uniform(0.0, 10.0), rng.random()
        if chance < 0.1:
            steps.append(Step(at=later, what="cancel", number=number))
        elif chance < 0.2:
            priority = rng.choice((100, 500, 1000))
            steps.append(Step(at=later, what="priority", number=number, priority=priority))
    return steps


def _hosts(chance: float) -> int:
    return 3 if chance < 0.05 else 2 if chance < 0.2 else 1


def _faults(rng: random.Random, seconds: float, hosts: Sequence[str], every: float) -> list[Step]:
    steps: list[Step] = []
    free: dict[tuple[str, str], float] = {}
    """By kind and target: from when on it is as it should be."""
    at = CALM_SECONDS
    while (at := at + rng.expovariate(1 / every)) < seconds:
        target = rng.choice((HEAD, *hosts))
        begin, end = rng.choice(
            (
                *(("kill", "start"), ("stop", "go-on")),
                *(("cut", "heal"), ("cut-in", "heal"), ("cut-out", "heal"), ("worsen", "heal")),
            )
        )
        # A topod that is away is so for less long than its fleet allows; a link may be cut for any time.
        process = end != "heal"
        lasts = rng.uniform(0.1, 2.0) if process else rng.choice((1, 4, 8)) * rng.uniform(0.5, 3.0)
        lane = ("process" if process else "link", target)
        if at < free.get(lane, 0.0):
            continue
        free[lane] = at + lasts + 1.0
        steps += [Step(at=at, what=begin, target=target), Step(at=at + lasts, what=end, target=target)]
    return steps
