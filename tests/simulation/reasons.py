"""Whether a pending job says the truth. Written from the contract, without the planner.

A reason is a claim about the host; every claim that can be checked against the state is.
"""

import re
from functools import cache
from itertools import combinations
from typing import Final

from tests.oracles.brute_force import Host
from tests.simulation.fair import SERVICE, effective, gpus_of
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.states import HOLDING, HostState, Job, JobState, Mark, Stage, StopPhase
from topod.model.cpuset import CpuSet
from topod.model.request import CpuAffinity, Policy
from topod.model.rules import Rules
from topod.model.topology import Topology

BACKING_OFF: Final = (
    "next try in",
    "restart ",
    "the host changed while its container was made",
    "its GPUs cannot be checked",
    "goes before it",
)
FROZEN: Final = "frozen, to be restored on "
KEPT: Final = re.compile(r"GPUs or CPUs it could use are kept for (job .+?), which came first")
"""Names a job as sentences do: members of an array by the array's number and their own."""

ARRAY: Final = re.compile(r"(\d+) of array \d+ run, which is its limit")
QUOTA: Final = re.compile(r"the quota of user (\w+) is \d+ GPUs?, (\d+) held")
HOLDS: Final = re.compile(r"job (\d+(?:\[\d+\])?) \(([^)]*(?:\([^)]*\))?[^)]*)\) holds (\d+)")


@cache
def brute(topology: Topology) -> Host:
    return Host(topology)


def untrue(  # noqa: C901, PLR0911, PLR0912 - one case for each claim
    tables: TopologyTables, rules: Rules, state: HostState, job: Job, now: float
) -> str:
    """Return what is untrue of a pending job's reason; empty when it is true."""
    said = job.reason
    if not job.image_ready:
        true = "next try in" in said if job.pull_failures else said == f"waits for image {job.spec.image}"
        return "" if true else "its image is not there"
    if said.startswith("pulling"):
        return "its image is there"
    if job.not_before > now:
        return "" if any(words in said for words in BACKING_OFF) else "it is backing off"
    if "next try in" in said:
        return "the time to try again has come"
    if job.after:
        return "" if said.startswith("waits for ") else "it waits for another job"
    if said.startswith("waits for "):
        return "what it waited for has ended"
    if said.startswith(FROZEN) and job.frozen is None:
        return "it is not frozen"
    if state.drain is not None:
        return "" if said == f"the host is drained: {state.drain}" else "the host is drained"
    if said.startswith("the host is drained"):
        return "the host is not drained"
    blind = "no GPU is handed out while their health is unknown"
    if state.blind is not None and job.spec.request.gpus:
        return "" if said.startswith(blind) else "the health of the GPUs is unknown"
    if said.startswith(blind):
        return "the health of the GPUs is known"
    if found := ARRAY.match(said):
        return _untrue_of_array(state, job, int(found[1]))
    if found := QUOTA.search(said):
        held = gpus_of(state, found[1])
        return "" if held == int(found[2]) else f"{found[1]} holds {held} GPUs"
    return _untrue_of_room(tables, rules, state, job, now)


def _untrue_of_room(tables: TopologyTables, rules: Rules, state: HostState, job: Job, now: float) -> str:
    if found := KEPT.search(job.reason):
        named = next((other for other in state.jobs.values() if other.label == found[1]), None)
        return _untrue_of_kept(rules, job, named)
    free, cpus = _within_reach(tables.topology, rules, state, job, now)
    # A job behind one that waits may be refused what lies in reach.
    if not _kept_for_earlier(rules, state, job, now) and fits(tables.topology, job, free, cpus):
        return f"it could start: GPUs {sorted(free)} are in reach"
    return _untrue_of_blockers(tables, state, job)


def _untrue_of_array(state: HostState, job: Job, limit: int) -> str:
    held = [
        other
        for other in state.jobs.values()
        if other.array is not None
        and job.array is not None
        and other.array.id == job.array.id
        and (other.state in HOLDING or other.pinned_reserved)  # a job that moves keeps its turn
    ]
    return "" if len(held) == limit else f"{len(held)} of its array hold something"


def _untrue_of_kept(rules: Rules, job: Job, other: Job | None) -> str:
    if other is None or other.state is not JobState.PENDING:
        return "the job it is kept for does not wait"
    return "" if _turn(other, rules) < _turn(job, rules) else f"{other.label} does not come first"


def _untrue_of_blockers(tables: TopologyTables, state: HostState, job: Job) -> str:
    for ident, why, _count in HOLDS.findall(job.reason):
        holder = next((other for other in state.jobs.values() if _ident(other) == ident), None)
        moves = holder is not None and holder.pinned_reserved
        gone = holder is None or holder.state not in HOLDING or holder.state is JobState.STOPPING
        if holder is None or (gone and not moves):
            return f"job {ident} holds nothing"
        if "not preemptible" in why and holder.spec.preemptible:
            return f"job {ident} is preemptible"
    for gpu in tables.topology.gpus:
        for kind in ("drained", "unhealthy", "quarantined", "foreign"):
            named = re.search(rf"GPUs? [\d,-]*\b{gpu.index}\b[\d,-]* {kind}", job.reason)
            if named and not any(mark.kind.value == kind for mark in _marks(state, gpu.uuid)):
                return f"GPU {gpu.index} is not {kind}"
    return ""


def _ident(job: Job) -> str:
    return str(job.id) if job.array is None else f"{job.array.id}[{job.array.index}]"


def _turn(job: Job, rules: Rules) -> tuple[int, bool, float, int]:
    return (-effective(job, rules), not job.restart_first, job.submitted_at, job.id)


def _marks(state: HostState, uuid: str) -> tuple[Mark, ...]:
    return tuple(mark for mark in state.marks.get(uuid, ()) if mark.blocks)


def _kept_for_earlier(rules: Rules, state: HostState, job: Job, now: float) -> bool:
    """Say whether some job before this one waits for room, so that something may be kept for it."""
    return any(
        other.state is JobState.PENDING and other.id != job.id and other.hold is not None
        for other in state.jobs.values()
    ) or any(
        other.state is JobState.PENDING
        and other.image_ready
        and other.not_before <= now
        and _turn(other, rules) < _turn(job, rules)
        for other in state.jobs.values()
    )


def _within_reach(
    topology: Topology, rules: Rules, state: HostState, job: Job, now: float
) -> tuple[set[int], set[int]]:
    """Return the GPUs and CPUs that are free or could be freed for the job."""
    gpus = {gpu.index for gpu in topology.gpus if not _marks(state, gpu.uuid)}
    cpus = set(brute(topology).cpus)
    if job.pinned is not None:
        gpus &= set(job.pinned.gpu_indices)
        cpus &= set(job.pinned.cpus)
    for other in state.jobs.values():
        moves_to = other.pinned if other.pinned_reserved and other.id != job.id else None
        if moves_to is not None and not _may_evict(rules, job, other, now):
            gpus -= set(moves_to.gpu_indices)
            cpus -= set(moves_to.cpus)
    for text in state.foreign_cpus:
        cpus -= set(CpuSet.parse(text))
    for other in state.jobs.values():
        if other.state not in HOLDING or other.allocation is None:
            continue
        if other.state is JobState.STOPPING:
            out_of_reach = other.stop is not None and other.stop.phase is StopPhase.STUCK
        else:
            out_of_reach = not _may_evict(rules, job, other, now)
        if out_of_reach:
            gpus -= set(other.allocation.gpu_indices)
            cpus -= set(other.allocation.cpus)
    return gpus, cpus


def _may_evict(rules: Rules, job: Job, other: Job, now: float) -> bool:
    if not other.spec.preemptible or effective(other, rules) >= job.priority:
        return False
    if other.hold is not None or (rules.budgets and SERVICE in other.spec.labels):
        return False  # guarded, or perhaps needed: then nothing is claimed of it
    wait = job.spec.wait_before_preempt_seconds
    if wait and (job.ready_at is None or now < job.ready_at + wait):
        return False
    if other.state is JobState.STARTING:
        return not (other.stage is Stage.CREATING and other.victims)
    started = other.started_at if other.started_at is not None else now
    return started + other.spec.min_runtime_seconds <= now


def fits(topology: Topology, job: Job, gpus: set[int], cpus: set[int]) -> bool:
    """Say whether some set of these GPUs, with CPUs of these beside it, is what the job asks for."""
    host, request = brute(topology), job.spec.request
    guaranteed = request.policy is Policy.GUARANTEED
    level = request.cpu_affinity.value if guaranteed or not request.gpus else CpuAffinity.ANY.value
    return any(
        (not guaranteed or host.satisfies(chosen, request.affinity.value))
        and host.cpus_fit(chosen, cpus, request, level)
        for chosen in combinations(sorted(gpus), request.gpus)
    )
