"""What host and coordinator tell of their decisions: a value for each, a line of the log for each.

Rule: a decision is told once, when it is durable. A job that waits is told of when it begins to wait for
room, not at every look at the queue.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from topod.model.job import JobSpec
from topod.shell.logs import Key

DECISION: Final = "decision"
PREEMPTION: Final = "preemption"


class Verdict(StrEnum):
    """What a decision came to."""

    PLACED = "placed"
    """It gets free GPUs."""
    PREEMPTING = "preempting"
    """It gets GPUs once others are stopped."""
    WAITING = "waiting"
    REFUSED = "refused"
    """It was taken into the queue, and never can start."""


class Phase(StrEnum):
    """The parts of a preemption, in their order."""

    DECIDE = "decide"
    """The plan is made."""
    CREATE = "create"
    """The container is made; nobody has been stopped yet."""
    STOP = "stop"
    """Victims save their work and end."""
    FREE = "free"
    """The GPUs become really free."""
    START = "start"
    """The job starts."""


_KEY_OF: Final = {
    Phase.DECIDE: Key.DECIDE_MS,
    Phase.CREATE: Key.CREATE_MS,
    Phase.STOP: Key.STOP_MS,
    Phase.FREE: Key.FREE_MS,
    Phase.START: Key.START_MS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whom a decision is about."""

    job: int
    spec: JobSpec
    hosts: int | None = None
    """Of a fleet's job: how many it asks for."""

    @property
    def words(self) -> str:
        """What is asked for, in words: `4 GPUs, nvlink guaranteed`."""
        request = self.spec.request
        on = f"{self.hosts} hosts with " if (self.hosts or 1) > 1 else ""
        gpus = f"{request.gpus} GPU{'' if request.gpus == 1 else 's'}"
        return f"{on}{gpus}, {request.affinity.value} {request.policy.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided about one job. `seconds`: how long the step took in which it was."""

    asked: Asked
    verdict: Verdict
    seconds: float
    generation: int
    reason: str = ""
    victims: tuple[int | str, ...] = ()
    satisfied: bool | None = None
    """Whether it got the affinity it asked for; None: nothing was placed, or only its host knows."""
    where: Mapping[str, object] = field(default_factory=dict)
    """GPUs, CPUs, affinity, cost, hosts: by the keys of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempted:
    """A preemption that is over: the job runs, or gave up. Durations are seconds."""

    asked: Asked
    completed: bool
    victims: tuple[int, ...]
    phases: Mapping[Phase, float]
    """Those that this process saw from their begin to their end."""
    total: float | None
    """None: it had begun before this process did."""
    generation: int
    reason: str = ""


def log_decision(log: logging.Logger, decision: Decision) -> None:
    """Write the one line of a decision."""
    spec = decision.asked.spec
    extra: dict[str, object] = {
        Key.JOB: decision.asked.job,
        Key.NAME: spec.name,
        Key.USER: spec.user,
        Key.PRIORITY: spec.request.priority,
        Key.WANTED: decision.asked.words,
        Key.OUTCOME: decision.verdict.value,
        Key.REASON: decision.reason or None,
        **decision.where,
        Key.SATISFIED: decision.satisfied,
        Key.VICTIMS: list(decision.victims) if decision.victims else None,
        Key.DECIDE_MS: _ms(decision.seconds),
        Key.GENERATION: decision.generation,
    }
    log.info(DECISION, extra={key: value for key, value in extra.items() if value is not None})


def log_preempted(log: logging.Logger, done: Preempted) -> None:
    """Write the one line of a preemption that is over."""
    spec = done.asked.spec
    extra: dict[str, object] = {
        Key.JOB: done.asked.job,
        Key.NAME: spec.name,
        Key.USER: spec.user,
        Key.PRIORITY: spec.request.priority,
        Key.OUTCOME: "completed" if done.completed else "given-up",
        Key.REASON: done.reason or None,
        Key.VICTIMS: list(done.victims),
        **{_KEY_OF[phase]: _ms(seconds) for phase, seconds in done.phases.items()},
        Key.TOTAL_MS: None if done.total is None else _ms(done.total),
        Key.GENERATION: done.generation,
    }
    log.info(PREEMPTION, extra={key: value for key, value in extra.items() if value is not None})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
