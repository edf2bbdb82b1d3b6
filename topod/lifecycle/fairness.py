"""What a site's rules make of jobs: effective priorities, quotas and disruption budgets. Pure functions."""

from collections.abc import Collection, Iterable, Mapping
from math import inf

from topod.lifecycle.states import HOLDING, Job, JobState
from topod.model.budgets import BudgetUse, uses
from topod.model.job import JobId
from topod.model.quotas import Ledger, QuotaUse
from topod.model.rules import Rules


def effective_priority(job: Job, rules: Rules) -> int:
    """Return the priority by which a job is protected and queued: it rises with preemptions beyond the cap.

    It never lets the job stop others that its own priority does not: so two jobs cannot stop each other in
    turn without end.
    """
    return rules.effective(job.priority, job.preemptions)


def guarded_until(job: Job, rules: Rules) -> float | None:
    """Return until when a job that started from a hold is guarded; None where it did not.

    Those who were kept waiting for it would stop it the moment it starts: it may run for as long as it had to
    be blocked. For a job of a fleet the coordinator says how that was.
    """
    guard = _guard(job, rules)
    if guard is None or job.state not in HOLDING:
        return None
    if job.state is JobState.STARTING or job.started_at is None:
        return inf
    return job.started_at + guard[1]


def _guard(job: Job, rules: Rules) -> tuple[int, float] | None:
    """Return the priority that guards a job, and for how long after its start; None: nothing does."""
    if job.tag is not None and job.tag.guard_priority is not None:
        return job.tag.guard_priority, job.tag.guard_seconds
    return None if job.hold is None else (rules.hold_below - 1, rules.hold_after_seconds)


def standing(job: Job, now: float, rules: Rules) -> int:
    """Return the priority that protects a job now: the effective one, or more while it is guarded."""
    effective, until, guard = effective_priority(job, rules), guarded_until(job, rules), _guard(job, rules)
    return effective if until is None or guard is None or until <= now else max(effective, guard[0])


# --- disruption budgets -----------------------------------------------------------------------------------


def budget_uses(jobs: Iterable[Job], rules: Rules, doomed: Collection[JobId] = ()) -> tuple[BudgetUse, ...]:
    """Return the budgets that count any of `jobs`, by name; `doomed` run but are to be stopped already."""
    counted = ((job.spec, job.state is JobState.RUNNING and job.id not in doomed) for job in jobs)
    return uses(counted, rules) if rules.budgets else ()


# --- quotas -----------------------------------------------------------------------------------------------


class Usage(Ledger):
    """The GPUs of one host held against quotas, kept up to date while jobs are placed.

    All jobs that hold an allocation count, those being stopped too.
    """

    __slots__ = ()

    def __init__(self, jobs: Mapping[JobId, Job], rules: Rules) -> None:
        super().__init__(rules)
        if rules.quotas:
            for job in jobs.values():
                held = job.allocation if job.state in HOLDING else job.pinned if job.pinned_reserved else None
                if held is not None:
                    self.add(job.spec, len(held.gpus))

    def every(self, jobs: Iterable[Job], user: str = "") -> tuple[QuotaUse, ...]:
        """Return the quotas that bind any of `jobs` or `user`, and those that a rule names, users first."""
        return self.binding((job.spec for job in jobs), user)
