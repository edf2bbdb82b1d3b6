"""Disruption budgets: how many of a service run, and how many preemption may stop. One host or a fleet.

Of several budgets for one value of a label, those that name it win over those for each (`*`); of equals the
strictest counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from topod.model.job import JobSpec
from topod.model.occupancy import Budget
from topod.model.rules import EACH, DisruptionBudget, Rules


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


def uses(jobs: Iterable[tuple[JobSpec, bool]], rules: Rules) -> tuple[BudgetUse, ...]:
    """Return the budgets that count any of `jobs`, by name; of each job: what it is, and whether it runs."""
    running: dict[tuple[str, str], int] = {}
    least: dict[tuple[str, str], int] = {}
    for spec, counts in jobs:
        for service in spec.labels.items():
            if (found := _min_running(*service, rules)) is not None:
                least[service] = found
                running[service] = running.get(service, 0) + counts
    return tuple(
        BudgetUse(label=service[0], value=service[1], min_running=least[service], running=count)
        for service, count in sorted(running.items())
    )


def planner_budgets(found: Iterable[BudgetUse]) -> tuple[Budget, ...]:
    """Return the budgets as the planner keeps them."""
    return tuple(
        Budget(name=use.name, stops=use.stops, reason=f"{use.name} must keep {use.min_running} running")
        for use in found
    )


def _min_running(label: str, value: str, rules: Rules) -> int | None:
    mine = [budget for budget in rules.budgets if budget.label == label]
    chosen: list[DisruptionBudget] = [budget for budget in mine if budget.value == value]
    chosen = chosen or [budget for budget in mine if budget.value == EACH]
    return max((budget.min_running for budget in chosen), default=None)
