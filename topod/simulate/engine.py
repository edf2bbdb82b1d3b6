"""A day of a fleet in virtual time: jobs come, are placed, stopped for others, and end.

The queue is the product's: higher priorities first, then who came first; who finds no place lets others pass.
A victim works no more from the moment it is chosen, is gone after `stop_seconds` and goes back to its place
in the queue with what it had saved. Until then its GPUs may be promised, and whoever gets them begins later.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

from topod.model.request import ResourceRequest
from topod.simulate.jobs import Run, SimJob, Waiting
from topod.simulate.machines import Machine
from topod.simulate.policies.base import Placement, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A victim: how it ran, and how much of that is lost (seconds of work)."""

    run: Run
    lost: float


class Observer(Protocol):
    """Who writes down what happens. Times are seconds of the day."""

    def preempted(
        self, now: float, job: SimJob, placement: Placement, victims: Sequence[Stopped], *, search: float
    ) -> None:
        """Note who was stopped for a job; `search`: how long the decision took, by the real clock."""
        ...

    def placed(self, now: float, waiting: Waiting, placement: Placement) -> None:
        """Note that a job got its place."""
        ...

    def left(self, now: float, run: Run) -> None:
        """Note that a job gave its place back: done, or stopped."""
        ...

    def missed(self, waiting: Waiting) -> None:
        """Note that a job was not wanted any more before it ran."""
        ...

    def sample(self, now: float, machines: Sequence[Machine]) -> None:
        """Look at the fleet, in steady intervals."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long a day is and what takes time in it (seconds)."""

    until: float
    stop_seconds: float = 10.0
    """From the moment a victim is chosen until its GPUs are free."""
    sample_seconds: float = 600.0


Key = tuple[int, float, int]


class Day:
    """One day under one policy."""

    def __init__(
        self,
        machines: Sequence[Machine],
        policy: Policy,
        terms: Terms,
        observer: Observer,
        *,
        timer: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`timer` is a clock of the real world, for how long decisions take."""
        self._machines = machines
        self._policy = policy
        self._terms = terms
        self._observer = observer
        self._timer = timer
        self._queues: dict[ResourceRequest, list[tuple[Key, Waiting]]] = {}
        self._refused: dict[ResourceRequest, set[int]] = {}
        """Asked for in vain, with the hosts where something has been given back since."""
        self._ends: list[tuple[float, int, Machine, Run]] = []
        self._order = count()
        self._levels: dict[int, int] = {}
        """How many that may be stopped run at each priority."""
        self.events = 0

    def live(self, jobs: Iterable[SimJob]) -> list[Waiting]:
        """Live through the day; `jobs` in the order of their coming. Return who waits at its end."""
        coming = iter(jobs)
        job = next(coming, None)
        sample = self._terms.sample_seconds
        while True:
            arrives = job.submit if job is not None else float("inf")
            ends = self._ends[0][0] if self._ends else float("inf")
            now = min(arrives, ends)
            while sample <= min(now, self._terms.until):
                self._observer.sample(sample, self._machines)
                sample += self._terms.sample_seconds
            if now > self._terms.until:
                break
            if ends <= arrives:
                self._end(now)
            elif job is not None:
                self._enqueue(Waiting(job=job, left=job.run, since=job.submit))
                self.events += 1
                job = next(coming, None)
            self._schedule(now)
        return self._close()

    def _close(self) -> list[Waiting]:
        until = self._terms.until
        for machine in self._machines:
            for run in machine.runs.values():
                self._observer.left(until, run)
        return [waiting for queue in self._queues.values() for _, waiting in queue]

    def _enqueue(self, waiting: Waiting) -> None:
        job = waiting.job
        key = (-job.request.priority, job.submit, job.ident)
        heappush(self._queues.setdefault(job.request, []), (key, waiting))

    def _end(self, now: float) -> None:
        _, _, machine, run = heappop(self._ends)
        if run.over:
            return
        self.events += 1
        self._leave(machine, run, now)

    def _leave(self, machine: Machine, run: Run, now: float) -> None:
        run.over = True
        machine.leave(run.job.ident)
        if run.job.preemptible:
            self._levels[run.job.request.priority] -= 1
        self._observer.left(now, run)
        for changed in self._refused.values():
            changed.add(machine.number)

    # --- the queue ------------------------------------------------------------------------------------------

    def _schedule(self, now: float) -> None:
        """Place whoever can be placed, in the order of the queue."""
        heads = self._heads()
        while heads:
            _, request = heappop(heads)
            queue = self._queues[request]
            came = _PLACED if self._drop_unwanted(queue, now) else self._try(request, queue, now)
            if came == _STOPPED:
                # Victims wait now, and GPUs that nobody takes are free: others may try again.
                heads = self._heads()
            elif came == _PLACED and queue:
                heappush(heads, (queue[0][0], request))

    def _heads(self) -> list[tuple[Key, ResourceRequest]]:
        """Return who is first of each kind of request that may find a place now; as a heap."""
        heads = [
            (queue[0][0], request) for request, queue in self._queues.items() if queue and self._may(request)
        ]
        heapify(heads)
        return heads

    def _may(self, request: ResourceRequest) -> bool:
        changed = self._refused.get(request)
        return changed is None or bool(changed)

    def _drop_unwanted(self, queue: list[tuple[Key, Waiting]], now: float) -> bool:
        ends = queue[0][1].job.ends
        if ends is None or ends > now:
            return False
        self._observer.missed(heappop(queue)[1])
        return True

    def _try(self, request: ResourceRequest, queue: list[tuple[Key, Waiting]], now: float) -> int:
        """Place the first who asks for this, if it can be; say what came of it."""
        changed = self._refused.pop(request, None)
        where = self._machines if changed is None else [self._machines[at] for at in sorted(changed)]
        placement, search = self._policy.place(request, where, now), 0.0
        if placement is None and self._anybody_below(request.priority):
            self._policy.look(self._machines, now)
            began = self._timer()
            placement = self._policy.preempt(request, where, now)
            search = self._timer() - began
        if placement is None:
            self._refused[request] = set()
            return _NONE
        _, waiting = heappop(queue)
        victims = [self._stop(placement.machine, ident, now) for ident in placement.victims]
        if victims:
            self._observer.preempted(now, waiting.job, placement, victims, search=search)
        self._start(waiting, placement, now)
        return _STOPPED if victims else _PLACED

    def _anybody_below(self, priority: int) -> bool:
        return any(number and level < priority for level, number in self._levels.items())

    def _stop(self, machine: Machine, ident: int, now: float) -> Stopped:
        run = machine.runs[ident]
        saved, worked = run.saved(now), max(0.0, now - run.begun)
        gone = now + self._terms.stop_seconds
        for gpu in range(machine.tables.count):
            if run.gpus >> gpu & 1:
                machine.clear[gpu] = gone
        self._leave(machine, run, now)
        self.events += 1
        waiting = run.waiting
        waiting.left -= saved
        waiting.since, waiting.restarts = now, waiting.restarts + 1
        self._enqueue(waiting)
        return Stopped(run=run, lost=worked - saved)

    def _start(self, waiting: Waiting, placement: Placement, now: float) -> None:
        machine, job = placement.machine, waiting.job
        begun = max(now, machine.clear_at(placement.gpus, now))
        run = Run(waiting=waiting, gpus=placement.gpus, cpus=placement.cpus, placed=now, begun=begun)
        machine.take(run)
        if job.preemptible:
            self._levels[job.request.priority] = self._levels.get(job.request.priority, 0) + 1
        ends = max(begun, job.ends) if job.ends is not None else begun + waiting.left
        heappush(self._ends, (ends, next(self._order), machine, run))
        self.events += 1
        self._observer.placed(now, waiting, placement)


_NONE, _PLACED, _STOPPED = 0, 1, 2
