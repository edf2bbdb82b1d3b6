"""What becomes of a job by what its hosts tell of it, one host or several.

Rule: a job is placed anew, or has ended, only when every one of its members is over. Until then the hosts
are told to stop it, again and again.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from topod.fleet.draft import Draft
from topod.fleet.states import EARLIER_MAX, ENDED, Earlier, Ending, FleetJob, FleetJobState, Member, OnHost
from topod.fleet.view import Refused
from topod.model.assignment import REFUSED, RETURNED, FleetJobReport
from topod.model.job import RestartPolicy

BACK_OFF_SECONDS: Final = 5.0
BACK_OFF_LIMIT_SECONDS: Final = 300.0
_PROGRESS: Final = {
    "pending": FleetJobState.ASSIGNED,
    "starting": FleetJobState.STARTING,
    "running": FleetJobState.RUNNING,
    "stopping": FleetJobState.STOPPING,
    "preempted": FleetJobState.STOPPING,
}
"""What a host's states mean for the job; on a host `pending` is a job that waits to be started again."""
_ORDER: Final = (
    FleetJobState.STOPPING,
    FleetJobState.ASSIGNED,
    FleetJobState.STARTING,
    FleetJobState.RUNNING,
)
"""Of the states of several members the first one here is the job's."""
_BY_ITSELF: Final = ("succeeded", "failed", "lost")
"""Ends that no order of ours brings about."""


def told(draft: Draft, host: str, reports: Iterable[FleetJobReport]) -> None:
    """Take in what a host says of its jobs."""
    for report in reports:
        job = draft.get(report.job)
        if job is None or job.fence != report.fence:
            continue
        member = job.on(host)
        if member is None:
            _told_late(draft, job, report)
        elif not member.over and member.report != report:
            members = tuple(replace(m, report=report) if m.host == host else m for m in job.members)
            _mind_refusal(draft, job, host, report)
            advance(draft, draft.put(replace(job, members=members)))


def lose(draft: Draft, job: FleetJob, host: str, reason: str) -> None:
    """Take note that nothing of a job runs on a host any more, nor ever will of this assignment."""
    members = tuple(replace(m, lost=True) if m.host == host else m for m in job.members)
    job = draft.put(replace(job, members=members))
    advance(draft, end(draft, job, Ending(state=FleetJobState.PENDING, reason=reason)))


def take_back(draft: Draft, job: FleetJob) -> None:
    """Give up an assignment to several hosts not all of which become ready; leave the slow ones alone."""
    slow = [m.host for m in job.members if m.report is None or not m.report.ready]
    for host in slow:
        draft.refuse(job.id, host, Refused(times=1, until=draft.now + draft.terms.ready_seconds))
    reason = f"{', '.join(slow)} not ready within {draft.terms.ready_seconds:.0f} s"
    advance(draft, end(draft, job, Ending(state=FleetJobState.PENDING, reason=reason)))


def end(draft: Draft, job: FleetJob, ending: Ending) -> FleetJob:
    """Have a job stopped where it is; an earlier reason stands, unless the job is to end for good."""
    if job.ending is not None and (ending.state not in ENDED or job.ending.state in ENDED):
        return job
    return draft.put(replace(job, ending=ending))


def advance(draft: Draft, job: FleetJob) -> None:
    """Bring a job with members to where these are."""
    over = [member for member in job.members if member.over]
    if job.ending is None and (ending := next(filter(None, (_ending(job, m) for m in over)), None)):
        job = draft.put(replace(job, ending=ending))
    if len(over) == len(job.members):
        _settle(draft, job)
        return
    if job.ending is not None:
        if job.state is not FleetJobState.STOPPING or job.reason != job.ending.reason:
            draft.put(replace(job, state=FleetJobState.STOPPING, reason=job.ending.reason))
        return
    _progress(draft, job)


# --- several members ----------------------------------------------------------------------------------------


def _progress(draft: Draft, job: FleetJob) -> None:
    live = [member for member in job.members if not member.over]
    states = {_state(member) for member in live}
    state = next(state for state in _ORDER if state in states)
    reports = [member.report for member in live if member.report is not None]
    go = job.go or (len(job.members) > 1 and len(reports) == len(live) and all(r.ready for r in reports))
    started = [r.started_at for r in reports if r.started_at is not None]
    started_at = max(started) if state is FleetJobState.RUNNING and started else job.started_at
    changed = replace(job, state=state, reason=_words(job, live), go=go, started_at=started_at)
    if changed == job:
        return
    draft.put(changed)
    if go and not job.go:
        draft.note("job.ready", f"{job.label}: all {len(job.members)} hosts are ready", job=job)
    if state is FleetJobState.RUNNING and job.state is not state:
        where = ", ".join(member.host for member in job.members)
        draft.note("job.started", f"{job.label} runs on {where}", job=job)


def _state(member: Member) -> FleetJobState:
    if member.report is None:
        return FleetJobState.ASSIGNED
    return _PROGRESS.get(member.report.state, FleetJobState.STARTING)


def _words(job: FleetJob, live: list[Member]) -> str:
    for member in live:
        if member.report is None:
            return f"assigned to {member.host}, which has not confirmed it"
        if member.report.reason:
            return member.report.reason if len(job.members) == 1 else f"{member.host}: {member.report.reason}"
    return ""


def _ending(job: FleetJob, member: Member) -> Ending | None:
    """Return what the end of one member means for the job; None where it means nothing by itself."""
    report = member.report
    if member.lost or report is None:
        return Ending(state=FleetJobState.PENDING, reason=f"host {member.host} is lost")
    where = "" if len(job.members) == 1 else f"{member.host}: "
    reason = f"{where}{report.reason}"
    if report.state == "succeeded":
        return None
    if report.state in (REFUSED, RETURNED):
        did = "refused" if report.state == REFUSED else "given back"
        return Ending(state=FleetJobState.PENDING, reason=f"{did} by {member.host}: {report.reason}")
    failed = report.state == "failed"
    state = FleetJobState.PENDING if failed and _again(job) else FleetJobState(report.state)
    return Ending(state=state, reason=reason, exit_code=report.exit_code, failed=failed)


def _again(job: FleetJob) -> bool:
    """Say whether a job over several hosts that failed runs again; of one host that one decides."""
    if len(job.members) == 1 or job.spec.restart is RestartPolicy.NEVER:
        return False
    return job.failures < job.spec.max_restarts


# --- the end of an assignment -------------------------------------------------------------------------------


def _settle(draft: Draft, job: FleetJob) -> None:
    """Put a job none of whose members runs any more to rest, or back into the queue."""
    reports = [member.report for member in job.members if member.report is not None]
    job = replace(
        job,
        starts=job.starts + max((report.starts for report in reports), default=0),
        preemptions=job.preemptions + max((report.preemptions for report in reports), default=0),
        gpu_seconds=job.gpu_seconds + sum(report.gpu_seconds for report in reports),
        reprioritised=False,
    )
    ending = _verdict(job)
    if ending.state in ENDED:
        finish(draft, job, ending)
        return
    ran = job.members[0].report
    if len(job.members) == 1:
        failures = job.failures if ran is None else ran.failures
    else:
        failures = job.failures + 1 if ending.failed else 0
    again = replace(
        job,
        state=FleetJobState.PENDING,
        reason=ending.reason,
        members=(),
        earlier=_with_this(job),
        guard=None,
        go=False,
        ending=None,
        failures=failures,
        not_before=draft.now + _back_off(failures) if ending.failed else 0.0,
        ready_at=None,
        exit_code=ending.exit_code,
    )
    draft.put(again)
    draft.note("job.requeued", f"{job.label} is placed anew: {ending.reason}", job=job)


def _with_this(job: FleetJob) -> tuple[Earlier, ...]:
    """Return the earlier assignments of a job with the present one, if it was started in that."""
    ran = {member.rank: member for member in job.members if member.report is not None and member.report.local}
    starts = max((m.report.starts for m in ran.values() if m.report is not None), default=0)
    if not starts:
        return job.earlier
    places = [OnHost(rank=r, host=m.host, local=m.report.local) for r, m in sorted(ran.items()) if m.report]
    where = Earlier(
        host=job.members[0].host,
        local=next((place.local for place in places if place.rank == 0), 0),
        others=tuple(place for place in places if place.rank),
        before=job.earlier[-1].before + job.earlier[-1].starts if job.earlier else 0,
        starts=starts,
    )
    return (*job.earlier, where)[-EARLIER_MAX:]


def finish(draft: Draft, job: FleetJob, ending: Ending) -> None:
    """End a job that is on no host, for good."""
    ended = replace(
        job,
        state=ending.state,
        reason=ending.reason,
        after=(),
        ending=None,
        target=(),
        ready_at=None,
        ended_at=draft.now,
        exit_code=ending.exit_code,
    )
    draft.put(ended)
    words = f": {ending.reason}" if ending.reason else ""
    draft.note(f"job.{ending.state.value}", f"{job.label} {ending.state.value}{words}", job=job)


def _verdict(job: FleetJob) -> Ending:
    """Return what becomes of a job that is over everywhere: what it did by itself counts before orders."""
    reports = [member.report for member in job.members if not member.lost and member.report is not None]
    states = {report.state for report in reports}
    if len(reports) == len(job.members):
        report = reports[0]
        if states == {"succeeded"}:
            return Ending(state=FleetJobState.SUCCEEDED, reason=report.reason, exit_code=report.exit_code)
        if len(reports) == 1 and report.state in _BY_ITSELF:
            state = FleetJobState(report.state)
            return Ending(state=state, reason=report.reason, exit_code=report.exit_code)
    assert job.ending is not None
    return job.ending


def _back_off(failures: int) -> float:
    return min(BACK_OFF_LIMIT_SECONDS, BACK_OFF_SECONDS * (1 << min(failures - 1, 10)))


# --- late and refused ---------------------------------------------------------------------------------------


def _told_late(draft: Draft, job: FleetJob, report: FleetJobReport) -> None:
    """Believe a host that was given up and did the job all the same, while nobody else has begun it."""
    if job.state is FleetJobState.PENDING and job.request.hosts == 1 and report.state == "succeeded":
        starts = max(job.starts, report.starts)  # its start was counted when it was given up
        job = replace(job, starts=starts, gpu_seconds=job.gpu_seconds + report.gpu_seconds)
        finish(
            draft,
            job,
            Ending(state=FleetJobState.SUCCEEDED, reason=report.reason, exit_code=report.exit_code),
        )


def _mind_refusal(draft: Draft, job: FleetJob, host: str, report: FleetJobReport) -> None:
    """Leave a host alone for a while that gives the same job back again and again without starting it."""
    if report.starts:
        draft.refuse(job.id, host, None)
    elif report.state in (REFUSED, RETURNED) and job.ending is None:
        old = draft.refused.get((job.id, host))
        times = 1 if old is None else old.times + 1
        draft.refuse(job.id, host, Refused(times=times, until=draft.now + draft.terms.refused_wait(times)))
