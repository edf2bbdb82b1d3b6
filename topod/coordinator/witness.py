"""Watches what the steps of a fleet lead to, and tells its decisions: a line of the log for each.

It sees each step when that is durable, from the outside: the core knows nothing of it.
"""

import logging
from dataclasses import dataclass
from typing import Protocol

from topod.fleet.outcome import FleetOutcome
from topod.fleet.states import ENDED, FleetJob, FleetJobState, FleetState
from topod.model.cpuset import CpuSet
from topod.shell.logs import Key
from topod.shell.telling import Asked, Decision, Verdict, log_decision

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """A step that is durable: what was before, what came of it, and how long it took to decide (seconds)."""

    before: FleetState
    outcome: FleetOutcome
    seconds: float


class Counting(Protocol):
    """Who counts what a coordinator's witness sees."""

    def decided(self, decision: Decision) -> None:
        """Take note of a decision."""
        ...

    def changed(self, before: FleetJob | None, job: FleetJob) -> None:
        """Take note of a job that is not as it was."""
        ...


class Witness:
    """Sees the steps of one coordinator, whenever it leads. Used from the event loop only."""

    def __init__(self) -> None:
        self.counting: Counting | None = None

    def saw(self, step: Stepped) -> None:
        """Tell what a step led to. Never raises."""
        try:
            for job in step.outcome.changed:
                self._saw(step, step.before.jobs.get(job.id), job)
        except Exception:
            # Who only watches must not stand in the way.
            log.exception("witness.failed")

    def _saw(self, step: Stepped, before: FleetJob | None, job: FleetJob) -> None:
        if self.counting is not None:
            self.counting.changed(before, job)
        decision = decision_of(step, before, job)
        if decision is None:
            return
        log_decision(log, decision)
        if self.counting is not None:
            self.counting.decided(decision)


def decision_of(step: Stepped, before: FleetJob | None, job: FleetJob) -> Decision | None:
    """Return what a step decided about a job that changed in it; None: nothing."""
    verdict = _verdict(before, job)
    if verdict is None:
        return None
    placed = verdict in (Verdict.PLACED, Verdict.PREEMPTING)
    return Decision(
        asked=Asked(job=job.id, spec=job.spec, hosts=job.request.hosts),
        verdict=verdict,
        seconds=step.seconds,
        generation=step.outcome.state.generation,
        reason="" if placed else job.reason,
        victims=_victims(job) if placed else (),
        where=_where(job) if placed else {},
    )


def _verdict(before: FleetJob | None, job: FleetJob) -> Verdict | None:
    if job.members and job.fence != (0 if before is None else before.fence):
        return Verdict.PREEMPTING if _victims(job) else Verdict.PLACED
    if before is None and job.state in ENDED:
        return Verdict.REFUSED
    waits = job.state is FleetJobState.PENDING and job.ready_at is not None
    return Verdict.WAITING if waits and (before is None or before.ready_at is None) else None


def _victims(job: FleetJob) -> tuple[str, ...]:
    """Return the victims by host and number there: `node-a/3`."""
    return tuple(f"{member.host}/{victim}" for member in job.members for victim in member.place.victims)


def _where(job: FleetJob) -> dict[str, object]:
    gpus = [str(CpuSet.of(member.place.gpus)) for member in job.members if member.place.gpus]
    return {Key.HOSTS: [member.host for member in job.members], Key.GPUS: gpus or None}
