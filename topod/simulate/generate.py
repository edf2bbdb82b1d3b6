"""Jobs made from a description: services whose replicas follow the day, batch jobs that come at random."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, exp, log, pi
from random import Random
from typing import Final

from topod.model.request import ResourceRequest
from topod.simulate.jobs import SimJob

DAY: Final = 86400.0
STEP: Final = 300.0
"""Services change their number of replicas so often (seconds)."""
NORMAL_95: Final = 1.6448536269514722
"""The 95th percentile of the standard normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Online:
    """A service. At `peak` (seconds of the day) it has the most replicas, half a day off the fewest."""

    name: str
    request: ResourceRequest
    fewest: int
    most: int
    peak: float = 21 * 3600.0
    jitter: float = 0.05
    """Standard deviation of the number of replicas, as a share of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Jobs that come at random, so many an hour; each asks for one of `requests`, by `weights`."""

    name: str
    requests: tuple[ResourceRequest, ...]
    weights: tuple[float, ...]
    per_hour: float
    median: float
    """Seconds of work; log-normal, as `most`."""
    most: float
    """95 of 100 jobs work no longer."""
    checkpoint: float = 0.0
    preemptible: bool = True


def generate(seconds: float, online: Sequence[Online], batch: Sequence[Batch], seed: int) -> list[SimJob]:
    """Return the jobs of a period in the order of their coming. The same seed gives the same jobs."""
    made: list[SimJob] = []
    for number, service in enumerate(online):
        # Each part has its own chance: another part beside it changes nothing.
        made += replicas(service, seconds, Random(f"{seed}/online/{number}"))  # noqa: S311 - no secret
    for number, part in enumerate(batch):
        made += _arrivals(part, seconds, Random(f"{seed}/batch/{number}"))  # noqa: S311 - no secret
    return numbered(made)


def numbered(jobs: Sequence[SimJob]) -> list[SimJob]:
    """Return jobs in the order of their coming, numbered from 1."""
    ordered = sorted(jobs, key=lambda job: (job.submit, job.part, job.ident))
    return [_with_ident(job, ident) for ident, job in enumerate(ordered, start=1)]


def _with_ident(job: SimJob, ident: int) -> SimJob:
    return SimJob(
        ident=ident,
        submit=job.submit,
        run=job.run,
        request=job.request,
        part=job.part,
        preemptible=job.preemptible,
        checkpoint=job.checkpoint,
        ends=job.ends,
    )


def replicas(service: Online, seconds: float, chance: Random) -> Iterator[SimJob]:
    """Yield the replicas of a service over a period."""
    wanted = []
    for step in range(int(seconds // STEP) + 1):
        phase = (1 + cos(2 * pi * (step * STEP - service.peak) / DAY)) / 2
        number = service.fewest + (service.most - service.fewest) * phase
        wanted.append(max(0, round(number * (1 + chance.gauss(0, service.jitter)))))
    yield from following(wanted, STEP, seconds, service.name, service.request)


def following(
    wanted: Sequence[int], step: float, seconds: float, name: str, request: ResourceRequest
) -> Iterator[SimJob]:
    """Yield the replicas of a service that wants so many at each step; who came last goes first."""
    live: list[tuple[int, float]] = []
    ident = 0
    for at, number in enumerate(wanted):
        now = at * step
        if now >= seconds:
            break
        while len(live) < number:
            ident += 1
            live.append((ident, now))
        while len(live) > number:
            yield _replica(*live.pop(), now, name, request)
    for number, came in live:
        yield _replica(number, came, seconds, name, request)


def _replica(ident: int, came: float, ends: float, name: str, request: ResourceRequest) -> SimJob:
    return SimJob(
        ident=ident, submit=came, run=ends - came, request=request, part=name, preemptible=False, ends=ends
    )


def _arrivals(part: Batch, seconds: float, chance: Random) -> Iterator[SimJob]:
    now, ident = 0.0, 0
    spread = log(part.most / part.median) / NORMAL_95 if part.most > part.median else 0.0
    while part.per_hour > 0:
        now += chance.expovariate(part.per_hour / 3600)
        if now >= seconds:
            return
        ident += 1
        yield SimJob(
            ident=ident,
            submit=now,
            run=max(1.0, part.median * exp(spread * chance.gauss(0, 1))),
            request=chance.choices(part.requests, part.weights)[0],
            part=part.name,
            preemptible=part.preemptible,
            checkpoint=part.checkpoint,
        )
