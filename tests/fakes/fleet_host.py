"""A host that keeps the contract with a coordinator, and nothing else: what it must do, as plainly as possible.

Its `disk` survives topod, its containers too; a power cut ends the containers.
"""

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from math import inf

from topod.fleet.hosts import HeldBy, HostSnapshot, occupancy_at
from topod.fleet.orders import HostOrders
from topod.fleet.promised import gpu_mask
from topod.fleet.states import OVER
from topod.flextopo.tables import TopologyTables
from topod.model.assignment import Assign, FleetJobReport, FleetTag, Place, Revoke, Settled
from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.job import JobSpec, OnHostLost
from topod.model.plan import Plan
from topod.preemption.search import plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What travels of `HostReport` and `HostHello`."""

    host: str
    session: str
    seq: int
    sent: float
    snapshot: HostSnapshot | None = None
    jobs: tuple[FleetJobReport, ...] | None = None
    hello: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What travels of `Orders`; `who` asks for a hello."""

    host: str
    session: str
    epoch: int = 0
    seq: int = 0
    echo: float = 0.0
    lease: float = 0.0
    seen: int = 0
    orders: HostOrders = field(default_factory=HostOrders)
    who: bool = False


@dataclass(slots=True, kw_only=True)
class Local:
    """One job in the host's table; `tag` None: a local user's."""

    id: int
    tag: FleetTag | None
    spec: JobSpec
    gpus: tuple[int, ...]
    cpus: CpuSet
    victims: tuple[str, ...] = ()
    state: str = "starting"
    reason: str = ""
    ready: bool = False
    then: str = ""
    """What it ends as, once it has stopped."""
    stops_at: float = 0.0
    starts: int = 0
    preemptions: int = 0
    started_at: float | None = None
    exit_code: int | None = None
    work: float = 0.0


class PretendHost:
    """`now` is the world's time; the host only ever looks at its own clock."""

    def __init__(self, name: str, tables: TopologyTables, rng: random.Random) -> None:
        self.name, self.tables, self.rng = name, tables, rng
        self.rate, self.offset = rng.uniform(0.96, 1.04), rng.uniform(0, 1e6)
        self.disk: dict[int, Local] = {}
        self.fences: dict[int, int] = {}
        self.epoch = 0
        self.next_local = 1
        self.labels: dict[str, str] = {}
        self.up = True
        self.power = True
        self.lease_file: float | None = None
        self.moody = 0.0
        """How often it refuses for no good reason."""
        self.generation = 0
        self.sessions = 0
        self.taken: Counter[tuple[int, int]] = Counter()
        """The referee's memory of what it began on, which nothing wipes."""
        self.made: set[tuple[int, int, int]] = set()
        """Members that were ready to go: job, fence, rank."""
        self.begin(keep_lease=False)

    # --- topod starts and ends ---

    def begin(self, *, keep_lease: bool) -> None:
        self.up, self.power = True, True
        self.sessions += 1
        self.session = f"{self.name}-{self.sessions}"
        self.seq = self.content_seq = self.seen = 0
        self.content: tuple[object, object] | None = None
        self.last_orders = (self.epoch, 0)
        self.lease = self.lease_file if keep_lease and self.lease_file is not None else 0.0

    def crash(self) -> None:
        self.up = False

    def power_off(self) -> None:
        self.up = self.power = False
        self.lease_file = None
        for job in self.disk.values():
            if job.state in ("starting", "running", "stopping"):
                job.state = "returned" if job.tag else "lost"
                job.reason = "the host was restarted"

    def wipe(self) -> None:
        """Lose the database with all it knew; the containers were removed as nobody's."""
        self.power_off()
        self.disk, self.fences, self.epoch, self.next_local = {}, {}, 0, 1

    def clock(self, now: float) -> float:
        return self.offset + now * self.rate

    def holds_lease(self, now: float) -> bool:
        return self.clock(now) < self.lease

    # --- what it says ---

    def report(self, now: float) -> Report:
        snapshot, jobs = self.snapshot(now), self.reports()
        contents = (replace(snapshot, generation=0), jobs)
        if contents != self.content:
            self.content, self.generation = contents, self.generation + 1
            self.content_seq = self.seq + 1
        self.seq += 1
        full = self.content_seq > self.seen
        if full:
            self.content_seq = self.seq
        return Report(
            host=self.name,
            session=self.session,
            seq=self.seq,
            sent=self.clock(now),
            snapshot=replace(snapshot, generation=self.generation) if full else None,
            jobs=jobs if full else None,
        )

    def hello(self, now: float) -> Report:
        return Report(host=self.name, session=self.session, seq=0, sent=self.clock(now), hello=True)

    def reports(self) -> tuple[FleetJobReport, ...]:
        return tuple(
            FleetJobReport(
                job=job.tag.job,
                fence=job.tag.fence,
                local=job.id,
                state=job.state,
                ready=job.ready,
                reason=job.reason,
                gpus=job.gpus,
                starts=job.starts,
                preemptions=job.preemptions,
                started_at=job.started_at,
                exit_code=job.exit_code,
            )
            for job in self.disk.values()
            if job.tag is not None
        )

    def snapshot(self, now: float) -> HostSnapshot:
        takers = [other for other in self.disk.values() if other.state == "starting"]
        holders = []
        for job in self.disk.values():
            if job.state not in ("starting", "running"):
                continue
            gpus, cpus = gpu_mask(job.gpus), job.cpus
            for taker in takers:
                if str(job.id) in taker.victims:
                    gpus, cpus = gpus & ~gpu_mask(taker.gpus), cpus - taker.cpus
            placing = job.state == "starting" and (
                bool(job.victims) or (job.tag is not None and job.tag.size > 1)
            )
            protection = (
                "being placed just now" if placing else "" if job.spec.preemptible else "not preemptible"
            )
            holders.append(
                HeldBy(
                    job=str(job.id),
                    priority=job.spec.request.priority,
                    gpus=gpus,
                    cpus=cpus,
                    guard_priority=job.tag.guard_priority if job.tag is not None else None,
                    guarded_until=inf
                    if job.started_at is None or job.tag is None
                    else job.started_at + job.tag.guard_seconds,
                    evictable_from=None if protection else 0.0,
                    protection=protection,
                    work_since=job.started_at if job.state == "running" else None,
                    work_gpus=len(job.gpus),
                )
            )
        return HostSnapshot(host=self.name, generation=0, holders=tuple(holders))

    # --- what it is told ---

    def take(self, orders: Orders, now: float) -> bool:
        """Carry out orders; say whether a hello is asked for."""
        if not self.up or orders.session != self.session:
            return False
        if orders.who:
            return True
        if orders.epoch < self.epoch or (orders.epoch, orders.seq) <= self.last_orders:
            return False
        self.epoch, self.last_orders = orders.epoch, (orders.epoch, orders.seq)
        if orders.echo:
            self.lease = max(self.lease, orders.echo + orders.lease)
            self.lease_file = self.lease
        self.seen = orders.seen  # lower than before: another coordinator leads
        for revoke in orders.orders.revoke:
            self._revoke(revoke, now)
        for settled in orders.orders.settled:
            self._forget(settled)
        for assign in orders.orders.assign:
            self._assign(assign, now)
        for ident, priority in orders.orders.priorities.items():
            self._prioritise(ident, priority)
        return False

    def _prioritise(self, job: int, priority: int) -> None:
        for local in self._of(job):
            local.spec = replace(local.spec, request=replace(local.spec.request, priority=priority))

    def _forget(self, settled: Settled) -> None:
        for job in self._of(settled.job, settled.fence):
            if job.state in OVER:
                del self.disk[job.id]

    def _of(self, job: int, fence: int | None = None) -> list[Local]:
        return [
            local
            for local in self.disk.values()
            if local.tag is not None and local.tag.job == job and (fence is None or local.tag.fence == fence)
        ]

    def _assign(self, assign: Assign, now: float) -> None:
        tag = assign.tag
        known = self.fences.get(tag.job, 0)
        if tag.fence == known and tag.go:
            for job in self._of(tag.job, tag.fence):
                if job.state == "starting" and job.ready and self.holds_lease(now):
                    job.tag, job.ready = tag, False
        if tag.fence <= known or not self.holds_lease(now):
            return
        self.fences[tag.job] = tag.fence
        for job in self._of(tag.job):  # of a lower fence: it must be gone before
            self.stop(job, now, "returned", "given away")
        answer = plan(self.tables, occupancy_at(self.snapshot(now), now), assign.spec.request)
        good = (
            isinstance(answer, Plan)
            and (answer.gpus, answer.victims) == (assign.place.gpus, assign.place.victims)
            and self.rng.random() >= self.moody
        )
        if good and isinstance(answer, Plan):
            self.taken[tag.job, tag.fence] += 1
            self.add(tag, assign.spec, answer)
        else:
            self.add(tag, assign.spec, None, state="refused", reason="its GPUs are not to be had as planned")

    def _revoke(self, revoke: Revoke, now: float) -> None:
        if revoke.fence > self.fences.get(revoke.job, 0):
            self.fences[revoke.job] = revoke.fence
            tag = FleetTag(job=revoke.job, fence=revoke.fence)
            self.add(tag, JobSpec(name="", command=()), None, state="returned", reason="never came")
        for job in self._of(revoke.job):
            if job.tag is not None and job.tag.fence <= revoke.fence:
                self.stop(job, now, "returned" if revoke.requeue else "cancelled", revoke.reason)

    def add(
        self,
        tag: FleetTag | None,
        spec: JobSpec,
        answer: Plan | None,
        state: str = "starting",
        reason: str = "",
    ) -> Local:
        job = Local(
            id=self.next_local,
            tag=tag,
            spec=spec,
            gpus=answer.gpus if answer else (),
            cpus=answer.cpus if answer else NO_CPUS,
            victims=answer.victims if answer else (),
            state=state,
            reason=reason,
        )
        self.next_local += 1
        self.disk[job.id] = job
        return job

    def stop(self, job: Local, now: float, then: str, reason: str) -> None:
        if job.state in OVER or job.state == "stopping":
            if job.state == "stopping" and job.then == "returned" and then == "cancelled":
                job.then = then
            return
        job.then, job.reason = then, reason
        if job.state == "running":
            job.state = "stopping"
            job.stops_at = self.clock(now) + self.rng.uniform(0.0, job.spec.grace_seconds + 30.0)
        else:
            job.state = then

    # --- what goes on there ---

    def running(self) -> list[Local]:
        """The containers that run, whether topod does or not."""
        return [job for job in self.disk.values() if job.state in ("running", "stopping")]

    def act(self, now: float) -> None:
        """One second passes."""
        if not self.power:
            return
        self._containers_end(now)
        if not self.up:
            return
        held = self.holds_lease(now)
        for job in list(self.disk.values()):
            if job.tag is None and job.state not in ("starting", "running", "stopping"):
                del self.disk[job.id]
            elif job.tag is not None and not held and job.tag.on_host_lost is OnHostLost.REQUEUE:
                self.stop(job, now, "returned", "cut off from the coordinator")
        for job in [job for job in self.disk.values() if job.state == "starting"]:
            self._go_on(job, now)

    def _containers_end(self, now: float) -> None:
        for job in self.running():
            if job.state == "stopping" and (job.stops_at <= self.clock(now) or self.rng.random() < 0.3):
                # Without topod a container that was not killed yet goes on: its grace ends with SIGKILL only.
                if self.up:
                    job.state = job.then
            elif job.state == "running":
                job.work += 1.0
                if job.work > float(job.spec.labels.get("seconds", "20")):
                    code = int(job.spec.labels.get("code", "0"))
                    if self.up:
                        job.state, job.exit_code = ("failed" if code else "succeeded"), code

    def _go_on(self, job: Local, now: float) -> None:
        if job.tag is not None and job.tag.size > 1 and not job.tag.go:
            if self.rng.random() < 0.3:  # its image is being pulled, its container made
                job.ready = True
                self.made.add((job.tag.job, job.tag.fence, job.tag.rank))
            return
        for victim in job.victims:
            other = self.disk.get(int(victim))
            if other is not None and other.state in ("starting", "running"):
                other.preemptions += 1
                self.stop(other, now, "returned" if other.tag else "cancelled", f"preempted by {job.id}")
        busy = {gpu for other in self.running() if other.id != job.id for gpu in other.gpus}
        mine = any(
            other.id != job.id
            for other in self.running()
            if other.tag and job.tag and other.tag.job == job.tag.job
        )
        if not busy & set(job.gpus) and not mine:
            job.state, job.started_at, job.starts = "running", now, job.starts + 1

    def local_user(self, spec: JobSpec, now: float) -> None:
        """A user of the host itself wants a job; it starts now or never."""
        answer = plan(self.tables, occupancy_at(self.snapshot(now), now), spec.request)
        if self.up and isinstance(answer, Plan):
            self.add(None, spec, answer)


__all__ = ["Local", "Orders", "Place", "PretendHost", "Report"]
