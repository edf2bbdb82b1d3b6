"""Preemptions as the host's story tells them: who was stopped for whom, why, how long each took. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from topod.protocol.views import EventView

_ENDED = frozenset({"job.cancelled", "job.failed", "job.lost", "job.succeeded", "job.returned"})
_GONE = _ENDED | {"job.preempted", "job.frozen", "job.requeued"}
TOLD = _GONE | {
    *("job.submitted", "job.reprioritised", "job.placed", "job.unplaced"),
    *("job.stopping", "job.started", "job.restored"),
}
"""The events that say something of a preemption."""
KEPT = 500
"""Preemptions that are remembered; the oldest go first."""


@dataclass(slots=True, kw_only=True)
class Victim:
    """One job that was stopped. Times are epoch seconds; None: not yet, or never."""

    job: int
    why: str = ""
    label: str = ""
    """How topod names it in sentences."""
    priority: int | None = None
    told_at: float | None = None
    gone_at: float | None = None


@dataclass(slots=True, kw_only=True)
class Preemption:
    """One preemption, from its plan until the preemptor runs or gives up."""

    job: int
    label: str
    placed_at: float
    plan: Mapping[str, Any]
    submitted_at: float | None = None
    priority: int | None = None
    victims: list[Victim] = field(default_factory=list)
    decide_seconds: float | None = None
    start_seconds: float | None = None
    """Of the runtime, to start it; None: not started, or by a topod that does not tell."""
    started_at: float | None = None
    gave_up: str = ""

    @property
    def told_at(self) -> float | None:
        """When the first victim was told to stop."""
        return min((one.told_at for one in self.victims if one.told_at is not None), default=None)

    @property
    def freed_at(self) -> float | None:
        """When the last victim was gone; None while one is not."""
        gone = [one.gone_at for one in self.victims]
        return None if None in gone or not gone else max(at for at in gone if at is not None)

    @property
    def open(self) -> bool:
        """Whether it is still going on."""
        return self.started_at is None and not self.gave_up

    @property
    def launched_at(self) -> float | None:
        """When the GPUs were found free and the runtime was told to start it."""
        if self.started_at is None or self.start_seconds is None:
            return None
        return max(self.freed_at or self.placed_at, self.started_at - self.start_seconds)

    def spans(self) -> list[tuple[str, float, float]]:
        """Return the phases that are over, each with its begin and its end.

        `decide`: the plan; `create`: the container, nobody is stopped yet; `stop`: until the last victim is
        gone; `free`: until the GPUs are really free; `start`: until it runs.
        """
        launched = self.launched_at
        moments = (
            ("decide", self.placed_at, self.placed_at + (self.decide_seconds or 0.0)),
            ("create", self.placed_at, self.told_at),
            ("stop", self.told_at, self.freed_at),
            ("free", self.freed_at, launched),
            ("start", launched or self.freed_at, self.started_at),
        )
        return [
            (name, begin, max(begin, end))
            for name, begin, end in moments
            if begin is not None and end is not None and (name != "decide" or self.decide_seconds is not None)
        ]

    def phases(self) -> list[tuple[str, float]]:
        """Return the phases that are over, in seconds; see `spans`."""
        return [(name, end - begin) for name, begin, end in self.spans()]


class Timeline:
    """The preemptions of a host, the latest last."""

    def __init__(self, kept: int | None = KEPT) -> None:
        """`kept`: so many are remembered; None: all."""
        self._kept = kept
        self.all: list[Preemption] = []
        self._open: dict[int, Preemption] = {}
        self._submitted: dict[int, tuple[float, int | None]] = {}
        """When, and with which priority, of jobs that have not ended."""

    def take(self, events: Sequence[EventView]) -> bool:
        """Take in the next events of the story; return whether a preemption changed."""
        before = [self._take(event) for event in events]
        return any(before)

    def _take(self, event: EventView) -> bool:
        job = event.job
        if job is None:
            return False
        changed = False
        match event.name:
            case "job.submitted":
                self._submitted[job] = event.at, _priority(event)
            case "job.reprioritised":
                self._submitted[job] = self._submitted.get(job, (event.at, None))[0], _priority(event)
            case "job.placed":
                changed = self._placed(event, job)
            case "job.stopping":
                changed = self._told(event, job)
            case "job.started" | "job.restored":
                changed = self._runs(event, job)
            case "job.unplaced":
                changed = self._ends(job, why=event.text)
            case name if name in _GONE:
                changed = self._gone(event, job)
            case _:
                pass
        return changed

    def _placed(self, event: EventView, job: int) -> bool:
        plan = event.data.get("plan")
        if not isinstance(plan, Mapping) or not plan.get("victims"):
            return False
        reasons = {one.get("job"): one for one in plan.get("victim_reasons") or []}
        submitted_at, priority = self._submitted.get(job, (None, None))
        found = Preemption(
            job=job,
            label=event.text.split(":")[0].removesuffix(" is restored"),
            placed_at=event.at,
            plan=plan,
            submitted_at=submitted_at,
            priority=priority,
            victims=[_victim(int(one), reasons.get(one, {})) for one in plan["victims"]],
            decide_seconds=_number(event.data.get("decide_seconds")),
        )
        self._open[job] = found
        self.all.append(found)
        if self._kept is not None:
            del self.all[: -self._kept]
        return True

    def _told(self, event: EventView, job: int) -> bool:
        by = event.data.get("by")
        for victim in self._open[by].victims if by in self._open else ():
            if victim.job == job and victim.told_at is None:
                victim.told_at, victim.label = event.at, event.text.partition(" is told")[0]
                return True
        return False

    def _gone(self, event: EventView, job: int) -> bool:
        changed = False
        for preemption in self._open.values():
            for victim in preemption.victims:
                if victim.job == job and victim.gone_at is None:
                    victim.gone_at, changed = event.at, True
        if event.name in _ENDED:
            self._submitted.pop(job, None)
        # A preemptor that ended before it ran, cancelled by its user say, stops nobody any more.
        return (event.name in _ENDED and self._ends(job, why=event.text)) or changed

    def _runs(self, event: EventView, job: int) -> bool:
        if job in self._open:
            self._open[job].start_seconds = _number(event.data.get("start_seconds"))
        return self._ends(job, at=event.at)

    def _ends(self, job: int, *, at: float | None = None, why: str = "") -> bool:
        found = self._open.pop(job, None)
        if found is None:
            return False
        found.started_at, found.gave_up = at, "" if at is not None else why
        return True


def _victim(job: int, reason: Mapping[str, Any]) -> Victim:
    priority = _number(reason.get("priority"))
    return Victim(
        job=job, why=str(reason.get("why", "")), priority=None if priority is None else int(priority)
    )


def _priority(event: EventView) -> int | None:
    found = event.data.get("priority")
    return found if isinstance(found, int) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
