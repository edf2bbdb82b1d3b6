"""What users and administrators ask of a fleet.

`why_not` says in words what a step would ignore: the shell asks it first and answers with that.
"""

from dataclasses import replace

from topod.fleet import events as ev
from topod.fleet.depending import impossible
from topod.fleet.draft import Draft
from topod.fleet.jobtable import jobs_on
from topod.fleet.members import advance, end, finish, lose
from topod.fleet.states import (
    ENDED,
    Closed,
    Ending,
    FleetJob,
    FleetJobId,
    FleetJobState,
    FleetRequest,
    FleetState,
    HostRecord,
)
from topod.fleet.view import FleetView
from topod.model.arrays import members
from topod.model.job import OnPreempt
from topod.model.quotas import over_quota
from topod.model.rules import NO_RULES, Rules


def refusal_of(request: FleetRequest, rules: Rules = NO_RULES) -> str | None:
    """Return why a fleet can never do what is asked, in words, or None."""
    return over_quota(request.spec, rules, request.hosts)


def why_not(state: FleetState, view: FleetView, event: ev.Event, rules: Rules = NO_RULES) -> str | None:
    """Return why a request cannot be fulfilled, in words; None if it can."""
    match event:
        case ev.Submitted():
            return refusal_of(event.request, rules)
        case ev.CancelRequested() | ev.PriorityChanged():
            return None if event.job in state.jobs else f"no job {event.job} that has not ended"
        case ev.RequeueRequested():
            job = state.jobs.get(event.job)
            return why_not_requeued(job) if job else f"no job {event.job} that has not ended"
        case ev.HostLabelled() | ev.HostCordoned() | ev.HostResumed():
            return None if event.host in state.hosts else f"no host {event.host}"
        case ev.HostRemoved():
            return _why_not_removed(state, view, event)
        case _:
            return None


def _why_not_removed(state: FleetState, view: FleetView, event: ev.HostRemoved) -> str | None:
    if event.host not in state.hosts:
        return f"no host {event.host}"
    seen = view.hosts.get(event.host)
    if seen is not None and not seen.silent:
        return f"{event.host} is not gone: it was heard of just now; drain it, then stop its topod"
    jobs = jobs_on(state.jobs, event.host)
    if not jobs or event.dead:
        return None
    count = f"{len(jobs)} jobs" if len(jobs) > 1 else jobs[0].label
    return f"{event.host} still has {count}: drain it first, or say that it is dead"


def submitted(draft: Draft, event: ev.Submitted) -> None:
    """Queue a new job, or each member of an array, under the next ids."""
    request = event.request
    spec = request.spec
    never = refusal_of(request, draft.rules) or impossible(draft, spec.after, event.settled)
    draft.tell_dependents |= bool(spec.after)
    for one, place in members(spec, event.array, draft.next_job):
        job = FleetJob(
            id=draft.next_job,
            request=replace(request, spec=one),
            submitted_at=draft.now,
            reason="queued",
            array=place,
            after=spec.after if never is None else (),
        )
        draft.next_job = FleetJobId(draft.next_job + 1)
        draft.put(job)
        draft.note("job.submitted", f"{job.label} submitted", job=job, user=spec.user, priority=job.priority)
        if never is not None:
            finish(draft, job, Ending(state=FleetJobState.CANCELLED, reason=never))


def cancel(draft: Draft, event: ev.CancelRequested) -> None:
    """End a job for good, wherever it is."""
    job = draft.get(event.job)
    if job is None:
        return
    reason = f"cancelled by {event.by}" if event.by else "cancelled"
    ending = Ending(state=FleetJobState.CANCELLED, reason=reason)
    if job.members:
        advance(draft, end(draft, job, ending))
    else:
        finish(draft, job, ending)


def why_not_requeued(job: FleetJob) -> str | None:
    """Return why a job cannot be placed anew, in words; None if it can."""
    if job.state in ENDED:
        return f"{job.label} has ended: {job.state.value}; submit it again"
    if job.state is FleetJobState.STOPPING or job.ending is not None:
        return f"{job.label} is stopping already: {job.reason}"
    if job.state is not FleetJobState.RUNNING:
        return f"{job.label} does not run: it is {job.state.value}"
    if job.spec.on_preempt is OnPreempt.CANCEL:
        return f"{job.label} never runs twice: it was submitted with on-preempt cancel"
    return None


def put_back(draft: Draft, event: ev.RequeueRequested) -> None:
    """Have a running job stopped on all its hosts, and placed anew once nothing of it runs any more."""
    job = draft.get(event.job)
    if job is None or why_not_requeued(job) is not None:
        return
    reason = f"requeued by {event.by}" if event.by else "requeued"
    advance(draft, end(draft, job, Ending(state=FleetJobState.PENDING, reason=reason)))


def change_priority(draft: Draft, event: ev.PriorityChanged) -> None:
    """Change a job's priority; its hosts are told."""
    job = draft.get(event.job)
    if job is None or job.priority == event.priority:
        return
    asked = replace(job.spec.request, priority=event.priority)
    request = replace(job.request, spec=replace(job.spec, request=asked))
    text = f"{job.label}: priority {job.priority} -> {event.priority}"
    draft.put(replace(job, request=request, reprioritised=bool(job.members)))
    # Others may go before it now, or what is kept for it may be free to have.
    draft.behind = True
    draft.note("job.reprioritised", text, job=job, by=event.by, priority=event.priority)


def administer(draft: Draft, event: ev.Event) -> None:
    """Do what an administrator wants of a host; what cannot be is not done (`why_not`)."""
    match event:
        case ev.HostAdded() if event.host not in draft.records:
            draft.record(HostRecord(name=event.host, known_since=draft.now, labels=event.labels))
            draft.note("host.added", f"{event.host} belongs to the fleet", host=event.host)
        case ev.HostAdded() | ev.HostLabelled() if (record := draft.records.get(event.host)) is not None:
            draft.record(replace(record, labels=event.labels))
            draft.behind = True
        case ev.HostCordoned() if (record := draft.records.get(event.host)) is not None:
            _close(draft, record, event)
        case ev.HostResumed() if (record := draft.records.get(event.host)) is not None:
            if record.closed is not None:
                draft.record(replace(record, closed=None))
                draft.behind = True
                draft.note("host.resumed", f"{event.host} gets work again", host=event.host)
        case ev.HostRemoved():
            _remove(draft, event)
        case _:
            pass


def _close(draft: Draft, record: HostRecord, event: ev.HostCordoned) -> None:
    word = "drained" if event.requeue else "cordoned"
    closed = Closed(reason=event.reason, since=draft.now, drained=event.requeue)
    draft.record(replace(record, closed=closed))
    draft.note(f"host.{word}", f"{record.name} {word}: {event.reason}", host=record.name)
    if event.requeue:
        ending = Ending(state=FleetJobState.PENDING, reason=f"{record.name} is drained: {event.reason}")
        for job in draft.jobs.on(record.name):
            if job.state not in ENDED:
                advance(draft, end(draft, job, ending))


def _remove(draft: Draft, event: ev.HostRemoved) -> None:
    if _why_not_removed_now(draft, event) is not None:
        return
    by = f" by {event.by}" if event.by else ""
    for job in draft.jobs.on(event.host):
        if job.state not in ENDED:
            lose(draft, job, event.host, f"{event.host} was declared dead{by}")
    draft.forget(event.host)
    draft.unsee(event.host)
    words = f"was declared dead{by}" if event.dead else f"is no part of the fleet any more{by}"
    draft.note("host.removed", f"{event.host} {words}", host=event.host)


def _why_not_removed_now(draft: Draft, event: ev.HostRemoved) -> str | None:
    state = FleetState(jobs=draft.jobs, hosts=draft.records)
    return _why_not_removed(state, draft.view(), event)
