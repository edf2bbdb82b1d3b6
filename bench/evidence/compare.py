"""Several ways to choose asked in the same states: one drives the day, the others say what they would have
done.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from topod.model.request import ResourceRequest
from topod.simulate.jobs import SimJob
from topod.simulate.machines import Machine
from topod.simulate.measures import beside, within_socket
from topod.simulate.policies.base import Placement, Policy


class EnoughError(Exception):
    """So many preemptions as were wanted have been seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one way to choose said in one state."""

    found: bool
    satisfied: bool = False
    """The job would get the GPUs and the CPUs that it asked for."""
    paper_hit: bool = False
    """The victims' cores lie on one socket."""
    levels: tuple[tuple[int, int], ...] = ()
    """(priority, victims), highest first."""
    idled: int = 0
    seconds: float = 0.0
    """CPU time of the search."""

    @property
    def victims(self) -> int:
        """How many would be stopped."""
        return sum(number for _, number in self.levels)

    @property
    def price(self) -> tuple[object, ...]:
        """What is compared: victims by level, highest first; then GPUs idled."""
        return self.levels, self.idled


@dataclass(slots=True)
class Compared:
    """A policy that records what others say whenever it preempts. Ends the day by `EnoughError`.

    With `times` above 1 everybody is asked so often, each time as if all hosts had just changed, and the
    quickest counts: who is asked after another finds the processor's caches full of that one's data.
    """

    driver: Policy
    others: Sequence[Policy]
    wanted: int
    times: int = 1
    cases: list[dict[str, Answer]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.driver.name

    def look(self, machines: Sequence[Machine], now: float) -> None:
        """Let everybody take in how the hosts stand."""
        for policy in (self.driver, *self.others):
            policy.look(machines, now)

    def place(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return what the driver says."""
        return self.driver.place(request, machines, now)

    def preempt(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return what the driver says, and note what all say."""
        case, chosen = {}, None
        for policy in (self.driver, *self.others):
            _forget(policy, machines, now)
            placement, took = _timed(policy, request, machines, now)
            for _ in range(self.times - 1):
                _forget(policy, machines, now)
                took = min(took, _timed(policy, request, machines, now)[1])
            case[policy.name] = answer(placement, request, took)
            if policy is self.driver:
                chosen = placement
        if any(one.found for one in case.values()):
            self.cases.append(case)
            if len(self.cases) >= self.wanted:
                raise EnoughError
        return chosen


def _forget(policy: Policy, machines: Sequence[Machine], now: float) -> None:
    """Let a policy take in all hosts as if they had changed: it remembers nothing of them then."""
    for machine in machines:
        machine.version += 1
    policy.look(machines, now)


def _timed(
    policy: Policy, request: ResourceRequest, machines: Sequence[Machine], now: float
) -> tuple[Placement | None, float]:
    began = time.process_time()
    return policy.preempt(request, machines, now), time.process_time() - began


def answer(placement: Placement | None, request: ResourceRequest, seconds: float) -> Answer:
    """Return what a placement comes to."""
    if placement is None:
        return Answer(found=False, seconds=seconds)
    machine = placement.machine
    tables, freed, cpus = machine.tables, 0, 0
    levels: Counter[int] = Counter()
    for victim in placement.victims:
        run = machine.runs[victim]
        freed, cpus = freed | run.gpus, cpus | run.cpus
        levels[run.job.request.priority] += 1
    as_job = SimJob(ident=0, submit=0.0, run=0.0, request=request)
    gpus = bool(tables.satisfies(request.affinity)[placement.gpus])
    return Answer(
        found=True,
        satisfied=gpus and beside(tables, placement, as_job),
        paper_hit=within_socket(tables, cpus),
        levels=tuple(sorted(levels.items(), reverse=True)),
        idled=(freed & ~placement.gpus).bit_count(),
        seconds=seconds,
    )
