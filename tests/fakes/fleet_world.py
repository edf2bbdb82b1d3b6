"""A fleet in virtual time: one coordinator's core, pretended hosts, and a network that does what networks do.

Only what the outcomes list is kept by `Store`; a coordinator that crashes comes back with that and nothing else.
After every second the rules are checked.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.fakes.fleet_host import Orders, PretendHost, Report
from tests.oracles.plain_picker import PlainPicker
from topod.discovery.library import load_library_host
from topod.fleet import events as ev
from topod.fleet.board import Board
from topod.fleet.machine import step_all
from topod.fleet.orders import orders_for
from topod.fleet.outcome import FleetOutcome
from topod.fleet.picking import Picker
from topod.fleet.promised import gpu_mask
from topod.fleet.states import (
    ENDED,
    FIRST_JOB,
    FleetJob,
    FleetJobId,
    FleetJobState,
    FleetRequest,
    FleetState,
    HostRecord,
)
from topod.fleet.terms import Terms
from topod.fleet.view import FleetView
from topod.flextopo.tables import TopologyTables
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.model.rules import NO_RULES, Rules

TERMS = Terms(lease_seconds=20.0, silent_after_seconds=6.0, ready_seconds=90.0)
TABLES: dict[str, TopologyTables] = {}


def tables_of(kind: str) -> TopologyTables:
    if kind not in TABLES:
        TABLES[kind] = TopologyTables(load_library_host(kind).topology)
    return TABLES[kind]


def job_spec(gpus: int = 1, priority: int = 500, seconds: int = 20, code: int = 0, **more: Any) -> JobSpec:
    request = ResourceRequest(gpus=gpus, priority=priority)
    labels = {"seconds": str(seconds), "code": str(code)}
    return replace(
        JobSpec(name="job", command=("work",), request=request, labels=labels, grace_seconds=5.0), **more
    )


@dataclass(slots=True)
class Store:
    """What is durable."""

    next_job: FleetJobId = FIRST_JOB
    next_fence: int = 1
    epoch: int = 0
    generation: int = 0
    jobs: dict[FleetJobId, FleetJob] = field(default_factory=dict)
    hosts: dict[str, HostRecord] = field(default_factory=dict)

    def write(self, outcome: FleetOutcome) -> None:
        state = outcome.state
        self.next_job, self.next_fence = state.next_job, state.next_fence
        self.epoch, self.generation = state.epoch, state.generation
        for job in outcome.changed:
            self.jobs[job.id] = job
        for record in outcome.changed_hosts:
            self.hosts[record.name] = record
        for name in outcome.removed_hosts:
            del self.hosts[name]

    def state(self) -> FleetState:
        return FleetState(
            generation=self.generation,
            next_job=self.next_job,
            next_fence=self.next_fence,
            epoch=self.epoch,
            jobs={ident: job for ident, job in self.jobs.items() if job.state not in ENDED},
            hosts=dict(self.hosts),
        )


@dataclass(frozen=True, slots=True)
class Leader:
    """What a coordinator has in memory."""

    state: FleetState
    view: FleetView
    sent: dict[str, tuple[str, float]]
    """By host: the session and `sent` of the last report that was taken in."""


class FleetWorld:
    def __init__(
        self,
        kinds: list[str],
        seed: int = 0,
        rules: Rules = NO_RULES,
        picker: Callable[[], Picker] = PlainPicker,
        host: Callable[[str, TopologyTables, random.Random], PretendHost] = PretendHost,
    ) -> None:
        self.random = random.Random(seed)
        self.rules = rules
        self.picker = picker
        self.now = 1000.0
        self.store = Store()
        self.hosts = {f"h{n}": host(f"h{n}", tables_of(kind), self.random) for n, kind in enumerate(kinds)}
        self.wire: list[tuple[float, Report | Orders]] = []
        self.trouble = 0.0
        """How bad the network is: the part of messages that are lost, repeated, or late."""
        self.cut: dict[str, float] = {}
        """Hosts that nothing reaches, and until when."""
        self.back: dict[str, tuple[float, bool]] = {}
        """Hosts whose topod is dead: when it comes back, and whether its lease file is there."""
        self.zombies: list[tuple[float, Leader]] = []
        self.orders_seq = 0
        self.notices: list[str] = []
        self.confirmed: set[tuple[str, int, int]] = set()
        """Assignments that a host told of: host, job, fence."""
        self.lead()

    # --- the coordinator ---

    def lead(self) -> None:
        """A coordinator starts, with what is durable and nothing else."""
        self.board = Board(self.picker())
        self.orders_seq = 0
        self.leader = Leader(self.store.state(), FleetView(), {})
        self.apply(ev.Leading(epoch=self.store.epoch + 1))

    def fail_over(self) -> None:
        """Another coordinator leads; the old one lives on for a while and knows nothing of it."""
        self.zombies.append((self.now + 15.0, self.leader))
        self.lead()

    def apply(self, *events: ev.Event) -> FleetOutcome:
        before = self.leader
        outcome = step_all(
            before.state, before.view, self.board, events, self.now, rules=self.rules, terms=TERMS
        )
        self.store.write(outcome)
        self.notices += [notice.text for notice in outcome.notices]
        self.leader = Leader(outcome.state, outcome.view, before.sent)
        self.check_durable()
        self.confirmed |= {
            (member.host, job.id, job.fence)
            for job in outcome.changed
            for member in job.members
            if member.report is not None
        }
        for host in outcome.orders:
            self.order(host)
        return outcome

    def order(self, host: str) -> None:
        self.orders_seq += 1
        self.send(self.orders_of(self.leader, host, self.store.epoch, TERMS.lease_seconds))

    def orders_of(self, leader: Leader, host: str, epoch: int, lease: float) -> Orders:
        seen = leader.view.hosts.get(host)
        session, sent = leader.sent.get(host, ("", 0.0))
        mine = seen is not None and session == seen.session
        return Orders(
            host=host,
            session=seen.session if seen else "",
            epoch=epoch,
            seq=self.orders_seq,
            echo=sent if mine else 0.0,
            lease=lease,
            seen=seen.seen if seen else 0,
            orders=orders_for(leader.state, leader.view, host),
        )

    def receive(self, report: Report) -> None:
        view = self.leader.view
        if report.hello:
            host = self.hosts[report.host]
            self.apply(
                ev.HostSeen(
                    host=report.host,
                    session=report.session,
                    tables=host.tables,
                    labels=host.labels,
                    hardware=host.tables.topology.name,
                )
            )
            return
        if not view.knows(report.host, report.session):
            self.send(Orders(host=report.host, session=report.session, who=True))
            return
        session, sent = self.leader.sent.get(report.host, ("", 0.0))
        newest = report.sent if session != report.session else max(sent, report.sent)
        self.leader.sent[report.host] = (report.session, newest)
        self.apply(
            ev.HostReported(
                host=report.host,
                session=report.session,
                seq=report.seq,
                snapshot=report.snapshot,
                jobs=report.jobs,
            )
        )
        self.order(report.host)

    # --- the network ---

    def send(self, message: Report | Orders) -> None:
        copies = 2 if self.random.random() < self.trouble / 2 else 1
        for _ in range(copies):
            if self.random.random() < self.trouble:
                continue
            late = self.random.choice([0.0, 1.0, 5.0, 30.0]) if self.random.random() < self.trouble else 0.0
            self.wire.append((self.now + late, message))

    def deliver(self) -> None:
        for _ in range(4):  # answers to answers, within the second
            due = [entry for entry in self.wire if entry[0] <= self.now]
            if not due:
                return
            self.wire = [entry for entry in self.wire if entry[0] > self.now]
            if self.trouble:
                self.random.shuffle(due)
            for _, message in due:
                if message.host in self.cut:
                    continue
                host = self.hosts[message.host]
                if isinstance(message, Report):
                    self.receive(message)
                elif host.take(message, self.now):
                    self.send(host.hello(self.now))

    # --- time ---

    def second(self) -> None:
        self.now += 1.0
        self.cut = {host: until for host, until in self.cut.items() if until > self.now}
        for name, (until, keep) in list(self.back.items()):
            if until <= self.now:
                del self.back[name]
                self.hosts[name].begin(keep_lease=keep)
                self.send(self.hosts[name].hello(self.now))
        for host in self.hosts.values():
            host.act(self.now)
            if host.up and (self.now % 2 == 0 or self.random.random() < 0.3):
                self.send(host.report(self.now))
        self.deliver()
        self.zombies = [entry for entry in self.zombies if entry[0] > self.now]
        for _, zombie in self.zombies:
            for name in self.hosts:
                self.send(self.orders_of(zombie, name, zombie.state.epoch, 0.0))
        self.apply(ev.Tick())
        self.check()

    def advance(self, seconds: int) -> None:
        for _ in range(seconds):
            self.second()

    def wipe(self, name: str) -> None:
        """A host loses its database: what the coordinator knows that it took is not begun on again."""
        host = self.hosts[name]
        host.wipe()
        host.taken = Counter({pair: 1 for pair in host.taken if (name, *pair) in self.confirmed})

    # --- shorthands ---

    def submit(self, spec: JobSpec | None = None, **more: Any) -> FleetJobId:
        ident = self.leader.state.next_job
        request = replace(FleetRequest(spec=spec or job_spec()), **more)
        self.apply(ev.Submitted(request=request))
        return ident

    def job(self, ident: FleetJobId) -> FleetJob:
        return self.leader.state.jobs.get(ident) or self.store.jobs[ident]

    def where(self, ident: FleetJobId) -> list[str]:
        return [member.host for member in self.job(ident).members]

    def on(self, ident: FleetJobId) -> dict[str, str]:
        """The state of a job on each host that knows of it, whatever the coordinator thinks."""
        return {
            name: local.state
            for name, host in self.hosts.items()
            for local in host.disk.values()
            if local.tag is not None and local.tag.job == ident
        }

    # --- the rules ---

    def check(self) -> None:
        self.check_running()
        self.check_promises()
        self.check_quotas()
        self.check_arrays()
        for job in self.leader.state.jobs.values():
            if job.state is FleetJobState.PENDING:
                assert job.reason, f"{job.label} waits and does not say why"
                assert not job.members

    def check_running(self) -> None:
        """No job runs twice, and no GPU is used by two."""
        runs: dict[int, set[tuple[int, int]]] = {}
        places: dict[tuple[int, int], set[str]] = {}
        for name, host in self.hosts.items():
            used = 0
            for local in host.running():
                mask = gpu_mask(local.gpus)
                assert not used & mask, f"{name}: GPUs used twice"
                used |= mask
                if local.tag is not None:
                    runs.setdefault(local.tag.job, set()).add((local.tag.fence, local.tag.size))
                    places.setdefault((local.tag.job, local.tag.rank), set()).add(name)
            for pair, times in host.taken.items():
                assert times == 1, f"{name} began {times} times on {pair}"
        made = {member for host in self.hosts.values() for member in host.made}
        for host in self.hosts.values():
            for tag in (local.tag for local in host.disk.values() if local.tag is not None and local.tag.go):
                assert all((tag.job, tag.fence, rank) in made for rank in range(tag.size)), (
                    "not all were ready"
                )
        for job, fences in runs.items():
            assert len(fences) == 1, (
                f"t={self.now}: job {job} runs in assignments {fences}: {self.on(FleetJobId(job))}"
            )
        for (job, rank), names in places.items():
            assert len(names) == 1, f"job {job}, rank {rank} runs on {names}"

    def check_promises(self) -> None:
        """What was given away on a host, and was not confirmed, is nobody else's."""
        for name in self.leader.view.hosts:
            taken = 0
            for job in self.leader.state.jobs.values():
                member = job.on(name)
                if member is None or member.over or member.report is not None:
                    continue
                mask = gpu_mask(member.place.gpus)
                assert not taken & mask, f"{name}: GPUs promised twice"
                taken |= mask

    def check_quotas(self) -> None:
        used: Counter[str] = Counter()
        for job in self.leader.state.jobs.values():
            used[job.spec.user] += job.spec.request.gpus * sum(not member.over for member in job.members)
        for quota in self.rules.quotas:
            assert used[quota.value] <= quota.gpus, f"{quota.value} holds {used[quota.value]} GPUs"

    def check_arrays(self) -> None:
        """No more of an array than its limit were given to hosts."""
        held = Counter(job.array.id for job in self.leader.state.jobs.values() if job.array and job.members)
        for job in self.leader.state.jobs.values():
            if job.array is not None and job.array.limit is not None:
                assert held[job.array.id] <= job.array.limit, f"{job.label}: {held[job.array.id]} hold"
            if job.after:
                assert not job.members, f"{job.label} does not wait for {job.after}"

    def check_durable(self) -> None:
        """What a restart would find is what is known, but for what pending jobs wait for."""
        kept, state = self.store.state(), self.leader.state
        assert replace(kept, jobs={}) == replace(state, jobs={})
        assert kept.jobs.keys() == state.jobs.keys()
        for ident, job in state.jobs.items():
            if job.state is FleetJobState.PENDING:
                assert replace(kept.jobs[ident], reason="") == replace(job, reason="")
            else:
                assert kept.jobs[ident] == job
