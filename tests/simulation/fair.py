"""What a site's rules promise, counted anew from the state of the host: the referee's own arithmetic."""

from collections import Counter

from tests.simulation.chance import Chance
from topod.lifecycle.states import HOLDING, HostState, Job, JobState
from topod.model.rules import DisruptionBudget, Quota, Rules, Scope

SERVICE = "service"
"""The label that disruption budgets count by."""


def random_rules(chance: Chance) -> Rules:
    """Return the rules of a site; every second one has none but the defaults."""
    rng = chance.rng
    if rng.random() < 0.5:
        return Rules()
    quotas = (Quota(scope=Scope.USER, gpus=rng.choice((2, 3))),) if rng.random() < 0.5 else ()
    budgets = (DisruptionBudget(label=SERVICE, min_running=1),) if rng.random() < 0.6 else ()
    return Rules(
        quotas=quotas,
        budgets=budgets,
        preemption_cap=rng.choice((0, 1, 3)),
        preemption_boost=rng.choice((100, 500)),
        hold_after_seconds=rng.choice((0.0, 20.0, 60.0)),
        hold_step_seconds=rng.choice((5.0, 30.0)),
    )


def effective(job: Job, rules: Rules) -> int:
    """The priority that protects a job: it rises with every preemption beyond the cap."""
    own = job.spec.request.priority
    more = rules.preemption_boost * (job.preemptions - rules.preemption_cap)
    return max(own, min(rules.preemption_ceiling, own + more)) if more > 0 else own


def over_quota(state: HostState, rules: Rules) -> str:
    """Say who holds more than a quota allows; empty when nobody does."""
    held: Counter[str] = Counter()
    for job in state.jobs.values():
        mine = job.allocation if job.state in HOLDING else job.pinned if job.pinned_reserved else None
        held[job.spec.user] += len(mine.gpus) if mine is not None else 0
    limit = min((quota.gpus for quota in rules.quotas), default=None)
    over = [user for user, gpus in sorted(held.items()) if limit is not None and gpus > limit]
    return f"{over[0]} holds {held[over[0]]} of {limit} GPUs" if over else ""


def gpus_of(state: HostState, user: str) -> int:
    """The GPUs that count against a user's quota."""
    found = 0
    for job in state.jobs.values():
        mine = job.allocation if job.state in HOLDING else job.pinned if job.pinned_reserved else None
        if job.spec.user == user and mine is not None:
            found += len(mine.gpus)
    return found


def still_running(state: HostState, victim: Job) -> int:
    """How many jobs of the victim's service run and go on."""
    service = victim.spec.labels.get(SERVICE)
    return sum(
        job.state is JobState.RUNNING and job.spec.labels.get(SERVICE) == service
        for job in state.jobs.values()
    )
