"""From the state of a host to what its coordinator is told: who holds what, and how its jobs stand. Pure."""

from collections.abc import Mapping
from math import inf
from typing import Final

from topod.daemon.fleet_words import to_the_fleet
from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.fairness import effective_priority, guarded_until, standing
from topod.lifecycle.holdings import occupancy, unknown_health
from topod.lifecycle.states import HostState, Job, JobState, Stage
from topod.model.assignment import REFUSED, FleetJobReport
from topod.model.job import JobId
from topod.model.occupancy import Block, Holder
from topod.model.rules import NO_RULES, Rules

GONE_BY: Final = 0.0
"""A moment that is past."""


def host_snapshot(
    tables: TopologyTables,
    state: HostState,
    now: float,
    rules: Rules = NO_RULES,
    *,
    labels: Mapping[str, str] | None = None,
    closed: str | None = None,
) -> HostSnapshot:
    """Return the host as it is now; `occupancy_at` makes of it what its own planner sees, later too.

    `closed`: why nothing new should come, as far as the host's surroundings go; a drain is added here. A host
    that cannot see its GPUs still takes jobs that ask for none: all its GPUs are blocked.
    """
    seen = occupancy(tables.topology, state, now, rules)
    blocks = seen.blocks
    if state.blind is not None and tables.all_gpus:
        blocks = (*blocks, Block(reason=unknown_health(state.blind), gpus=tables.all_gpus))
    drained = None if state.drain is None else f"the host is drained: {state.drain}"
    return HostSnapshot(
        host=tables.topology.name,
        generation=state.generation,
        holders=tuple(_held_by(state.jobs[JobId(int(one.job))], one, now, rules) for one in seen.holders),
        blocks=blocks,
        budgets=seen.budgets,
        closed=drained or closed,
        labels=dict(labels or {}),
    )


def fleet_jobs(state: HostState) -> tuple[FleetJobReport, ...]:
    """Return how every assignment stands that is not settled, in the order of local ids."""
    return tuple(_report(job, state) for _, job in sorted(state.jobs.items()) if job.assignment is not None)


def _held_by(job: Job, holder: Holder, now: float, rules: Rules) -> HeldBy:
    """Return what a holder is from now on for as long as nothing but time happens."""
    evictable_from: float | None = GONE_BY
    protection, work_since = "", None
    held = job.allocation.gpus if job.allocation else ()
    if job.state is JobState.RUNNING and job.started_at is not None:
        evictable_from = job.started_at + job.spec.min_runtime_seconds
        work_since = max(job.started_at, job.checkpoint_at or 0.0)
    if not holder.evictable and (job.state is not JobState.RUNNING or not job.spec.preemptible):
        evictable_from, protection = None, holder.protection
    priority, guard, until = effective_priority(job, rules), None, guarded_until(job, rules)
    if until == inf:
        priority = standing(job, now, rules)
    elif until is not None and until > now:
        guard = standing(job, now, rules)
    return HeldBy(
        job=holder.job,
        ident=holder.ident,
        priority=priority,
        guard_priority=guard,
        guarded_until=until if guard is not None and until is not None else GONE_BY,
        gpus=holder.gpus,
        cpus=holder.cpus,
        evictable_from=evictable_from,
        protection=protection,
        work_since=work_since,
        work_gpus=holder.stops * len(held),
        stops=holder.stops,
        elsewhere=holder.elsewhere,
        budgets=holder.budgets,
    )


def _report(job: Job, state: HostState) -> FleetJobReport:
    assert job.assignment is not None
    tag, held = job.assignment.tag, job.allocation
    refused = job.state is JobState.RETURNED and not job.assignment.taken
    made = job.state is JobState.STARTING and job.stage is Stage.CREATING and job.handle is not None
    return FleetJobReport(
        job=tag.job,
        fence=tag.fence,
        local=job.id,
        state=REFUSED if refused else job.state.value,
        stage=job.stage.value if job.stage else None,
        ready=job.in_gang and not tag.go and made,
        reason=to_the_fleet(state, job.reason),
        gpus=held.gpu_indices if held else (),
        cpu_list=str(held.cpus) if held else "",
        affinity=str(job.plan.get("affinity", "")),
        satisfied=bool(job.plan.get("satisfied", True)),
        attempt=job.attempt,
        starts=job.starts,
        preemptions=job.preemptions - tag.preemptions,
        failures=job.failures,
        started_at=job.started_at,
        ended_at=job.ended_at,
        exit_code=job.exit_code,
        gpu_seconds=job.gpu_seconds,
    )
