"""A member of a job over several hosts as the decision sees it: as the whole job, which ends with it.

A host tells of its own member only. What stops with it on other hosts, what work is lost there, who protects
it there and which budgets count it there, the coordinator knows from the reports of these hosts.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.fleet.states import FleetJob, Member
from topod.fleet.view import HostView
from topod.model.occupancy import Budget

_BEING_PLACED: Final = "being placed just now"


@dataclass(frozen=True, slots=True)
class _Part:
    """One member that is not over, and what its host tells of it."""

    member: Member
    held: HeldBy | None
    """None: it has not begun, or stops already, or its host has not reported."""
    snapshot: HostSnapshot | None


def with_wholes(
    snapshot: HostSnapshot, jobs: Iterable[FleetJob], views: Mapping[str, HostView]
) -> HostSnapshot:
    """Return a host on which every member of a job over several hosts stands for all of it."""
    holders, budgets = {held.job: held for held in snapshot.holders}, list(snapshot.budgets)
    for job in jobs:
        member = job.on(snapshot.host)
        if len(job.members) < 2 or member is None or member.over or member.report is None:
            continue
        mine = holders.get(str(member.report.local))
        if mine is not None:
            parts = [_part(one, views.get(one.host)) for one in job.members if not one.over]
            others = [part for part in parts if part.member is not member]
            counted = list(_budgets_elsewhere(others))
            budgets += [budget for budget in counted if budget not in budgets]
            whole = _whole(job, mine, others)
            names = (*mine.budgets, *(budget.name for budget in counted))
            holders[mine.job] = replace(whole, budgets=names)
    return replace(snapshot, holders=tuple(holders.values()), budgets=tuple(budgets))


def _part(member: Member, seen: HostView | None) -> _Part:
    snapshot = None if seen is None else seen.snapshot
    held = None
    if snapshot is not None and member.report is not None:
        name = str(member.report.local)
        held = next((one for one in snapshot.holders if one.job == name), None)
    return _Part(member, held, snapshot)


def _whole(job: FleetJob, mine: HeldBy, others: list[_Part]) -> HeldBy:
    known = [mine, *(part.held for part in others if part.held is not None)]
    work_gpus, since = _work(known)
    barred = next((held for held in known if held.evictable_from is None), None)
    evictable_from: float | None = max(held.evictable_from or 0.0 for held in known)
    protection = mine.protection if barred is None else barred.protection
    if barred is not None:
        evictable_from = None
    elif any(part.member.report is None for part in others):
        evictable_from, protection = None, _BEING_PLACED
    guards = [held.guard_priority for held in known if held.guard_priority is not None]
    return replace(
        mine,
        gang=int(job.id),
        stops=1 + len(others),
        elsewhere=sum(_gpus(job, part) for part in others),
        priority=max(held.priority for held in known),
        guard_priority=max(guards, default=None),
        guarded_until=max(held.guarded_until for held in known),
        work_since=since,
        work_gpus=work_gpus,
        evictable_from=evictable_from,
        protection=protection,
    )


def _gpus(job: FleetJob, part: _Part) -> int:
    return job.spec.request.gpus if part.held is None else part.held.gpus.bit_count()


def _work(known: list[HeldBy]) -> tuple[int, float | None]:
    """Return since when, on the average, work would be lost on how many GPUs."""
    # A host takes its other members to be like its own.
    working = [
        (held.work_since, held.work_gpus // held.stops) for held in known if held.work_since is not None
    ]
    gpus = sum(count for _, count in working)
    if not gpus:
        return 0, None
    first = min(since for since, _ in working)  # sums of differences are exact enough, of epoch seconds not
    return gpus, first + sum((since - first) * count for since, count in working) / gpus


def _budgets_elsewhere(others: list[_Part]) -> Iterator[Budget]:
    for part in others:
        if part.held is None or part.snapshot is None:
            continue
        for budget in part.snapshot.budgets:
            if budget.name in part.held.budgets:
                where = part.member.host
                reason = f"{budget.reason or budget.name} on {where}"
                yield replace(budget, name=f"{budget.name} on {where}", reason=reason)
