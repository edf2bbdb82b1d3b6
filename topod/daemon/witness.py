"""Watches what the steps of a host lead to, and tells it: decisions, preemptions, ends, waits.

It sees each step when that is durable, from the outside: the core knows nothing of it. Times here are of a
clock that nobody can set.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final, Protocol

from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import ENDED, HostState, Job, JobState, Stage
from topod.model.cpuset import CpuSet
from topod.model.job import JobId
from topod.shell.logs import Key
from topod.shell.telling import Asked, Decision, Phase, Preempted, Verdict, log_decision, log_preempted

TOGETHER: Final = 256
"""After so many lines others have their turn."""
_STAGES: Final = (Stage.CREATING, Stage.CLEARING, Stage.CHECKING, Stage.LAUNCHING)
_PHASES: Final = (Phase.CREATE, Phase.STOP, Phase.FREE, Phase.START)
_COST: Final = (
    "victims",
    "affinity_steps",
    "cpu_affinity_steps",
    "stranded_gpus",
    "work_lost_gpu_seconds",
    "weakest_link",
    "link_sum",
    "left",
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """A step that is durable: what was before, what came of it, and how long it took to decide."""

    before: HostState
    outcome: Outcome
    at: float
    """When it was begun (seconds of a steady clock)."""
    seconds: float


class Counting(Protocol):
    """Who counts what a host's witness sees."""

    def decided(self, decision: Decision) -> None:
        """Take note of a decision."""
        ...

    def preempted(self, done: Preempted) -> None:
        """Take note of a preemption that is over."""
        ...

    def changed(self, before: Job | None, job: Job) -> None:
        """Take note of a job that is not as it was."""
        ...

    def noticed(self, outcome: Outcome) -> None:
        """Take note of what a step adds to the host's story."""
        ...


@dataclass(slots=True, kw_only=True)
class _Open:
    """A preemption that goes on. `since` is when its stage began; None: before this process did."""

    victims: tuple[JobId, ...]
    stage: int
    placed: float | None
    since: float | None
    phases: dict[Phase, float] = field(default_factory=dict)


class Witness:
    """Sees the steps of one host. Used from the event loop only."""

    def __init__(self, state: HostState) -> None:
        """`state` is the one that was found at the start: it may be in the middle of preemptions."""
        self.counting: Counting | None = None
        self._open: dict[JobId, _Open] = {
            job.id: _Open(victims=job.victims, stage=_stage(job), placed=None, since=None)
            for job in state.jobs.values()
            if job.state is JobState.STARTING and job.victims
        }

    @property
    def open(self) -> int:
        """How many preemptions go on."""
        return len(self._open)

    async def saw(self, step: Stepped) -> None:
        """Tell what a step led to, a piece at a time where it is much. Never raises."""
        try:
            await self._told(step)
        except Exception:
            # Who only watches must not stand in the way.
            log.exception("witness.failed")

    async def _told(self, step: Stepped) -> None:
        if self.counting is not None:
            self.counting.noticed(step.outcome)
        for number, job in enumerate(step.outcome.changed, 1):
            if not number % TOGETHER:
                await asyncio.sleep(0)
            self._saw(step, step.before.jobs.get(job.id), job)

    def _saw(self, step: Stepped, before: Job | None, job: Job) -> None:
        if self.counting is not None:
            self.counting.changed(before, job)
        anew = _placed_anew(before, job)
        self._follow(step, job, anew=anew)
        decision = decision_of(step, before, job)
        if decision is None:
            return
        log_decision(log, decision)
        if self.counting is not None:
            self.counting.decided(decision)
        if decision.verdict is Verdict.PREEMPTING:
            self._open[job.id] = _Open(
                victims=job.victims,
                stage=_stage(job),
                placed=step.at,
                since=step.at,
                phases={Phase.DECIDE: step.seconds},
            )

    def _follow(self, step: Stepped, job: Job, *, anew: bool) -> None:
        """Take note of how far the start of a job has come."""
        one = self._open.get(job.id)
        if one is None:
            return
        runs, starts = job.state is JobState.RUNNING, job.state is JobState.STARTING and not anew
        if runs or starts:
            one.victims = job.victims or one.victims
            self._advance(one, len(_STAGES) if runs else _stage(job), step.at + step.seconds)
        if starts:
            return
        del self._open[job.id]
        end = step.at + step.seconds
        done = Preempted(
            asked=Asked(job=job.id, spec=job.spec),
            completed=runs,
            victims=one.victims,
            phases=one.phases,
            total=None if one.placed is None else end - one.placed,
            generation=step.outcome.state.generation,
            reason="" if runs else "planned anew" if anew else job.reason,
        )
        log_preempted(log, done)
        if self.counting is not None:
            self.counting.preempted(done)

    @staticmethod
    def _advance(one: _Open, stage: int, at: float) -> None:
        """Take note of the stages that are over; of several in one step all but the first took no time."""
        for over in range(one.stage, stage):
            if one.since is not None:
                one.phases[_PHASES[over]] = max(0.0, at - one.since)
            one.since = at
        one.stage = max(one.stage, stage)


def decision_of(step: Stepped, before: Job | None, job: Job) -> Decision | None:
    """Return what a step decided about a job that changed in it; None: nothing."""
    asked = Asked(job=job.id, spec=job.spec)
    generation = step.outcome.state.generation
    if _placed_anew(before, job):
        plan = job.plan
        # Not those of the job: it may have gone on in this very step.
        named = plan.get("victims")
        victims = tuple(named) if isinstance(named, list) else ()
        return Decision(
            asked=asked,
            verdict=Verdict.PREEMPTING if victims else Verdict.PLACED,
            seconds=step.seconds,
            generation=generation,
            victims=victims,
            satisfied=bool(plan.get("satisfied")),
            where=_where(job),
        )
    waits = job.state is JobState.PENDING and job.ready_at is not None
    fresh = before is None or before.ready_at is None or before.state is not JobState.PENDING
    refused = before is None and job.state in ENDED
    if (waits and fresh) or refused:
        return Decision(
            asked=asked,
            verdict=Verdict.REFUSED if refused else Verdict.WAITING,
            seconds=step.seconds,
            generation=generation,
            reason=job.reason,
        )
    return None


def _placed_anew(before: Job | None, job: Job) -> bool:
    """Say whether a job was given a place in a step, perhaps another one than it had just before."""
    if job.state is not JobState.STARTING:
        return False
    return before is None or before.state is not JobState.STARTING or before.attempt != job.attempt


def _where(job: Job) -> dict[str, object]:
    plan = job.plan
    cost = plan.get("cost")
    gpus = plan.get("gpus")
    return {
        Key.GPUS: str(CpuSet.of(gpus)) if isinstance(gpus, list) and gpus else None,
        Key.CPUS: plan.get("cpus") or None,
        Key.AFFINITY: plan.get("affinity"),
        Key.COST: {key: cost[key] for key in _COST if key in cost} if isinstance(cost, dict) else None,
    }


def _stage(job: Job) -> int:
    return 0 if job.stage is None else _STAGES.index(job.stage)
