"""From jobs and events to the facts of a period.

The story tells when a job began and ended to hold its GPUs, so that what lies outside of the period, and
every run before a preemption, counts as it was. Of what is not in the story any more the job itself tells.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from topoctl.report.facts import Facts, Period, Placement, Preempted, Run, Stopped, Wait
from topod.model.request import LADDER
from topod.protocol.views import EventView, JobLine
from topotui.timeline import Preemption, Timeline

STARTS: Final = frozenset({"job.started", "job.restored"})
BEGINS: Final = frozenset({"job.submitted", "job.assigned", "job.placed"})
RAN: Final = frozenset({"job.preempted", "job.frozen", "job.restarting", "job.succeeded"})
"""Whoever these are told of was running."""
OUTCOMES: Final = ("succeeded", "failed", "cancelled", "lost")
ENDS: Final = RAN | {
    "job.failed",
    "job.cancelled",
    "job.lost",
    "job.returned",
    "job.requeued",
    "job.unplaced",
}
ON: Final = frozenset({"running", "stopping"})
UNKNOWN: Final = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one daemon told. `events`: all from the beginning of the period until `now`, oldest first."""

    name: str
    now: float
    jobs: Mapping[int, JobLine]
    events: Sequence[EventView]
    gpus: int = 0


def host_facts(source: Source, period: Period) -> Facts:
    """Return what happened on a host."""
    timeline = Timeline(kept=None)
    timeline.take(source.events)
    placed = [event for event in source.events if event.name == "job.placed" and period.holds(event.at)]
    return Facts(
        period=period,
        gpus=source.gpus,
        runs=_runs(source, period),
        placements=[found for event in placed if (found := _placement(event.data)) is not None],
        preemptions=[_preempted(one, source) for one in timeline.all if period.holds(one.placed_at)],
    )


def queue_facts(source: Source, period: Period) -> Facts:
    """Return what became of the jobs that were submitted to a host or a fleet."""
    facts = Facts(period=period)
    for event in source.events:
        _, _, what = event.name.partition("job.")
        if what in (*OUTCOMES, "submitted") and period.holds(event.at):
            facts.counts[what] += 1
    _add_waits(facts, source)
    return facts


def merged(period: Period, parts: Iterable[Facts]) -> Facts:
    """Return the facts of all."""
    whole = Facts(period=period)
    for part in parts:
        whole.gpus += part.gpus
        whole.runs += part.runs
        whole.placements += part.placements
        whole.preemptions += part.preemptions
        whole.waits += part.waits
        whole.waiting += part.waiting
        whole.counts += part.counts
        whole.notes += part.notes
    whole.preemptions.sort(key=lambda one: (one.at, one.host))
    return whole


# --- runs -------------------------------------------------------------------------------------------------


def _runs(source: Source, period: Period) -> list[Run]:
    about, reader = _About(source), _Runs(period)
    for event in source.events:
        if event.job is not None:
            reader.take(event, event.job, about)
    for line in source.jobs.values():
        if line.id not in reader.known and line.state in ON and line.started_at is not None:
            reader.began[line.id] = line.started_at
    on = [about.run(job, begin, source.now) for job, begin in reader.began.items()]
    return [run for run in reader.over + on if run.gpus and period.overlap(run.begin, run.end)]


class _Runs:
    """The runs of the jobs as the story tells them, event by event."""

    def __init__(self, period: Period) -> None:
        self.over: list[Run] = []
        self.began: dict[int, float] = {}
        self.known: dict[int, float] = {}
        """Jobs of which the story tells more than an end, with the moment of what it told last."""
        self._period = period
        self._stopping: set[int] = set()

    def take(self, event: EventView, job: int, about: "_About") -> None:
        if event.name == "job.stopping":
            self._stopping.add(job)
        elif event.name in BEGINS:
            self.known[job] = event.at
        elif event.name in STARTS:
            self.known[job] = self.began[job] = event.at
        elif event.name in ENDS:
            begin = self.began.pop(job, None)
            if begin is None:
                known, told = self.known.get(job), job in self._stopping
                begin = _untold(about.line(job), event, known, self._period, stopping=told)
            self.known[job] = event.at
            if begin is not None:
                self.over.append(about.run(job, begin, event.at))


def _untold(
    line: JobLine | None, event: EventView, known: float | None, period: Period, *, stopping: bool
) -> float | None:
    """Return since when a job ran until this event whose start the story does not tell; None: it did not."""
    started = line.started_at if line is not None else None
    if known is not None:
        # Told to stop while it was being started, it may have run for a moment all the same.
        return started if started is not None and known <= started <= event.at else None
    if event.name in RAN or stopping:
        return period.since
    # One that is cancelled while it waits may have run long ago.
    before = started is not None and started < period.since
    return period.since if before and event.name in ("job.failed", "job.lost") else None


class _About:
    """Who a job is: by the list of jobs, else by what the story tells."""

    def __init__(self, source: Source) -> None:
        self._jobs = source.jobs
        self._told: dict[int, dict[str, Any]] = {}
        for event in source.events:
            if event.job is None or event.job in source.jobs:
                continue
            if event.name == "job.submitted":
                self._told.setdefault(event.job, {}).update(event.data)
            elif event.name == "job.placed" and isinstance(plan := event.data.get("plan"), Mapping):
                self._told.setdefault(event.job, {})["gpus"] = len(plan.get("gpus") or ())

    def line(self, job: int) -> JobLine | None:
        return self._jobs.get(job)

    def run(self, job: int, begin: float, end: float) -> Run:
        line = self._jobs.get(job)
        if line is not None:
            return Run(user=line.user, priority=line.priority, gpus=line.gpus, begin=begin, end=end)
        told = self._told.get(job, {})
        return Run(
            user=str(told.get("user", UNKNOWN)),
            priority=int(told.get("priority", 0)),
            gpus=int(told.get("gpus", 0)),
            begin=begin,
            end=end,
        )


# --- placements and preemptions ---------------------------------------------------------------------------


def _placement(data: Mapping[str, Any]) -> Placement | None:
    plan = data.get("plan")
    if not isinstance(plan, Mapping) or len(plan.get("gpus") or ()) < 2:
        return None  # one GPU is as close to itself as can be
    names = [level.value for level in LADDER]
    got, steps = str(plan.get("affinity")), int((plan.get("cost") or {}).get("affinity_steps") or 0)
    if got not in names:
        return None
    return Placement(asked=names[max(0, names.index(got) - steps)], got=got)


def _preempted(one: Preemption, source: Source) -> Preempted:
    alternative = one.plan.get("alternative") or {}
    cost = one.plan.get("cost") or {}
    phases = dict(one.phases())
    if one.started_at is not None:
        phases["all"] = max(0.0, one.started_at - one.placed_at)
    return Preempted(
        at=one.placed_at,
        host=source.name,
        label=_label(source, one.job, one.label),
        victims=tuple(
            Stopped(label=_label(source, victim.job, f"job {victim.job}"), why=victim.why)
            for victim in one.victims
        ),
        phases=phases,
        result=one.gave_up or ("runs" if one.started_at is not None else "going on"),
        decided_by=str(alternative.get("decided_by") or ""),
        work_lost=float(cost.get("work_lost_gpu_seconds") or 0.0),
    )


def _label(source: Source, job: int, otherwise: str) -> str:
    line = source.jobs.get(job)
    return (line.label if line is not None else "") or otherwise


# --- waits ------------------------------------------------------------------------------------------------


def _add_waits(facts: Facts, source: Source) -> None:
    period = facts.period
    submitted: dict[int, EventView] = {}
    starts: dict[int, list[float]] = {}
    for event in source.events:
        if event.job is None:
            continue
        if event.name == "job.submitted":
            submitted[event.job] = event
        elif event.name == "job.started":
            starts.setdefault(event.job, []).append(event.at)
    for job, times in starts.items():
        first, line = submitted.get(job), source.jobs.get(job)
        # Without its submit in the story the first start seen may be a restart.
        known = first is not None or (line is not None and line.starts == len(times))
        if not known or not period.holds(times[0]):
            continue
        at = line.submitted_at if line is not None else first.at if first is not None else times[0]
        priority = line.priority if line is not None else int(first.data.get("priority", 0)) if first else 0
        facts.waits.append(Wait(priority=priority, seconds=max(0.0, times[0] - at)))
    for line in source.jobs.values():
        if _waits_at(line, period.until, starts.get(line.id, [])):
            facts.waiting.append(Wait(priority=line.priority, seconds=period.until - line.submitted_at))


def _waits_at(line: JobLine, moment: float, starts: Sequence[float]) -> bool:
    """Whether a job had been submitted and had never started at a moment."""
    ended = line.ended_at is not None and line.ended_at <= moment
    if ended or line.submitted_at >= moment:
        return False
    if line.starts and line.starts != len(starts):
        return False  # it started before the story begins
    return all(start >= moment for start in starts)
