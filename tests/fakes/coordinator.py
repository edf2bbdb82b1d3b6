"""A coordinator in a box, of one host: it assigns, revokes and settles as it should.

What it says may be lost, come again, or come late.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.holdings import occupancy
from topod.lifecycle.states import ENDED, HostState, Job, Stage
from topod.model.assignment import FleetTag, Place
from topod.model.job import JobSpec, OnHostLost
from topod.model.plan import Plan
from topod.model.rules import NO_RULES
from topod.preemption.search import plan


class Coordinator:
    """Orders go to `tell`. `lossy` is the chance that one is lost, and that an old one comes again instead."""

    def __init__(
        self,
        rng: random.Random,
        tables: TopologyTables,
        tell: Callable[[ev.FleetEvent], None],
        make: Callable[[], JobSpec],
        lossy: float = 0.2,
    ) -> None:
        self._rng = rng
        self._tables = tables
        self._tell = tell
        self._make = make
        self.lossy = lossy
        self._fence = 0
        self._jobs = 0
        self._specs: dict[int, JobSpec] = {}
        self._open: set[int] = set()
        """Jobs with an assignment that is not known to have ended."""
        self._said: list[ev.FleetEvent] = []
        self.cancelled: set[int] = set()

    def act(self, state: HostState, now: float) -> None:
        """Do one thing, knowing what the host's state was a while ago."""
        if self._said and self._rng.random() < self.lossy:
            self._tell(self._rng.choice(self._said))
            return
        known = [job for job in state.jobs.values() if job.tag is not None]
        match self._rng.randrange(10):
            case 0 | 1 | 2 | 3:
                self._assign(state, now)
            case 4 if known:
                self._revoke(self._rng.choice(known), requeue=self._rng.random() < 0.7)
            case 5 | 6:
                self.let_go(state)
            case 7 if self._rng.random() < 0.3:
                self._tell(ev.LeaseEnded())
            case _:
                self.settle(state)

    def settle(self, state: HostState) -> None:
        """Take in how assignments ended."""
        for _, job in sorted(state.jobs.items()):
            if job.tag is not None and job.state in ENDED:
                self._open.discard(job.tag.job)
                self._say(ev.Settled(job=job.tag.job, fence=job.tag.fence))

    def let_go(self, state: HostState) -> None:
        """Tell those to go that are ready."""
        for _, job in sorted(state.jobs.items()):
            ready = job.stage is Stage.CREATING and job.handle is not None
            if job.tag is not None and job.in_gang and ready:
                self._say(ev.Go(job=job.tag.job, fence=job.tag.fence))

    def give_up(self, state: HostState) -> None:
        """Revoke whatever is still there."""
        for _, job in sorted(state.jobs.items()):
            if job.tag is not None and job.state not in ENDED:
                self._revoke(job, requeue=True)

    def _assign(self, state: HostState, now: float) -> None:
        idle = sorted(set(self._specs) - self._open)
        if idle and self._rng.random() < 0.5:
            job = self._rng.choice(idle)
        else:
            self._jobs += 1
            job = self._jobs
            keep = self._rng.random() < 0.2
            lost = OnHostLost.KEEP if keep else OnHostLost.REQUEUE
            self._specs[job] = replace(self._make(), on_host_lost=lost)
        spec = self._specs[job]
        seen = occupancy(self._tables.topology, state, now, NO_RULES)
        answer = plan(self._tables, seen, spec.request)
        if not isinstance(answer, Plan):
            return
        self._fence += 1
        self._open.add(job)
        size = self._rng.choice((1, 1, 1, 2))
        tag = FleetTag(job=job, fence=self._fence, size=size, on_host_lost=spec.on_host_lost)
        self._say(ev.Assigned(tag=tag, spec=spec, place=Place(gpus=answer.gpus, victims=answer.victims)))

    def _revoke(self, job: Job, *, requeue: bool) -> None:
        assert job.tag is not None
        if not requeue:
            self.cancelled.add(job.id)
        self._say(ev.Revoked(job=job.tag.job, fence=job.tag.fence, requeue=requeue))

    def _say(self, event: ev.FleetEvent) -> None:
        self._said.append(event)
        if self._rng.random() >= self.lossy:
            self._tell(event)
