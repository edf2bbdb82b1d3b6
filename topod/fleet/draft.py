"""The working copy of one step: what the handlers change before it becomes a `FleetOutcome`.

It lives only inside `step`; nobody outside ever sees a half-changed state.
"""

from dataclasses import replace
from typing import Final

from topod.fleet.board import Board
from topod.fleet.jobtable import FleetJobs, held_of
from topod.fleet.outcome import FleetNotice, FleetOutcome
from topod.fleet.states import ENDED, FleetJob, FleetJobId, FleetJobState, FleetState, HostRecord
from topod.fleet.terms import Terms
from topod.fleet.view import FleetView, HostView, Refused
from topod.model.rules import Rules

RETOLD_AT_ONCE: Final = 1000
"""Room that comes free may change the reason of every job that waits; a step must stay short."""


class Draft:
    """A fleet being changed at the moment `now` (epoch seconds)."""

    def __init__(
        self, state: FleetState, view: FleetView, board: Board, now: float, *, rules: Rules, terms: Terms
    ) -> None:
        self.now: Final = now
        self.rules: Final = rules
        self.terms: Final = terms
        self.board: Final = board
        self.epoch = state.epoch
        self.next_job = state.next_job
        self.next_fence = state.next_fence
        self.jobs = FleetJobs(state.jobs, rules)
        self.records = dict(state.hosts)
        self.seen = dict(view.hosts)
        self.refused = dict(view.refused)
        self.since = view.since
        self.first = view.first
        self.behind = view.behind
        """Whether the whole queue must be gone through: somewhere room may have come free."""
        self.fresh: set[FleetJobId] = set()
        """Jobs that are to be looked at even if no room came free."""
        self.tell_dependents = False
        """Whether a job ended, or a new one waits for others, since dependencies were looked at."""
        self.notices: list[FleetNotice] = []
        self._before = state
        self._view_before = view
        self._touched: set[FleetJobId] = set()
        self._touched_hosts: set[str] = set()
        self._removed: set[str] = set()
        self._retold = 0
        self._told: set[str] = set()
        self._stale: set[str] = set()
        if not board.is_at(state, view):
            self._stale |= {*board.known(), *view.hosts}

    def get(self, job: int) -> FleetJob | None:
        """Return a job that has not ended, or None."""
        found = self.jobs.get(FleetJobId(job))
        return None if found is None or found.state in ENDED else found

    def put(self, job: FleetJob) -> FleetJob:
        """Store a changed job."""
        old = self.jobs.get(job.id)
        self.jobs[job.id] = job
        self._touched.add(job.id)
        for member in (*job.members, *(old.members if old is not None else ())):
            self.touch(member.host)
        if job.state is FleetJobState.PENDING:
            self.fresh.add(job.id)
        if job.state in ENDED:
            self.tell_dependents = True
        if old is not None and held_of(old) is not None and held_of(job) is None:
            self.behind = True  # another of its array may start
        return job

    def retell(self, job: FleetJob, reason: str) -> None:
        """Say anew what a pending job waits for. That is not stored: it follows from all the rest.

        At most `RETOLD_AT_ONCE` jobs are told anew in one step, the others in the next ones, soon after.
        """
        if job.reason == reason:
            return
        if self._retold >= RETOLD_AT_ONCE:
            self.behind = True
            return
        self.jobs.retell(replace(job, reason=reason))
        self._retold += 1

    def touch(self, host: str) -> None:
        """Note that a host is to be told something, and shown anew to the decision."""
        self._told.add(host)
        self._stale.add(host)

    def record(self, record: HostRecord) -> None:
        """Store a changed host."""
        self.records[record.name] = record
        self._touched_hosts.add(record.name)
        self._stale.add(record.name)

    def forget(self, host: str) -> None:
        """Remove a host from the fleet."""
        if self.records.pop(host, None) is not None and host in self._before.hosts:
            self._removed.add(host)
        self._stale.add(host)

    def see(self, host: str, seen: HostView) -> None:
        """Store what is seen of a host."""
        old = self.seen.get(host)
        self.seen[host] = seen
        if old is None or (old.snapshot, old.jobs, old.silent) != (seen.snapshot, seen.jobs, seen.silent):
            self._stale.add(host)
            # A member elsewhere stands for the one here too.
            for job in self.jobs.on(host) if old is None or old.snapshot != seen.snapshot else ():
                self._stale.update(member.host for member in job.members)

    def unsee(self, host: str) -> None:
        """Forget what was seen of a host."""
        self.seen.pop(host, None)
        self._stale.add(host)

    def refuse(self, job: FleetJobId, host: str, refused: Refused | None) -> None:
        """Note that a host gave a job back, or forget it."""
        if refused is None:
            self.refused.pop((job, host), None)
        else:
            self.refused[job, host] = refused

    def heard_at(self, host: str) -> float:
        """Return the last moment from which a lease of this host may count."""
        seen = self.seen.get(host)
        return self.since if seen is None else max(seen.heard_at, self.since)

    def show(self) -> Board:
        """Return the board as of now."""
        if self._stale:
            self.board.show(sorted(self._stale), self.jobs, self.records, self.view(), self.rules)
            self._stale.clear()
        return self.board

    def view(self) -> FleetView:
        """Return the view as it is now."""
        return FleetView(
            since=self.since,
            hosts=self.seen,
            refused=self.refused,
            first=self.first,
            behind=self.behind,
        )

    def note(
        self, name: str, text: str, *, job: FleetJob | None = None, host: str | None = None, **data: object
    ) -> None:
        """Add one line to the fleet's story."""
        ident = None if job is None else job.id
        self.notices.append(FleetNotice(name=name, text=text, job=ident, host=host, data=tuple(data.items())))

    def finish(self) -> FleetOutcome:
        """Return the outcome; jobs that ended are put to rest."""
        self.show()
        before = self._before
        touched = [self.jobs[ident] for ident in sorted(self._touched)]
        changed = tuple(job for job in touched if before.jobs.get(job.id) != job)
        for job in touched:
            if job.state in ENDED:
                del self.jobs[job.id]
                self._forget_refusals(job.id)
        named = (self.records.get(name) for name in sorted(self._touched_hosts))
        hosts = tuple(r for r in named if r is not None and before.hosts.get(r.name) != r)
        removed = tuple(sorted(self._removed - self.records.keys()))
        state = replace(
            before,
            next_job=self.next_job,
            next_fence=self.next_fence,
            epoch=self.epoch,
            jobs=self.jobs,
            hosts=self.records,
        )
        if changed or hosts or removed or self.epoch != before.epoch:
            state = replace(state, generation=before.generation + 1)
        view = self.view()
        self.board.stamp(state, view)
        return FleetOutcome(
            state=state,
            view=view,
            notices=tuple(self.notices),
            changed=changed,
            changed_hosts=hosts,
            removed_hosts=removed,
            orders=tuple(sorted(self._told)),
        )

    def _forget_refusals(self, job: FleetJobId) -> None:
        for key in [key for key in self.refused if key[0] == job]:
            del self.refused[key]
