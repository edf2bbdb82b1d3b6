"""What a coordinator tells Prometheus: what it counts as it happens, and its state when it is asked."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from topod.coordinator.counting import gpus_of
from topod.coordinator.mailbox import Mailbox
from topod.coordinator.views import standing
from topod.coordinator.witness import Witness
from topod.fleet.states import ENDED, FleetJob, FleetJobState, FleetState
from topod.fleet.view import FleetView
from topod.ports import Clock
from topod.shell.health import Health
from topod.shell.metrics import catalogue as cat
from topod.shell.metrics.catalogue import level_of
from topod.shell.metrics.instruments import Instruments, Sample
from topod.shell.telling import Decision

NOW = ("connections", "half_open")
"""What the port counts as it is now; all else only rises."""
OPENED = ("accepted", "admitted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known at one moment, in values that nobody changes any more."""

    state: FleetState | None
    """None: it does not lead."""
    view: FleetView
    now: float
    port: Mapping[str, int]
    troubles: tuple[str, ...]


class FleetMetrics:
    """Counts what the witness of a coordinator sees. `look` in the event loop, `render` in any one thread."""

    def __init__(
        self,
        witness: Witness,
        *,
        clock: Clock,
        health: Health,
        port: Callable[[], Mapping[str, int]],
        leading: Callable[[], Mailbox | None],
    ) -> None:
        """Begin to count; `port` returns what the port counts, `leading` who owns the state, if here."""
        self.instruments = Instruments("coordinator", cat.OF_FLEET, elsewhere=(cat.PORT, cat.REFUSED))
        self._clock = clock
        self._health = health
        self._port = port
        self._leading = leading
        witness.counting = self

    def decided(self, decision: Decision) -> None:
        """Take note of a decision."""
        outcome, priority = decision.verdict.value, decision.asked.spec.request.priority
        self.instruments.count(cat.FLEET_DECISIONS, outcome, level_of(priority))
        self.instruments.observe(cat.FLEET_DECIDING, decision.seconds, outcome)
        if decision.victims:
            self.instruments.count(cat.FLEET_VICTIMS, by=len(decision.victims))

    def changed(self, before: FleetJob | None, job: FleetJob) -> None:
        """Take note of a job that is not as it was."""
        level = level_of(job.priority)
        if before is None:
            self.instruments.count(cat.FLEET_SUBMITTED, level)
        if job.state in ENDED and (before is None or before.state not in ENDED):
            self.instruments.count(cat.FLEET_ENDED, job.state.value)
        if before is None:
            return
        if job.state is FleetJobState.PENDING and before.state is not FleetJobState.PENDING:
            self.instruments.count(cat.FLEET_REQUEUED)
        if job.started_at is not None and before.started_at is None:
            self.instruments.observe(cat.FLEET_WAIT, job.started_at - job.submitted_at, level)

    def look(self) -> Look:
        """Return what is to be told, at once."""
        leading = self._leading()
        return Look(
            state=None if leading is None else leading.state,
            view=FleetView() if leading is None else leading.view,
            now=self._clock.now(),
            port=dict(self._port()),
            troubles=self._health.subjects,
        )

    def render(self, look: Look) -> bytes:
        """Return the text for Prometheus."""
        return self.instruments.render(_samples(look), look.troubles)


def _samples(look: Look) -> Iterator[Sample]:
    yield cat.LEADS, (), look.state is not None
    yield cat.STORE_UP, (), "store" not in look.troubles
    yield cat.CONNECTIONS, ("all",), look.port.get("connections", 0)
    yield cat.CONNECTIONS, ("half_open",), look.port.get("half_open", 0)
    for name in OPENED:
        yield cat.PORT, (name,), look.port.get(name, 0)
    for name, value in sorted(look.port.items()):
        if name not in (*NOW, *OPENED):
            yield cat.REFUSED, (name,), value
    if look.state is not None:
        yield from _of_jobs(look.state, look.now)
        yield from _of_hosts(look.state, look.view, look.now)


def _of_jobs(state: FleetState, now: float) -> Iterator[Sample]:
    counts: Counter[tuple[str, str]] = Counter()
    oldest: dict[str, float] = {}
    for job in state.jobs.values():
        level = level_of(job.priority)
        counts[job.state.value, level] += 1
        if job.state is FleetJobState.PENDING:
            oldest[level] = min(oldest.get(level, job.submitted_at), job.submitted_at)
    for word in cat.FLEET_JOB_STATES:
        for level in cat.LEVELS:
            yield cat.FLEET_JOBS, (word, level), counts[word, level]
    for level in cat.LEVELS:
        yield cat.FLEET_OLDEST, (level,), max(0.0, now - oldest[level]) if level in oldest else 0


def _of_hosts(state: FleetState, view: FleetView, now: float) -> Iterator[Sample]:
    hosts = Counter(standing(record, view.hosts.get(name), now)[0] for name, record in state.hosts.items())
    for word in cat.HOST_STATES:
        yield cat.FLEET_HOSTS, (word,), hosts[word]
    gpus = gpus_of(view)
    for word in cat.GROUP_STATES:
        yield cat.FLEET_GPUS, (word,), gpus[word]
