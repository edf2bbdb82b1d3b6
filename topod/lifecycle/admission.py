"""Questions about a job that is not queued: whether it can ever run here, and what it would get now."""

from dataclasses import dataclass, field, replace
from typing import Any

from topod.flextopo.tables import TopologyTables
from topod.lifecycle.explaining import plan_data
from topod.lifecycle.fairness import Usage
from topod.lifecycle.holdings import occupancy, unknown_health
from topod.lifecycle.holds import current_hold, duration_words
from topod.lifecycle.moves_text import moves_advice, moves_instead
from topod.lifecycle.moving import movable_requests
from topod.lifecycle.states import HostState, Job
from topod.model.job import JobSpec
from topod.model.plan import Plan
from topod.model.quotas import over_quota
from topod.model.rules import NO_RULES, Rules
from topod.preemption.remembered import never
from topod.preemption.search import plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a job would get if it were submitted now."""

    feasible: bool
    plan: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    details: tuple[str, ...] = ()
    never: bool = False
    """The empty and healthy host would refuse it too, with this reason."""
    drained: str | None = None
    """Why the host is drained, where it is: `plan` is then what the job would get if it were not."""


def admit(tables: TopologyTables, spec: JobSpec, rules: Rules = NO_RULES) -> str | None:
    """Return why the job can never run on this host, even if it were empty and healthy; None if it can."""
    refused = never(tables, spec.request)
    return over_quota(spec, rules) if refused is None else refused.reason


def dry_run(
    tables: TopologyTables, state: HostState, spec: JobSpec, now: float, rules: Rules = NO_RULES
) -> Preview:
    """Return what the planner would decide for the job now; the queue before it is not looked at.

    What is kept for a job that was blocked for long counts as taken.
    """
    refused = never(tables, spec.request)
    if refused is not None:
        return Preview(feasible=False, reason=refused.reason, details=refused.details, never=True)
    if beyond := over_quota(spec, rules):
        return Preview(feasible=False, reason=beyond, never=True)
    taken = occupancy(tables.topology, state, now, rules)
    taken = replace(taken, room=Usage(state.jobs, rules).room(spec))
    hold = current_hold(state.jobs, now, rules)
    if hold is not None and hold.binds(Job(id=state.next_job, spec=spec, submitted_at=now), now, rules):
        taken = replace(taken, blocks=(*taken.blocks, hold.block))
    answer = plan(tables, taken, spec.request)
    found = answer if isinstance(answer, Plan) else None
    # On a drained host no job may be moved either.
    moves = None
    if state.drain is None:
        moves = moves_instead(tables, taken, movable_requests(state), spec.request, found)
    reason = "" if state.drain is None else f"the host is drained: {state.drain}"
    if not isinstance(answer, Plan):
        details = answer.details if moves is None else (*answer.details, moves_advice(moves))
        if reason:
            details = (f"and even if it were not: {answer.reason}", *details)
        return Preview(feasible=False, reason=reason or answer.reason, details=details, drained=state.drain)
    data = plan_data(tables, taken, spec.request, answer)
    data["moves_instead"] = moves
    if not reason and state.blind is not None and spec.request.gpus:
        reason = unknown_health(state.blind)
    wait = spec.wait_before_preempt_seconds
    waits = (f"first waits {duration_words(wait)} for free GPUs",) if wait and answer.victims else ()
    return Preview(feasible=not reason, plan=data, reason=reason, details=waits, drained=state.drain)
