"""Disruption budgets over all hosts: which jobs count, and how many of them may be stopped for others.

Rule: only the coordinator has such a job stopped for another one; its host knows it by the tag. So what may
be stopped is what runs, less what must, less what the coordinator has given to others already: exact, as far
as the reports are. A job on a host that is not heard of counts as not running.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.fleet.jobtable import FleetJobs
from topod.fleet.states import FleetJob, FleetJobId, FleetJobState
from topod.fleet.view import HostView
from topod.model.budgets import BudgetUse, budget_names, uses
from topod.model.occupancy import Budget
from topod.model.rules import Rules

FLEET: Final = "fleet "
"""Begins the names of the fleet's budgets in a snapshot: hosts have budgets of their own."""


@dataclass(frozen=True, slots=True)
class Counted:
    """How the fleet's budgets stand."""

    uses: tuple[BudgetUse, ...] = ()
    running: Mapping[FleetJobId, tuple[str, ...]] = field(default_factory=dict)
    """The jobs that count as running, with the names of their budgets."""

    @property
    def budgets(self) -> dict[str, Budget]:
        """As the planner keeps them, by name."""
        return {
            FLEET + use.name: Budget(
                name=FLEET + use.name,
                stops=use.stops,
                reason=f"{use.name} must keep {use.min_running} running in the fleet",
            )
            for use in self.uses
        }


NOTHING: Final = Counted()


def count(jobs: Mapping[FleetJobId, FleetJob], seen: Mapping[str, HostView], rules: Rules) -> Counted:
    """Return how the budgets stand: of each, who runs and is not given up already."""
    if not rules.budgets:
        return NOTHING
    table = jobs if isinstance(jobs, FleetJobs) else FleetJobs(jobs, rules)
    doomed = set(_doomed(table))
    counts = [(job, job.id not in doomed and _runs(job, seen)) for job in table.counted()]
    return Counted(
        uses=uses(((job.spec, runs) for job, runs in counts), rules),
        running={
            job.id: tuple(FLEET + name for name in budget_names(job.spec, rules))
            for job, runs in counts
            if runs
        },
    )


def _runs(job: FleetJob, seen: Mapping[str, HostView]) -> bool:
    if job.state is not FleetJobState.RUNNING or job.ending is not None:
        return False
    hosts = [seen.get(member.host) for member in job.members]
    return all(host is not None and not host.silent for host in hosts)


def _doomed(table: FleetJobs) -> Iterator[FleetJobId]:
    """Yield the jobs that others, which have not begun yet, were told that they may stop."""
    for job in table.preempting():
        for member in job.members:
            for other in table.on(member.host) if member.place.victims else ():
                mine = other.on(member.host)
                local = None if mine is None or mine.report is None else str(mine.report.local)
                if local in member.place.victims:
                    yield other.id


def with_budgets(snapshot: HostSnapshot, jobs: Iterable[FleetJob], counted: Counted) -> HostSnapshot:
    """Return a host with the fleet's names for its jobs, and the budgets that count any of them."""
    mine: dict[str, FleetJob] = {}
    for job in jobs:
        member = job.on(snapshot.host)
        if member is not None and member.report is not None and member.report.local:
            mine[str(member.report.local)] = job
    holders = tuple(_named(held, snapshot.host, mine.get(held.job), counted) for held in snapshot.holders)
    names = {name for held in holders for name in held.budgets if name.startswith(FLEET)}
    budgets = [budget for name, budget in counted.budgets.items() if name in names]
    return replace(snapshot, holders=holders, budgets=(*snapshot.budgets, *budgets))


def _named(held: HeldBy, host: str, job: FleetJob | None, counted: Counted) -> HeldBy:
    if job is None:
        return replace(held, ident=f"{held.ident or held.job} of {host}")
    return replace(held, ident=job.ident, budgets=(*held.budgets, *counted.running.get(job.id, ())))


def less(budget: Budget, spent: Mapping[str, int]) -> Budget:
    """Return what is left of a budget once others of the same decision are stopped."""
    return (
        replace(budget, stops=max(0, budget.stops - spent[budget.name])) if budget.name in spent else budget
    )


def stopped(snapshot: HostSnapshot, victims: Iterable[str]) -> "Counter[str]":
    """Return how many of each of the fleet's budgets a plan on a host stops."""
    names = set(victims)
    return Counter(
        name
        for held in snapshot.holders
        if held.job in names
        for name in held.budgets
        if name.startswith(FLEET)
    )
