"""Hosts that come, report, fall silent and stay away for too long."""

from dataclasses import replace

from topod.fleet import events as ev
from topod.fleet.draft import Draft
from topod.fleet.members import lose, take_back, told
from topod.fleet.states import ENDED, HostRecord
from topod.fleet.view import HostView
from topod.model.job import OnHostLost


def leading(draft: Draft, event: ev.Leading) -> None:
    """Begin a leadership: all that was seen before counts for nothing, and every lease anew from now."""
    draft.epoch = max(draft.epoch, event.epoch)
    draft.since = draft.now
    draft.behind = True


def seen(draft: Draft, event: ev.HostSeen) -> None:
    """Take in a hello. What the host has, its first report tells."""
    if draft.view().turned_away(event.host, event.session) is not None:
        return
    old = draft.seen.get(event.host)
    if old is None or old.session != event.session:
        view = HostView(session=event.session, tables=event.tables, heard_at=draft.now)
    else:
        view = replace(old, tables=event.tables)
    draft.see(event.host, view)
    draft.touch(event.host)
    record = draft.records.get(event.host)
    if record is None:
        record = HostRecord(name=event.host, known_since=draft.now)
        draft.note("host.joined", f"{event.host} joins the fleet", host=event.host)
    elif record.hardware not in ("", event.hardware):
        words = f"{event.host} is made of other hardware than before"
        draft.note("host.changed", words, host=event.host)
    draft.record(
        replace(
            record,
            own_labels=event.labels,
            hardware=event.hardware,
            session=event.session,
            version=event.version,
            address=event.address,
        )
    )


def reported(draft: Draft, event: ev.HostReported) -> None:
    """Take in a report; one that comes late, or of a session that is not the present one, is ignored."""
    old = draft.seen.get(event.host)
    if old is None or old.session != event.session or event.seq <= old.seq:
        return
    if event.epoch and event.epoch >= draft.epoch:
        _catch_up(draft, event)
    troubles = tuple(event.troubles)
    view = replace(old, seq=event.seq, heard_at=draft.now, silent=False, troubles=troubles)
    if event.snapshot is not None and event.jobs is not None:
        snapshot = replace(event.snapshot, host=event.host)
        jobs = {(report.job, report.fence): report for report in event.jobs}
        view = replace(view, seen=event.seq, snapshot=snapshot, jobs=jobs)
    if (old.snapshot, old.silent) != (view.snapshot, view.silent):
        draft.behind = True
    draft.see(event.host, view)
    if view.jobs is not old.jobs:
        draft.touch(event.host)
        told(draft, event.host, event.jobs or ())


def _catch_up(draft: Draft, event: ev.HostReported) -> None:
    """Go on after a leadership of which nothing is remembered: the state was lost, or is one of before.

    Hosts obey no earlier leadership than they have heard, and take in no earlier fence. In etcd a coordinator
    that leads no more cannot write this, and so does not get there.
    """
    draft.epoch = event.epoch + 1
    draft.next_fence = max(draft.next_fence, event.fence + 1)
    text = (
        f"{event.host} has heard leadership {event.epoch}, of which this coordinator remembers nothing: "
        f"its state was lost or is older; it goes on as leadership {draft.epoch}"
    )
    draft.note("fleet.behind", text, host=event.host)


def silent(draft: Draft, host: str) -> None:
    """Give a host no new work until it reports again."""
    view = draft.seen.get(host)
    if view is not None and not view.silent:
        draft.see(host, replace(view, silent=True))
        draft.note("host.silent", f"{host} is not heard of", host=host)


def tick(draft: Draft) -> None:
    """Look at who has not been heard of for long, and give up what their leases no longer cover."""
    for host, view in sorted(draft.seen.items()):
        if not view.silent and draft.now - view.heard_at >= draft.terms.silent_after_seconds:
            silent(draft, host)
    _give_up(draft)
    for job in draft.jobs.unready():
        if job.placed_at is not None and job.placed_at + draft.terms.ready_seconds <= draft.now:
            take_back(draft, job)
    draft.behind = True


def _give_up(draft: Draft) -> None:
    """Place anew what surely runs no more on hosts that are cut off."""
    for host in draft.jobs.hosts():
        heard = draft.heard_at(host)
        if draft.now - heard < draft.terms.lease_seconds:
            continue
        for job in draft.jobs.on(host):
            member = job.on(host)
            if member is None or member.over or job.state in ENDED:
                continue
            if job.spec.on_host_lost is OnHostLost.KEEP:
                continue
            if draft.terms.certainly_stopped(heard, job.spec) <= draft.now:
                lose(draft, job, host, f"{host} was not heard of for {draft.now - heard:.0f} s")
