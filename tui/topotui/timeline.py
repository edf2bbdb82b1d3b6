"""Preemptions as the host's story tells them: who was stopped for whom, why, how long each took. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from topod.protocol.views import EventView

_ENDED = frozenset({"job.cancelled", "job.failed", "job.lost", "job.succeeded", "job.returned"})
_GONE = _ENDED | {"job.preempted", "job.frozen", "job.requeued"}
KEPT = 500
"""Preemptions that are remembered; the oldest go first."""


@dataclass(slots=True, kw_only=True)
class Victim:
    """One job that was stopped. Times are epoch seconds; None: not yet, or never."""

    job: int
    why: str = ""
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
    victims: list[Victim] = field(default_factory=list)
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

    def phases(self) -> list[tuple[str, float]]:
        """Return the parts that are over, in seconds: container made, victims stopped, job started."""
        moments = (
            ("make", self.placed_at, self.told_at),
            ("stop", self.told_at, self.freed_at),
            ("start", self.freed_at, self.started_at),
        )
        return [
            (name, max(0.0, end - begin))
            for name, begin, end in moments
            if begin is not None and end is not None
        ]


class Timeline:
    """The preemptions of a host, the latest last."""

    def __init__(self, kept: int | None = KEPT) -> None:
        """`kept`: so many are remembered; None: all."""
        self._kept = kept
        self.all: list[Preemption] = []
        self._open: dict[int, Preemption] = {}
        self._submitted: dict[int, float] = {}

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
                self._submitted[job] = event.at
            case "job.placed":
                changed = self._placed(event, job)
            case "job.stopping":
                changed = self._told(event, job)
            case "job.started":
                changed = self._ends(job, at=event.at)
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
        why = {one.get("job"): str(one.get("why", "")) for one in plan.get("victim_reasons") or []}
        found = Preemption(
            job=job,
            label=event.text.split(":")[0].removesuffix(" is restored"),
            placed_at=event.at,
            plan=plan,
            submitted_at=self._submitted.get(job),
            victims=[Victim(job=int(one), why=why.get(one, "")) for one in plan["victims"]],
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
                victim.told_at = event.at
                return True
        return False

    def _gone(self, event: EventView, job: int) -> bool:
        changed = False
        for preemption in self._open.values():
            for victim in preemption.victims:
                if victim.job == job and victim.told_at is not None and victim.gone_at is None:
                    victim.gone_at, changed = event.at, True
        # A preemptor that ended before it ran, cancelled by its user say, stops nobody any more.
        return (event.name in _ENDED and self._ends(job, why=event.text)) or changed

    def _ends(self, job: int, *, at: float | None = None, why: str = "") -> bool:
        found = self._open.pop(job, None)
        if found is None:
            return False
        found.started_at, found.gave_up = at, "" if at is not None else why
        return True
