"""Restarting jobs at other places of this host, to make a group of GPUs whole.

All jobs that move are told to stop at once, and each has its new place reserved from that moment on; it
starts there when those who held it have left. Where that cannot be any more, it queues like any other job.
"""

from collections.abc import Iterable
from dataclasses import replace

from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.draft import Draft
from topod.lifecycle.holdings import Host, gpu_mask, memory_nodes, occupancy
from topod.lifecycle.states import Job, JobState, Stage, StopCause
from topod.lifecycle.stopping import begin_stop
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, JobId, OnPreempt
from topod.model.moves import Goal, Move, Rebalance
from topod.model.occupancy import Occupancy
from topod.model.request import CpuAffinity, ResourceRequest
from topod.model.rules import Rules
from topod.preemption.budgets import breaks
from topod.rebalance.search import rebalance


def movable_jobs(host: Host) -> dict[JobId, Job]:
    """Return the jobs that may be restarted elsewhere: they run, and a victim of that kind is requeued.

    Whether their minimum run time and their priority allow it, the planner says.
    """
    claimed = {victim for job in host.jobs.values() if job.stage is Stage.CREATING for victim in job.victims}
    return {
        job.id: job
        for job in host.jobs.values()
        if job.state is JobState.RUNNING
        and job.spec.preemptible
        and job.spec.on_preempt is not OnPreempt.CANCEL
        and not job.in_gang
        and job.id not in claimed
    }


def movable_requests(host: Host) -> dict[str, ResourceRequest]:
    """Return what each job that may move asks for, by its name in an occupancy."""
    return {str(ident): job.spec.request for ident, job in movable_jobs(host).items()}


def find_moves(
    tables: TopologyTables, host: Host, goal: Goal, now: float, rules: Rules
) -> tuple[Occupancy, Rebalance]:
    """Return the host as the planner sees it now, and the moves of least cost towards the goal."""
    taken = occupancy(tables.topology, host, now, rules)
    return taken, rebalance(tables, taken, movable_requests(host), goal)


def new_place(tables: TopologyTables, host: Host, move: Move) -> tuple[JobId, Allocation]:
    """Return the job of a move and what it is to hold."""
    ident = JobId(int(move.job))
    asked = host.jobs[ident].spec.request.cpu_affinity
    bind = asked is CpuAffinity.NUMA and move.cpu_affinity is CpuAffinity.NUMA
    topology = tables.topology
    return ident, Allocation(
        gpus=tuple(topology.gpus[index].uuid for index in move.gpus),
        gpu_indices=move.gpus,
        cpus=move.cpus,
        memory_nodes=memory_nodes(topology, move.cpus) if bind and move.cpus else (),
    )


def request_moves(draft: Draft, event: ev.MovesRequested) -> None:
    """Stop the named jobs, each to be started again at its new place: all of them, or none."""
    refusal = _why_not(draft, event)
    if refusal:
        draft.note("host.not-rebalanced", None, f"no job is moved: {refusal}", by=event.by)
        return
    names = ", ".join(draft.jobs[ident].label for ident, _ in event.moves)
    by = f" by {event.by}" if event.by else ""
    draft.note("host.rebalanced", None, f"told to move{by}: {names}", by=event.by)
    # Reserved before the first one stops: nobody may slip in between.
    for ident, place in event.moves:
        draft.put(replace(draft.jobs[ident], pinned=place, pinned_reserved=True))
    for ident, place in event.moves:
        reason = f"moved to {place_text(place.gpu_indices, place.cpus)}{by}"
        begin_stop(draft, draft.jobs[ident], StopCause.MOVE, reason)


def place_text(gpus: Iterable[int], cpus: CpuSet) -> str:
    """Say where a job is: `GPUs 0-1, CPUs 0-9`."""
    indices = tuple(gpus)
    words = []
    if indices:
        words.append(f"GPU{'' if len(indices) == 1 else 's'} {CpuSet.of(indices)}")
    if cpus:
        words.append(f"CPUs {cpus}")
    return ", ".join(words)


def why_no_moves(drain: str | None, blind: str | None) -> str:
    """Return why no job may be moved on a host just now; empty when they may."""
    if drain is not None:
        return f"the host is drained: {drain}"
    if blind is not None:
        return f"the health of the GPUs is unknown: {blind}"
    return ""


def _why_not(draft: Draft, event: ev.MovesRequested) -> str:
    """Return why the moves cannot be begun now; empty when they can."""
    refusal = why_no_moves(draft.drain, draft.blind)
    if event.generation is not None and event.generation != draft.generation:
        refusal = "the host has changed since the moves were planned"
    movable = movable_jobs(draft)
    moving = {str(ident) for ident, _ in event.moves}
    if len(moving) < len(event.moves) or not all(ident in movable for ident, _ in event.moves):
        refusal = "a job is named twice, or does not run, or may not be restarted"
    return refusal or _taken(draft, event.moves, moving)


def _taken(draft: Draft, moves: Iterable[tuple[JobId, Allocation]], moving: set[str]) -> str:
    """Return which new place is not to be had, or which job may not leave; empty where all is well."""
    now = occupancy(draft.tables.topology, draft, draft.now, draft.rules)
    gpus = cpus = 0
    for block in now.blocks:
        gpus |= block.gpus
        cpus |= block.cpus.mask
    for holder in now.holders:
        if holder.job not in moving:
            gpus |= holder.gpus
            cpus |= holder.cpus.mask
        elif not holder.evictable:
            return f"job {holder.called} is {holder.protection}"
    for _, place in moves:
        wanted = gpu_mask(place.gpu_indices)
        if gpus & wanted or cpus & place.cpus.mask:
            return f"{place_text(place.gpu_indices, place.cpus)} is taken"
        gpus |= wanted
        cpus |= place.cpus.mask
    return breaks(now, moving)
