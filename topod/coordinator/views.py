"""From the state of a fleet to what is told on the wire. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from topod.fleet.jobtable import effective_priority, jobs_on
from topod.fleet.promised import free_of
from topod.fleet.states import ENDED, FleetJob, FleetState, HostRecord, Member
from topod.fleet.view import FleetView, HostView
from topod.model.budgets import BudgetUse
from topod.model.quotas import Ledger
from topod.model.rules import Rules
from topod.protocol.replies import Fairness
from topod.protocol.views import (
    BudgetView,
    EarlierView,
    FleetHostView,
    JobLine,
    JobView,
    MemberView,
    QuotaView,
)


def job_view(job: FleetJob, now: float, rules: Rules) -> JobView:
    """Return what is told of a job of the fleet."""
    members = [_member(member) for member in job.members]
    earlier = [
        EarlierView(
            host=member.host,
            rank=member.rank,
            local_job=member.local,
            attempts=[one.before + 1, one.before + one.starts],
        )
        for one in job.earlier
        for member in one.members
    ]
    return JobView(
        **_line(job, now, rules),
        spec=job.spec,
        members=members,
        earlier=earlier,
        rendezvous=job.rendezvous,
    )


def job_line(job: FleetJob, now: float, rules: Rules) -> JobLine:
    """Return the same in brief."""
    return JobLine(**_line(job, now, rules))


def _line(job: FleetJob, now: float, rules: Rules) -> dict[str, Any]:
    request = job.spec.request
    reports = [member.report for member in job.members if member.report is not None]
    # What the present assignment came to is added when it is over; until then, and after the end, see below.
    present = [] if job.state in ENDED else reports
    counts_for = effective_priority(job, rules)
    one = job.members[0] if len(job.members) == 1 else None
    held = _gpus(one) if one is not None else []
    return {
        "id": job.id,
        "name": job.spec.name,
        "user": job.spec.user,
        "state": job.state.value,
        "stage": next((report.stage for report in reports if report.stage), None),
        "reason": job.reason,
        "priority": job.priority,
        "preemptible": job.spec.preemptible,
        "gpus": request.gpus,
        "host_count": job.request.hosts,
        "affinity": request.affinity.value,
        "policy": request.policy.value,
        "cpus": request.cpus,
        "cpu_affinity": request.cpu_affinity.value,
        "gpu_indices": held,
        "cpu_list": one.report.cpu_list if one is not None and one.report is not None else "",
        "submitted_at": job.submitted_at,
        "placed_at": job.placed_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "attempt": job.starts + max((report.starts for report in present), default=0),
        "starts": job.starts + max((report.starts for report in present), default=0),
        "preemptions": job.preemptions + max((report.preemptions for report in present), default=0),
        "effective_priority": None if counts_for == job.priority or job.state in ENDED else counts_for,
        "failures": job.failures,
        "next_try_at": job.not_before if job.not_before > now else None,
        "exit_code": job.exit_code,
        "gpu_seconds": job.gpu_seconds + sum(report.gpu_seconds for report in present),
        "label": job.label,
        "array_id": job.array.id if job.array else None,
        "array_index": job.array.index if job.array else None,
        "array_limit": job.array.limit if job.array else None,
        "array_count": job.array.count if job.array else None,
        "after": [wanted.job for wanted in job.after],
        "hosts": [member.host for member in job.members],
    }


def _gpus(member: Member) -> list[int]:
    """Return what a member has on its host; before the host told it, what it is to have."""
    report = member.report
    return list(member.place.gpus if report is None else report.gpus)


def _member(member: Member) -> MemberView:
    report = member.report
    return MemberView(
        host=member.host,
        address=member.address,
        rank=member.rank,
        local_job=report.local if report is not None and report.local else None,
        state="lost" if member.lost else "assigned" if report is None else report.state,
        gpu_indices=_gpus(member),
        cpu_list="" if report is None else report.cpu_list,
        victims=list(member.place.victims),
    )


def fairness_view(state: FleetState, budgets: Iterable[BudgetUse], rules: Rules, user: str = "") -> Fairness:
    """Return how quotas and disruption budgets stand over the fleet, the quotas of `user` too."""
    ledger = Ledger(rules)
    for job in state.jobs.values():
        held = sum(not member.over for member in job.members)
        if held:
            ledger.add(job.spec, held * job.spec.request.gpus)
    uses = ledger.binding((job.spec for job in state.jobs.values()), user)
    return Fairness(
        quotas=[
            QuotaView(scope=use.scope.value, key=use.key, value=use.value, gpus=use.gpus, limit=use.limit)
            for use in uses
        ],
        budgets=[
            BudgetView(
                label=use.label,
                value=use.value,
                running=use.running,
                min_running=use.min_running,
                may_stop=use.stops,
            )
            for use in budgets
        ],
    )


class About(NamedTuple):
    """What neither state nor view of a fleet tell of a host."""

    runtime: str = ""
    emulated: bool = False
    troubles: Sequence[str] = ()


def host_views(
    state: FleetState, view: FleetView, now: float, about: Mapping[str, About]
) -> list[FleetHostView]:
    """Return one line for each host, by name."""
    return [
        _host(record, view.hosts.get(name), state, now, about.get(name, About()))
        for name, record in sorted(state.hosts.items())
    ]


def _host(
    record: HostRecord, seen: HostView | None, state: FleetState, now: float, about: About
) -> FleetHostView:
    word, reason = standing(record, seen, now)
    snapshot = None if seen is None else seen.snapshot
    gpus = seen.tables.topology.gpus if seen is not None else ()
    free = None if seen is None or snapshot is None else free_of(snapshot, seen.tables.all_gpus).bit_count()
    return FleetHostView(
        name=record.name,
        state=word,
        reason=reason,
        gpus=len(gpus) if seen is not None else None,
        free_gpus=free,
        gpu_models=sorted({gpu.name for gpu in gpus}),
        jobs=[int(job.id) for job in jobs_on(state.jobs, record.name)],
        labels=record.all_labels,
        hardware=record.hardware,
        version=record.version,
        heard_at=None if seen is None else seen.heard_at,
        known_since=record.known_since,
        runtime=about.runtime,
        emulated=about.emulated,
        troubles=[*about.troubles, *(() if seen is None else seen.troubles)],
    )


def standing(record: HostRecord, seen: HostView | None, now: float) -> tuple[str, str]:
    """Return how a host stands, in a word and with the reason."""
    if seen is None:
        away = "has not reported since this coordinator was started"
        return ("away", away if record.closed is None else f"{away}; {_closed(record)[1]}")
    if seen.silent:
        return "silent", f"not heard of for {now - seen.heard_at:.0f} s"
    if record.closed is not None:
        return _closed(record)
    if seen.snapshot is None:
        return "joining", "has not reported yet"
    if seen.snapshot.closed is not None:
        return "closed", seen.snapshot.closed
    return "ready", ""


def _closed(record: HostRecord) -> tuple[str, str]:
    assert record.closed is not None
    return ("drained" if record.closed.drained else "cordoned"), record.closed.reason
