"""From the state of the core to what is told on the wire. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from topod.discovery.document import dump_host
from topod.lifecycle.fairness import Usage, budget_uses, standing
from topod.lifecycle.holdings import PLACED, doomed_jobs, occupancy
from topod.lifecycle.holds import current_hold, held_gpus
from topod.lifecycle.states import ENDED, HOLDING, HostState, Job, JobState, Mark, MarkKind
from topod.model.rules import NO_RULES, Rules
from topod.model.topology import Gpu, Topology
from topod.protocol.replies import Fairness
from topod.protocol.views import BudgetView, GpuView, HoldView, HostView, JobLine, JobView, QuotaView

_WORST_FIRST = (MarkKind.UNHEALTHY, MarkKind.QUARANTINED, MarkKind.FOREIGN, MarkKind.DRAINED)


def job_view(
    job: Job,
    marks: Mapping[str, tuple[Mark, ...]] | None = None,
    *,
    now: float = 0.0,
    rules: Rules = NO_RULES,
) -> JobView:
    """Return what is told of a job; given the `marks` of the GPUs, also what is wrong with those it is on."""
    return JobView(**_line(job, marks, now, rules), plan=dict(job.plan), spec=job.spec)


def job_line(job: Job, marks: Mapping[str, tuple[Mark, ...]], *, now: float, rules: Rules) -> JobLine:
    """Return the same in brief."""
    return JobLine(**_line(job, marks, now, rules))


def _line(job: Job, marks: Mapping[str, tuple[Mark, ...]] | None, now: float, rules: Rules) -> dict[str, Any]:
    request = job.spec.request
    counts_for = job.priority if job.state in ENDED else standing(job, now, rules)
    pending_hold = job.hold if job.state is JobState.PENDING else None
    held = job.allocation
    return {
        "id": job.id,
        "name": job.spec.name,
        "user": job.spec.user,
        "state": job.state.value,
        "stage": job.stage.value if job.stage else None,
        "reason": job.reason or (_trouble(job, marks) if marks else ""),
        "priority": job.priority,
        "preemptible": job.spec.preemptible,
        "gpus": request.gpus,
        "affinity": request.affinity.value,
        "policy": request.policy.value,
        "cpus": request.cpus,
        "cpu_affinity": request.cpu_affinity.value,
        "gpu_indices": list(held.gpu_indices) if held else [],
        "gpu_uuids": list(held.gpus) if held else [],
        "cpu_list": str(held.cpus) if held else "",
        "submitted_at": job.submitted_at,
        "placed_at": job.placed_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "attempt": job.attempt,
        "starts": job.starts,
        "preemptions": job.preemptions,
        "effective_priority": None if counts_for == job.priority else counts_for,
        "held_gpus": list(pending_hold.gpu_indices[: held_gpus(job, now, rules)]) if pending_hold else [],
        "moves": job.moves,
        "moving_to": list(job.pinned.gpu_indices) if job.pinned and job.pinned_reserved else [],
        "failures": job.failures,
        "next_try_at": job.not_before if job.not_before > now else None,
        "exit_code": job.exit_code,
        "gpu_seconds": job.gpu_seconds,
        "victims": list(job.victims),
        "handle": job.handle,
        "label": job.label,
        "array_id": job.array.id if job.array else None,
        "array_index": job.array.index if job.array else None,
        "array_limit": job.array.limit if job.array else None,
        "array_count": job.array.count if job.array else None,
        "after": [wanted.job for wanted in job.after],
        "frozen": job.frozen is not None,
    }


def _trouble(job: Job, marks: Mapping[str, tuple[Mark, ...]]) -> str:
    held = job.allocation
    if held is None or job.state is not JobState.RUNNING:
        return ""
    told = (
        f"GPU{index} is {_mark_text(mark)}"
        for index, uuid in zip(held.gpu_indices, held.gpus, strict=False)
        for mark in marks.get(uuid, ())
        if mark.kind is not MarkKind.DRAINED and mark.blocks
    )
    return "; ".join(told)


def fairness_view(state: HostState, now: float, rules: Rules, user: str = "") -> Fairness:
    """Return how quotas and budgets stand, those of `user` too, and what is kept for whom."""
    jobs = [job for job in state.jobs.values() if job.state not in ENDED]
    hold = current_hold(state.jobs, now, rules)
    kept = hold.job.hold if hold is not None else None
    return Fairness(
        quotas=[
            QuotaView(scope=use.scope.value, key=use.key, value=use.value, gpus=use.gpus, limit=use.limit)
            for use in Usage(state.jobs, rules).every(jobs, user)
        ],
        budgets=[
            BudgetView(
                label=use.label,
                value=use.value,
                running=use.running,
                min_running=use.min_running,
                may_stop=use.stops,
            )
            for use in budget_uses(jobs, rules, doomed_jobs(jobs))
        ],
        hold=None
        if hold is None or kept is None
        else HoldView(
            job=hold.job.id,
            ident=hold.job.ident,
            gpus=list(kept.gpu_indices[: held_gpus(hold.job, now, rules)]),
            target=list(kept.gpu_indices),
            since=hold.job.ready_at,
        ),
    )


def host_view(
    topology: Topology,
    state: HostState,
    *,
    now: float,
    runtime: str,
    notes: list[str],
    rules: Rules = NO_RULES,
    idle: Mapping[str, float] | None = None,
) -> HostView:
    """Return what is told of the host at the moment `now`; `document` holds who holds what as well.

    `idle`: since when GPUs (by UUID) are held and not used.
    """
    taken = occupancy(topology, state, now, rules)
    document: dict[str, Any] = msgspec.json.decode(dump_host(topology, taken))
    return HostView(
        name=topology.name,
        emulated=topology.emulated,
        runtime=runtime,
        drain=state.drain,
        generation=state.generation,
        document=document,
        gpus=list(gpu_views(topology, state, idle or {}).values()),
        notes=notes,
        foreign_cpus=dict(state.foreign_cpus),
        blind=state.blind,
    )


def gpu_views(topology: Topology, state: HostState, idle: Mapping[str, float]) -> dict[int, GpuView]:
    """Return what is told of each GPU, by index; `idle` as in `host_view`."""
    holding = [job for job in state.jobs.values() if job.state in HOLDING and job.allocation is not None]
    moving = [job for job in state.jobs.values() if job.pinned_reserved and job.state not in PLACED]
    return {
        gpu.index: gpu_view(gpu, holding, state.marks.get(gpu.uuid, ()), idle.get(gpu.uuid), moving=moving)
        for gpu in topology.gpus
    }


def resumed_text(
    gpu: Gpu, before: Mapping[str, tuple[Mark, ...]], after: Mapping[str, tuple[Mark, ...]]
) -> str:
    """Say what became of a GPU that was resumed: what still holds it back, or what is used all the same.

    `before` and `after` are the marks of all GPUs, by UUID.
    """
    name, had, marks = f"GPU{gpu.index}", before.get(gpu.uuid, ()), after.get(gpu.uuid, ())
    if not had and not marks:
        return f"{name} was not kept back"
    held = "; ".join(_mark_text(mark) for mark in marks if mark.blocks)
    if held:
        return f"{name} is still kept back, which a resume cannot change: {held}"
    accepted = "; ".join(mark.reason for mark in marks)
    if accepted:
        return f"{name} is handed out again, in spite of this: {accepted}"
    if any(mark.kind is MarkKind.QUARANTINED for mark in had):
        return f"{name} is handed out again; where it is still in use, the next look keeps it back again"
    return f"{name} is handed out again"


def _mark_text(mark: Mark) -> str:
    if mark.accepted:
        return f"used all the same: {mark.kind.value}: {mark.reason}"
    return f"{mark.kind.value}: {mark.reason}" if mark.reason else mark.kind.value


def gpu_view(
    gpu: Gpu,
    holding: Iterable[Job],
    marks: tuple[Mark, ...],
    idle_since: float | None = None,
    *,
    moving: Iterable[Job] = (),
) -> GpuView:
    """Return what is told of a GPU: who is on it, who comes next, why it is not handed out.

    `moving` are the jobs on their way to a place that is reserved for them. The state is that of the job on
    it, unless the GPU is unhealthy or quarantined; a drained GPU is `held` until its job ends.
    """
    jobs = [job for job in holding if job.allocation is not None and gpu.uuid in job.allocation.gpus]
    present = next((job for job in jobs if job.state is not JobState.STARTING), None)
    coming = next((job for job in jobs if job.state is JobState.STARTING), None)
    coming = coming or next((job for job in moving if job.pinned and gpu.uuid in job.pinned.gpus), None)
    blocking = [mark for mark in marks if mark.blocks]
    worst = min(blocking, key=lambda mark: _WORST_FIRST.index(mark.kind), default=None)
    told = present or coming
    if worst is not None and (told is None or worst.kind in (MarkKind.UNHEALTHY, MarkKind.QUARANTINED)):
        state = worst.kind.value
    elif present is not None:
        state = "releasing" if present.state is JobState.STOPPING else "held"
    else:
        state = "reserved" if coming is not None else "free"
    following = coming if present is not None else None
    return GpuView(
        index=gpu.index,
        uuid=gpu.uuid,
        name=gpu.name,
        numa_node=gpu.numa_node,
        state=state,
        job=told.id if told else None,
        ident=told.ident if told else None,
        next_job=following.id if following else None,
        next_ident=following.ident if following else None,
        priority=told.priority if told else None,
        reason="; ".join(_mark_text(mark) for mark in marks),
        marks=[mark.kind.value for mark in blocking],
        idle_since=idle_since,
    )
