"""From the state of the jobs to the planner's view of the host."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from topod.lifecycle.fairness import budget_uses, standing
from topod.lifecycle.jobtable import Role, active, having
from topod.lifecycle.states import HOLDING, Job, JobState, Mark, MarkKind, Stage, StopPhase
from topod.model.budgets import budget_names, planner_budgets
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, JobId
from topod.model.occupancy import Block, Holder, Occupancy
from topod.model.rules import Rules
from topod.model.topology import Topology

PLACED: Final = frozenset({JobState.STARTING, JobState.RUNNING})
"""States in which a job has its place, whatever is reserved for it."""


def gpu_mask(indices: Iterable[int]) -> int:
    """Return the bit mask of GPU indices."""
    mask = 0
    for index in indices:
        mask |= 1 << index
    return mask


def overlaps(a: Allocation, b: Allocation) -> bool:
    """Say whether two allocations share a GPU or a pinned CPU."""
    return bool(set(a.gpus) & set(b.gpus)) or bool(a.cpus & b.cpus)


class Host(Protocol):
    """What the planner's view is made from: a `HostState` or a `Draft` of one."""

    @property
    def jobs(self) -> Mapping[JobId, Job]:
        """The jobs that have not been put to rest."""
        ...

    @property
    def marks(self) -> Mapping[str, tuple[Mark, ...]]:
        """Why GPUs are not handed out, by UUID."""
        ...

    @property
    def foreign_cpus(self) -> Mapping[str, str]:
        """CPU lists that something topod did not start uses, with who."""
        ...


def occupancy(
    topology: Topology,
    host: Host,
    now: float,
    rules: Rules,
    *,
    without: JobId | None = None,
) -> Occupancy:
    """Return who holds what under the site's rules, as if job `without` held nothing.

    A stopping job counts as gone: what is being released costs nothing. While a job's container is made,
    its victims still run; what it will take from them is already its own.
    """
    jobs = having(host.jobs, Role.ROOM)
    holders: list[Holder] = []
    blocks = list(_mark_blocks(topology, host.marks))
    blocks += [
        Block(reason=f"foreign: {who}", cpus=CpuSet.parse(cpus))
        for cpus, who in sorted(host.foreign_cpus.items())
    ]
    doomed = doomed_jobs(jobs, without)
    uses = budget_uses(active(host.jobs), rules, doomed) if rules.budgets else ()
    overdrawn = {use.name for use in uses if use.running < use.min_running}
    claims: dict[JobId, list[Allocation]] = {}
    for job in jobs:
        # Later its victims hold nothing any more: one that is back has a place that is its own.
        making = job.state is JobState.STARTING and job.stage is Stage.CREATING
        if job.id != without and making and job.allocation is not None:
            for victim in job.victims:
                claims.setdefault(victim, []).append(job.allocation)
    for job in jobs:
        if job.id == without:
            continue
        if job.pinned is not None and job.pinned_reserved and job.state not in PLACED:
            # Where a job moves to is its own already: who may evict it may have its new place.
            holders.append(_without(_holder(job, job.pinned, now, rules), claims.get(job.id, ())))
        if job.state not in HOLDING or job.allocation is None:
            continue
        if job.state is JobState.STOPPING:
            blocks += _stuck(job, job.allocation)
            continue
        holder = _holder(job, job.allocation, now, rules)
        if job.state is JobState.RUNNING:
            # Who is to be stopped already costs a budget nothing more. But where other replicas went since,
            # that plan has become too much, and nobody may stop them.
            names = budget_names(job.spec, rules)
            kept = names if job.id not in doomed else tuple(name for name in names if name in overdrawn)
            holder = replace(holder, budgets=kept)
        holders.append(_without(holder, claims.get(job.id, ())))
    return Occupancy(holders=tuple(holders), blocks=tuple(blocks), budgets=planner_budgets(uses))


def _stuck(job: Job, allocation: Allocation) -> Iterable[Block]:
    """Yield what a job holds that does not stop; any other that stops counts as gone."""
    if job.stop is not None and job.stop.phase is StopPhase.STUCK:
        reason = f"held by {job.label}, which does not stop"
        yield Block(reason=reason, gpus=gpu_mask(allocation.gpu_indices), cpus=allocation.cpus)


def doomed_jobs(jobs: Iterable[Job], without: JobId | None = None) -> set[JobId]:
    """Return who runs but was named as a victim already, by another job than `without`."""
    jobs = list(jobs)
    since: dict[JobId, float] = {}
    for job in jobs:
        if job.id != without and job.stage in (Stage.CREATING, Stage.CLEARING):
            for victim in job.victims:
                since[victim] = max(since.get(victim, 0.0), job.placed_at or 0.0)
    return {
        job.id
        for job in jobs
        if job.state is JobState.RUNNING and job.id in since and (job.started_at or 0.0) <= since[job.id]
    }


def _without(holder: Holder, claims: Iterable[Allocation]) -> Holder:
    """Return the holder without what others will take from it."""
    for taken in claims:
        holder = replace(
            holder, gpus=holder.gpus & ~gpu_mask(taken.gpu_indices), cpus=holder.cpus - taken.cpus
        )
    return holder


def for_one(taken: Occupancy, jobs: Mapping[JobId, Job], job: Job, now: float) -> Occupancy:
    """Return the same as a job may see it: no budget of the fleet spares whom the coordinator named."""
    named = () if job.assignment is None else job.assignment.place.victims
    if not any(holder.job in named for holder in taken.holders):
        return taken
    holders = []
    for holder in taken.holders:
        if holder.job in named and not holder.evictable:
            protection = _own_protection(jobs[JobId(int(holder.job))], now)
            holder = replace(holder, evictable=not protection, protection=protection)  # noqa: PLW2901 - the same, as the job sees it
        holders.append(holder)
    return replace(taken, holders=tuple(holders))


def _own_protection(job: Job, now: float) -> str:
    """Return why a job may not be stopped for another one, whatever the fleet says; empty: it may be."""
    if not job.spec.preemptible:
        return "not preemptible"
    if job.state is JobState.STARTING and job.stage is Stage.CREATING and job.victims:
        return "being placed just now"
    if job.state is JobState.RUNNING and job.started_at is not None:
        left = job.started_at + job.spec.min_runtime_seconds - now
        if left > 0:
            return f"protected for {left:.0f} s more"
    return ""


def _fleet_protection(job: Job) -> str:
    """Return why only the coordinator may have a job stopped for another one; empty: others may as well.

    A budget of the fleet counts jobs on all hosts: none of them knows how many the others stop just now.
    """
    if job.tag is None or not job.tag.budgets or job.state is not JobState.RUNNING:
        return ""
    return f"the fleet counts on it for {', '.join(job.tag.budgets)}"


def _holder(job: Job, allocation: Allocation, now: float, rules: Rules) -> Holder:
    protection = _own_protection(job, now) or _fleet_protection(job)
    size = 1 if job.tag is None else job.tag.size
    return Holder(
        job=str(job.id),
        priority=standing(job, now, rules),
        gpus=gpu_mask(allocation.gpu_indices),
        # On its other hosts it is taken to be as it is here.
        stops=size,
        elsewhere=(size - 1) * len(allocation.gpu_indices),
        cpus=allocation.cpus,
        evictable=not protection,
        protection=protection,
        work=size * work_lost(job, now),
        ident="" if job.array is None else job.ident,
    )


def work_lost(job: Job, now: float) -> int:
    """Return the GPU-milliseconds lost if the job is stopped now: since its start or last checkpoint."""
    if job.state is not JobState.RUNNING or job.started_at is None or job.allocation is None:
        return 0
    since = max(job.started_at, job.checkpoint_at or 0.0)
    return max(0, round((now - since) * 1000)) * len(job.allocation.gpus)


def unknown_health(why: str) -> str:
    """Say why no job with GPUs starts while nobody knows how they are."""
    return f"no GPU is handed out while their health is unknown: {why}"


def _mark_blocks(topology: Topology, marks: Mapping[str, tuple[Mark, ...]]) -> Iterable[Block]:
    index = {gpu.uuid: gpu.index for gpu in topology.gpus}
    for uuid, reasons in sorted(marks.items()):
        kept_back = [mark for mark in reasons if mark.blocks]
        if uuid in index and kept_back:
            worst = min(kept_back, key=lambda mark: list(MarkKind).index(mark.kind))
            text = f"{worst.kind.value}: {worst.reason}" if worst.reason else worst.kind.value
            yield Block(reason=text, gpus=1 << index[uuid])


def memory_nodes(topology: Topology, cpus: CpuSet) -> tuple[int, ...]:
    """Return the NUMA nodes that the CPUs belong to."""
    return tuple(node.id for node in topology.numa_nodes if node.cpus & cpus)
