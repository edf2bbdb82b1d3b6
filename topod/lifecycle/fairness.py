"""What a site's rules make of jobs: effective priorities, quotas and disruption budgets. Pure functions.

Of several rules for one user or one value of a label, those that name it win over those for each (`*`); of
equals the strictest counts.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import inf

from topod.lifecycle.states import HOLDING, Job, JobState
from topod.model.job import JobId, JobSpec
from topod.model.occupancy import Budget
from topod.model.quotas import Ledger, QuotaUse
from topod.model.rules import EACH, DisruptionBudget, Rules


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetUse:
    """One disruption budget now."""

    label: str
    value: str
    min_running: int
    running: int
    """Jobs that run and are not to be stopped."""

    @property
    def name(self) -> str:
        """`service=chat-7b`."""
        return f"{self.label}={self.value}"

    @property
    def stops(self) -> int:
        """How many of them may be stopped."""
        return max(0, self.running - self.min_running)


def budget_names(spec: JobSpec, rules: Rules) -> tuple[str, ...]:
    """Return the names of the disruption budgets that count a job."""
    if not rules.budgets or not spec.labels:
        return ()
    return tuple(
        dict.fromkeys(
            f"{budget.label}={spec.labels[budget.label]}"
            for budget in rules.budgets
            if budget.label in spec.labels and (budget.value in (EACH, spec.labels[budget.label]))
        )
    )


def budget_uses(jobs: Iterable[Job], rules: Rules, doomed: Collection[JobId] = ()) -> tuple[BudgetUse, ...]:
    """Return the budgets that count any of `jobs`, by name; `doomed` run but are to be stopped already."""
    running: dict[tuple[str, str], int] = {}
    least: dict[tuple[str, str], int] = {}
    for job in jobs if rules.budgets else ():
        counts = job.state is JobState.RUNNING and job.id not in doomed
        for service in job.spec.labels.items():
            if (found := _min_running(*service, rules)) is not None:
                least[service] = found
                running[service] = running.get(service, 0) + counts
    return tuple(
        BudgetUse(label=service[0], value=service[1], min_running=least[service], running=count)
        for service, count in sorted(running.items())
    )


def planner_budgets(uses: Iterable[BudgetUse]) -> tuple[Budget, ...]:
    """Return the budgets as the planner keeps them."""
    return tuple(
        Budget(name=use.name, stops=use.stops, reason=f"{use.name} must keep {use.min_running} running")
        for use in uses
        if use.running
    )


def _min_running(label: str, value: str, rules: Rules) -> int | None:
    mine = [budget for budget in rules.budgets if budget.label == label]
    chosen: list[DisruptionBudget] = [budget for budget in mine if budget.value == value]
    chosen = chosen or [budget for budget in mine if budget.value == EACH]
    return max((budget.min_running for budget in chosen), default=None)


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
