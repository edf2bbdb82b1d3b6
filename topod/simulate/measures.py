"""What is counted of a simulated day."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from topod.flextopo.tables import TopologyTables
from topod.model.request import LADDER, Affinity, CpuAffinity, Policy
from topod.simulate.engine import Stopped
from topod.simulate.jobs import Run, SimJob, Waiting
from topod.simulate.machines import Machine, bits, cpu_count
from topod.simulate.policies.base import Placement
from topod.simulate.worth import Speeds

HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Preemption:
    """One preemption: who, for whom, what came of it."""

    at: float
    part: str
    gpus: int
    victims: int
    idled: int
    """GPUs that victims lost and the job did not take."""
    lost: float
    """GPU-seconds of work."""
    gpus_as_asked: bool
    cpus_as_asked: bool
    within_socket: bool
    """The victims' cores lie on one socket: what the paper counts as a hit."""
    search: float
    """Seconds of the real clock."""

    @property
    def satisfied(self) -> bool:
        """Whether the job got what it asked for, in GPUs and CPUs."""
        return self.gpus_as_asked and self.cpus_as_asked


@dataclass(slots=True, kw_only=True)
class Measures:
    """One day in numbers; an `Observer`."""

    gpus: int
    seconds: float
    speeds: Speeds | None = None
    """What placements are worth; None: not asked for."""
    preemptions: list[Preemption] = field(default_factory=list)
    waits: dict[int, list[float]] = field(default_factory=dict)
    """By priority: from the submit to the first start (seconds)."""
    held: dict[str, float] = field(default_factory=dict)
    """By part of the workload: GPU-seconds."""
    placements: int = 0
    started: int = 0
    """GPUs of all starts."""
    kept: float = 0.0
    """Of these, how many the speeds come to."""
    asked: int = 0
    """Placements of jobs that care for affinity."""
    met: int = 0
    missed_parts: dict[str, int] = field(default_factory=dict)
    fragments: list[float] = field(default_factory=list)
    events: int = 0
    waiting: int = 0
    """At the end."""

    def preempted(
        self, now: float, job: SimJob, placement: Placement, victims: Sequence[Stopped], *, search: float
    ) -> None:
        """Count a preemption."""
        tables, freed, cpus = placement.machine.tables, 0, 0
        for victim in victims:
            freed |= victim.run.gpus
            cpus |= victim.run.cpus
        self.preemptions.append(
            Preemption(
                at=now,
                part=job.part,
                gpus=job.request.gpus,
                victims=len(victims),
                idled=(freed & ~placement.gpus).bit_count(),
                lost=sum(victim.lost * victim.run.gpus.bit_count() for victim in victims),
                gpus_as_asked=bool(tables.satisfies(job.request.affinity)[placement.gpus]),
                cpus_as_asked=beside(tables, placement, job),
                within_socket=within_socket(tables, cpus),
                search=search,
            )
        )

    def placed(self, now: float, waiting: Waiting, placement: Placement) -> None:
        """Count a start."""
        job = waiting.job
        if self.speeds is not None and placement.gpus:
            tables, near = placement.machine.tables, beside(placement.machine.tables, placement, job)
            gpus = job.request.gpus
            self.kept += gpus * self.speeds.kept(tables, placement.gpus, beside=near)
            self.started += gpus
        self.placements += 1
        if not waiting.restarts:
            self.waits.setdefault(job.request.priority, []).append(now - job.submit)
        if job.request.gpus > 1 and job.request.affinity is not Affinity.ANY:
            self.asked += 1
            self.met += bool(placement.machine.tables.satisfies(job.request.affinity)[placement.gpus])

    def left(self, now: float, run: Run) -> None:
        """Count what was held."""
        part = run.job.part
        self.held[part] = self.held.get(part, 0.0) + run.gpus.bit_count() * (now - run.placed)

    def missed(self, waiting: Waiting) -> None:
        """Count a replica that was wanted in vain."""
        part = waiting.job.part
        self.missed_parts[part] = self.missed_parts.get(part, 0) + 1
        if not waiting.restarts:
            job = waiting.job
            self.waits.setdefault(job.request.priority, []).append((job.ends or self.seconds) - job.submit)

    def sample(self, now: float, machines: Sequence[Machine]) -> None:
        """Look how much of what is free lies scattered."""
        del now
        free = whole = 0
        for machine in machines:
            free += machine.free_gpus.bit_count()
            whole += largest(machine.tables, machine.free_gpus)
        if free:
            self.fragments.append(1 - whole / free)

    def unplaced(self, waiting: Sequence[Waiting]) -> None:
        """Count who waits when the day is over, as long as it has waited."""
        self.waiting = len(waiting)
        for one in waiting:
            if not one.restarts:
                wait = max(0.0, self.seconds - one.job.submit)
                self.waits.setdefault(one.job.request.priority, []).append(wait)


def largest(tables: TopologyTables, mask: int) -> int:
    """Return how many of these GPUs are in the largest group, at the closest level that the host has."""
    for level in LADDER:
        if level is Affinity.ANY:
            break
        if int(tables.parts(level)[tables.all_gpus]).bit_count() > 1:
            return int(tables.parts(level)[mask]).bit_count()
    return mask.bit_count()


def beside(tables: TopologyTables, placement: Placement, job: SimJob) -> bool:
    """Say whether the CPUs lie where the job asked for them: a share beside each of its GPUs."""
    request, wanted = job.request, cpu_count(tables, job.request)
    if not wanted or request.cpu_affinity is CpuAffinity.ANY or not placement.gpus:
        return True
    shares: dict[int, int] = {}
    for gpu in bits(placement.gpus):
        place = tables.places[gpu]
        area = place.socket
        if request.cpu_affinity is CpuAffinity.NUMA and place.domain is not None:
            area = tables.domains[place.domain].cpus
        shares[area] = shares.get(area, 0) + 1
    given = placement.cpus.bit_count()
    number = placement.gpus.bit_count()
    inside = 0
    for area, gpus in shares.items():
        here = (placement.cpus & area).bit_count()
        inside |= area
        if here < ceil(given * gpus / number) - 1:
            return False
    return not placement.cpus & ~inside


def within_socket(tables: TopologyTables, cpus: int) -> bool:
    """Say whether these CPUs lie on one socket."""
    return sum(bool(cpus & socket.cpus.mask) for socket in tables.topology.sockets) <= 1


def insists(job: SimJob) -> bool:
    """Say whether a job would rather wait than run without its affinity."""
    return job.request.policy is Policy.GUARANTEED and job.request.affinity is not Affinity.ANY
