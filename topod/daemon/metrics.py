"""What a host tells Prometheus: what it counts as it happens, and its state when it is asked."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from topod.daemon.mailbox import Mailbox
from topod.daemon.views import gpu_views
from topod.daemon.witness import Witness
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import ENDED, HostState, Job, JobState, MarkKind, StopCause
from topod.model.cpuset import CpuSet
from topod.model.request import Affinity
from topod.ports import Clock
from topod.protocol.views import GpuView
from topod.shell.health import Health
from topod.shell.metrics import catalogue as cat
from topod.shell.metrics.catalogue import level_of
from topod.shell.metrics.instruments import Instruments, Sample
from topod.shell.telling import Decision, Preempted, Verdict

_KEPT = frozenset(kind.value for kind in MarkKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known at one moment, in values that nobody changes any more."""

    state: HostState
    now: float
    recovered: bool
    preempting: int
    troubles: tuple[str, ...]


class HostMetrics:
    """Counts what the witness of a host sees. `look` in the event loop, `render` in any one thread."""

    def __init__(
        self,
        tables: TopologyTables,
        mailbox: Mailbox,
        witness: Witness,
        *,
        clock: Clock,
        health: Health,
        runtime: str,
        in_fleet: bool,
    ) -> None:
        """Begin to count; `runtime` is the name of what runs the jobs."""
        self.instruments = Instruments("host", cat.OF_HOST)
        self._tables = tables
        self._mailbox = mailbox
        self._witness = witness
        self._clock = clock
        self._health = health
        self._runtime = runtime
        self._in_fleet = in_fleet
        self._groups = {level.value: groups_of(tables, level) for level in cat.GROUPED}
        witness.counting = self

    # --- what the witness sees ------------------------------------------------------------------------------

    def decided(self, decision: Decision) -> None:
        """Take note of a decision."""
        count, request = self.instruments.count, decision.asked.spec.request
        outcome = decision.verdict.value
        count(cat.DECISIONS, outcome, level_of(request.priority))
        self.instruments.observe(cat.DECIDING, decision.seconds, outcome)
        if request.gpus and decision.verdict in (Verdict.PLACED, Verdict.PREEMPTING):
            count(cat.AFFINITY, request.affinity.value, "satisfied" if decision.satisfied else "missed")

    def preempted(self, done: Preempted) -> None:
        """Take note of a preemption that is over."""
        self.instruments.count(cat.PREEMPTIONS, "completed" if done.completed else "given_up")
        if done.completed and done.total is not None:
            self.instruments.observe(cat.PREEMPTION, done.total)
        for phase, seconds in done.phases.items():
            self.instruments.observe(cat.PHASES, seconds, phase.value)

    def changed(self, before: Job | None, job: Job) -> None:
        """Take note of a job that is not as it was."""
        count, level = self.instruments.count, level_of(job.priority)
        if before is None:
            count(cat.SUBMITTED, level)
        if job.state in ENDED and (before is None or before.state not in ENDED):
            count(cat.ENDED, job.state.value)
        if before is None:
            return
        if job.preemptions > before.preemptions and (
            before.stop is None or before.stop.cause is StopCause.PREEMPT
        ):
            count(cat.VICTIMS, level)
        first = job.starts == 1 and before.starts == 0 and job.started_at is not None
        if first and job.started_at is not None:
            self.instruments.observe(cat.QUEUE_WAIT, job.started_at - job.submitted_at, level)

    def noticed(self, outcome: Outcome) -> None:
        """Take note of what a step adds to the host's story."""
        for notice in outcome.notices:
            if notice.name == "gpu.marked":
                self.instruments.count(cat.GPU_MARKS, str(dict(notice.data)["mark"]))

    # --- what is told when it is asked ----------------------------------------------------------------------

    def look(self) -> Look:
        """Return what is to be told, at once."""
        return Look(
            state=self._mailbox.state,
            now=self._clock.now(),
            recovered=self._mailbox.recovered,
            preempting=self._witness.open,
            troubles=self._health.subjects,
        )

    def render(self, look: Look) -> bytes:
        """Return the text for Prometheus."""
        return self.instruments.render(self._samples(look), look.troubles)

    def _samples(self, look: Look) -> Iterator[Sample]:
        state, topology = look.state, self._tables.topology
        yield cat.HOST, (self._runtime, str(topology.emulated).lower()), 1
        yield cat.DRAINED, (), state.drain is not None
        yield cat.RECOVERED, (), look.recovered
        yield cat.ENGINE_UP, (), "runtime" not in look.troubles
        yield cat.STORE_UP, (), "store" not in look.troubles
        if self._in_fleet:
            yield cat.COORDINATOR_UP, (), "fleet" not in look.troubles
        yield cat.GPUS_SEEN, (), state.blind is None
        cpus = 0
        for text in state.foreign_cpus:
            cpus |= CpuSet.parse(text).mask
        yield cat.FOREIGN_CPUS, (), cpus.bit_count()
        yield cat.PREEMPTING, (), look.preempting
        yield from _of_jobs(look)
        yield from self._of_gpus(state)

    def _of_gpus(self, state: HostState) -> Iterator[Sample]:
        views = gpu_views(self._tables.topology, state, {})
        states = Counter(view.state for view in views.values())
        for name in cat.GPU_STATES:
            yield cat.GPUS, (name,), states[name]
        free = 0
        for at, gpu in enumerate(self._tables.topology.gpus):
            free |= (_group_state(views[gpu.index]) == "free") << at
        for level in cat.GROUPED:
            largest = int(self._tables.parts(level)[free]).bit_count() if free else 0
            yield cat.LARGEST_FREE, (level.value,), largest
        for affinity, groups in self._groups.items():
            for name, members in groups.items():
                grouped = Counter(_group_state(views[index]) for index in members)
                for word in cat.GROUP_STATES:
                    yield cat.GROUP_GPUS, (affinity, name, word), grouped[word]
        yield from self._of_marks(state)

    def _of_marks(self, state: HostState) -> Iterator[Sample]:
        for gpu in self._tables.topology.gpus:
            marks = state.marks.get(gpu.uuid, ())
            for kind in sorted({mark.kind.value for mark in marks if mark.blocks}):
                yield cat.GPU_MARKED, (str(gpu.index), kind), 1
            for cause in sorted({cause_word(cause) for mark in marks for cause in mark.causes}):
                yield cat.GPU_CAUSE, (str(gpu.index), cause), 1


def groups_of(tables: TopologyTables, level: Affinity) -> Mapping[str, tuple[int, ...]]:
    """Return the groups into which a host falls by an affinity: the indices of each, by their name."""
    gpus, rest = tables.topology.gpus, tables.all_gpus
    groups: dict[str, tuple[int, ...]] = {}
    while rest:
        part = int(tables.parts(level)[rest])
        members = tuple(gpu.index for at, gpu in enumerate(gpus) if part >> at & 1)
        groups[str(CpuSet.of(members))] = members
        rest ^= part
    return groups


def cause_word(cause: str) -> str:
    """Return the word for what was seen of a GPU: without the numbers that have no bounds."""
    if cause.startswith("pid-"):
        return "process"
    return "ecc" if cause.startswith("ecc-") else cause


def _of_jobs(look: Look) -> Iterator[Sample]:
    counts: Counter[tuple[str, str]] = Counter()
    oldest: dict[str, float] = {}
    for job in look.state.jobs.values():
        level = level_of(job.priority)
        counts[job.state.value, level] += 1
        if job.state is JobState.PENDING:
            oldest[level] = min(oldest.get(level, job.submitted_at), job.submitted_at)
    for state in cat.HOST_JOB_STATES:
        for level in cat.LEVELS:
            yield cat.JOBS, (state, level), counts[state, level]
    for level in cat.LEVELS:
        yield cat.OLDEST, (level,), max(0.0, look.now - oldest[level]) if level in oldest else 0


def _group_state(view: GpuView) -> str:
    if view.state == "free":
        return "free"
    return "kept_back" if view.state in _KEPT else "used"
