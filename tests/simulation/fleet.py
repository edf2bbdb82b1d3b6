"""The coordinator of a fleet as one of its hosts knows it: it assigns, revokes and settles over a bad line.

Written from the contract (`topod.protocol.link`), without the coordinator's own code. It may forget all that it
saw of hosts, as one does that is started anew, and it counts what a host that it does not hear may still run.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.simulation.chance import World
from tests.simulation.link import SimWire
from topod.daemon.lease import Lease
from topod.fleet.hosts import HostSnapshot, occupancy_at
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.states import ENDED
from topod.model.assignment import REFUSED, RETURNED, Assign, FleetJobReport, FleetTag, Place, Revoke, Settled
from topod.model.job import JobSpec, OnHostLost
from topod.model.plan import Plan
from topod.preemption.search import plan
from topod.protocol import link

LEASE_SECONDS: Final = 40.0
OVER: Final = frozenset({*(state.value for state in ENDED), RETURNED, REFUSED})
BOOT_SECONDS: Final = 500.0
"""How long the machine has been up when the day begins."""


class SimLease(Lease):
    """A lease that a file keeps over the lives of topod, in memory."""

    def __init__(self, kept: float, keep: Callable[[float], None]) -> None:
        super().__init__(Path("/nowhere"), "")
        self.until = kept
        self._keep = keep

    def renew(self, until: float) -> None:
        if until > self.until:
            self.until = until
            self._keep(until)


@dataclass
class FleetJob:
    """One job of the fleet. `fence` is that of its present assignment, 0: none."""

    spec: JobSpec
    fence: int = 0
    place: Place = field(default_factory=Place)
    size: int = 1
    go: bool = False
    heard: bool = False
    """The host has told of the present assignment."""
    cancelled: bool = False
    revoked: bool = False
    preemptions: int = 0
    not_before: float = 0.0
    """After a refusal it is not placed at once again (seconds of the day)."""


class Coordinator:
    """One coordinator with one host."""

    def __init__(self, world: World, tables: TopologyTables, make: Callable[[], JobSpec]) -> None:
        self._world = world
        self._rng = world.chance.rng
        self._tables = tables
        self._make = make
        self.jobs: dict[int, FleetJob] = {}
        self.cancelled: set[int] = set()
        """Jobs of the fleet that a user cancelled."""
        self._facts: dict[str, str] = {}
        """What the host remembers of the fleet."""
        self.lease_until = 0.0
        """What the file of the host's lease says, by the host's steady clock."""
        self.cut_until = 0.0
        self._fence = 0
        self._epoch, self._seq = 1, 0
        self._wire: SimWire | None = None
        self._session = ""
        self._last = 0
        self._seen = 0
        self._echo = 0.0
        self._told: dict[tuple[int, int], FleetJobReport] | None = None
        self._snapshot: HostSnapshot | None = None
        self._skew = 0.0

    def steady(self) -> float:
        """What the host's steady clock shows."""
        return BOOT_SECONDS + self._world.now

    def wire(self) -> SimWire:
        """Return the line of a new life of topod; what is on the old one comes all the same."""
        self._wire = SimWire(self._world, self.hear, lambda: self._world.now < self.cut_until)
        return self._wire

    def lease(self) -> SimLease:
        """Return the lease as its file has it."""

        def keep(until: float) -> None:
            self.lease_until = until

        return SimLease(self.lease_until, keep)

    def facts(self) -> dict[str, str]:
        return dict(self._facts)

    def note_facts(self, facts: dict[str, str]) -> None:
        self._facts |= facts

    # --- what users and administrators do ---------------------------------------------------------------------

    def act(self) -> None:
        """Do one thing."""
        match self._rng.randrange(10):
            case 0:
                self._cancel()
            case 1:
                self._revoke()
            case _:
                self._submit()

    def _submit(self) -> None:
        keep = OnHostLost.KEEP if self._rng.random() < 0.2 else OnHostLost.REQUEUE
        self.jobs[len(self.jobs) + 1] = FleetJob(spec=replace(self._make(), on_host_lost=keep, after=()))
        self._place_all()

    def _some(self) -> int | None:
        here = [ident for ident, job in self.jobs.items() if job.fence and not job.revoked]
        return self._rng.choice(here) if here else None

    def _cancel(self) -> None:
        if (ident := self._some()) is not None:
            self._world.say(f"fleet: job {ident} is cancelled")
            self.cancelled.add(ident)
            self.jobs[ident].cancelled = self.jobs[ident].revoked = True

    def _revoke(self) -> None:
        if (ident := self._some()) is not None:
            self._world.say(f"fleet: job {ident} is revoked")
            self.jobs[ident].revoked = True

    def cut(self) -> None:
        """Cut the line for a while, maybe for longer than the lease; a topod that comes back finds it so."""
        self.cut_until = self._world.now + self._rng.choice((5.0, 70.0, 120.0))

    def heal(self) -> None:
        """Let the line work from now on."""
        self.cut_until = 0.0

    def start_anew(self) -> None:
        """The coordinator is started anew: what it saw of hosts is gone, what it decided is not."""
        self._world.say("fleet: the coordinator is started anew")
        self._epoch, self._seq = self._epoch + 1, 0
        self._session, self._last, self._seen, self._echo = "", 0, 0, 0.0
        self._told = self._snapshot = None

    # --- what it decides --------------------------------------------------------------------------------------

    def _place_all(self) -> None:
        if self._snapshot is None or self._snapshot.closed is not None or not self._world.chance.storm:
            return
        for ident, job in self.jobs.items():
            if not job.fence and not job.cancelled and job.not_before <= self._world.now:
                self._place(ident, job, self._snapshot)

    def _place(self, ident: int, job: FleetJob, seen: HostSnapshot) -> None:
        now = self._world.wall + self._skew
        answer = plan(self._tables, occupancy_at(seen, now), job.spec.request)
        if not isinstance(answer, Plan):
            return
        self._fence += 1
        job.fence, job.place = self._fence, Place(gpus=answer.gpus, victims=answer.victims)
        job.size = self._rng.choice((1, 1, 1, 2))
        job.go = job.heard = job.revoked = False
        self._world.say(f"fleet: job {ident} is assigned as {job.fence}, {job.place}")

    def _take_in(self, told: dict[tuple[int, int], FleetJobReport]) -> None:
        for ident, job in self.jobs.items():
            report = told.get((ident, job.fence))
            if report is None:
                continue
            job.heard = True
            if report.ready and not job.go:
                self._others_are_ready(ident, job.fence)
            if report.state in OVER:
                job.preemptions += report.preemptions
                again = report.state in (RETURNED, REFUSED) and not job.cancelled
                job.fence = 0
                job.cancelled = not again
                job.not_before = self._world.now + self._rng.uniform(2.0, 40.0)

    def _others_are_ready(self, ident: int, fence: int) -> None:
        def ready() -> None:
            job = self.jobs[ident]
            if job.fence == fence:
                job.go = True

        self._world.after(self._rng.choice((0.0, 1.0, 20.0)), ready)

    # --- the line ---------------------------------------------------------------------------------------------

    def hear(self, message: link.AnyFromHost) -> None:
        """Take in what the host says, and answer."""
        match message:
            case link.HostHello():
                if message.session != self._session:
                    self._session, self._last, self._seen, self._told = message.session, 0, 0, None
                    self._echo = 0.0
            case link.HostReport() if message.session != self._session:
                self._say(link.Who())
                return
            case link.HostReport() if message.seq > self._last:
                self._last, self._echo = message.seq, message.sent
                if message.snapshot is not None and message.jobs is not None:
                    self._seen, self._snapshot = message.seq, message.snapshot
                    self._skew = message.wall - self._world.wall
                    self._told = {(job.job, job.fence): job for job in message.jobs}
                    self._take_in(self._told)
                    self._place_all()
            case _:
                return
        self._seq += 1
        self._say(self._orders())

    def _orders(self) -> link.Orders:
        told = self._told
        bare = link.Orders(
            session=self._session,
            epoch=self._epoch,
            seq=self._seq,
            echo=self._echo,
            lease_seconds=LEASE_SECONDS,
            seen=self._seen,
        )
        if told is None:
            return bare
        mine = {(ident, job.fence): job for ident, job in self.jobs.items() if job.fence}
        assign, revoke = [], []
        for (ident, fence), job in mine.items():
            report = told.get((ident, fence))
            if job.revoked or (job.heard and report is None):
                revoke.append(Revoke(job=ident, fence=fence, requeue=not job.cancelled))
            elif report is None or (report.ready and job.go):
                assign.append(Assign(tag=self._tag(ident, job), spec=job.spec, place=job.place))
        others = [report for key, report in told.items() if key not in mine]
        return link.Orders(
            session=bare.session,
            epoch=bare.epoch,
            seq=bare.seq,
            echo=bare.echo,
            lease_seconds=bare.lease_seconds,
            seen=bare.seen,
            assign=assign,
            revoke=revoke
            + [Revoke(job=one.job, fence=one.fence, requeue=True) for one in others if one.state not in OVER],
            settled=[Settled(job=one.job, fence=one.fence) for one in others if one.state in OVER],
        )

    def _tag(self, ident: int, job: FleetJob) -> FleetTag:
        return FleetTag(
            job=ident,
            fence=job.fence,
            size=job.size,
            go=job.go,
            on_host_lost=job.spec.on_host_lost,
            preemptions=job.preemptions,
        )

    def _say(self, message: link.AnyToHost) -> None:
        if self._wire is not None:
            self._wire.say(message)
