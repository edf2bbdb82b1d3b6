"""The jobs of a fleet, with what each step asks of thousands of them: who waits, and who is where.

Kept up to date at every change, so that an event that touches one job does not look at all the others.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from topod.fleet.states import ENDED, FleetJob, FleetJobId, FleetJobState, Member
from topod.model.alike import alike
from topod.model.budgets import budget_names
from topod.model.rules import Rules

NO_JOBS: Final[frozenset[FleetJobId]] = frozenset()


class Turn(NamedTuple):
    """The place of a pending job in the queue; the lowest goes first."""

    urgency: int
    """The negative effective priority."""
    submitted_at: float
    job: FleetJobId


def effective_priority(job: FleetJob, rules: Rules) -> int:
    """Return the priority by which a job is queued and protected: it rises beyond the cap on preemptions."""
    return rules.effective(job.priority, job.preemptions)


def turn(job: FleetJob, rules: Rules) -> Turn:
    """Return the job's place: effective priority, submit time, id."""
    return Turn(-effective_priority(job, rules), job.submitted_at, job.id)


class FleetJobs(dict[FleetJobId, FleetJob]):
    """Jobs by id. Changed by `table[id] = job`, `del table[id]` and `retell` only."""

    def __init__(self, jobs: Mapping[FleetJobId, FleetJob], rules: Rules) -> None:
        """Copy `jobs`; quickly, where they are a table made under the same rules."""
        super().__init__(jobs)
        self._rules: Final = rules
        self._queue: list[Turn]
        self._waiting: list[tuple[float, FleetJobId]]
        self._on: dict[str, frozenset[FleetJobId]]
        self._kinds: dict[FleetJobId, int]
        self._unready: set[FleetJobId]
        self._after: set[FleetJobId]
        self._arrays: dict[int, frozenset[FleetJobId]]
        self._held: Counter[int]
        self._counted: set[FleetJobId]
        self._preempting: set[FleetJobId]
        if isinstance(jobs, FleetJobs) and jobs._rules == rules:
            self._queue, self._waiting = jobs._queue.copy(), jobs._waiting.copy()
            self._on, self._kinds = jobs._on.copy(), jobs._kinds.copy()
            self._unready, self._after = jobs._unready.copy(), jobs._after.copy()
            self._arrays, self._held = jobs._arrays.copy(), jobs._held.copy()
            self._counted, self._preempting = jobs._counted.copy(), jobs._preempting.copy()
            return
        self._queue = sorted(turn(job, rules) for job in self.values() if job.state is FleetJobState.PENDING)
        self._waiting = sorted(since for job in self.values() if (since := _waits_since(job)))
        self._on, self._unready, self._after = {}, set(), set()
        self._arrays, self._held = {}, Counter()
        self._counted, self._preempting = set(), set()
        self._kinds = {job.id: kind for job in self.values() if (kind := _kind(job)) is not None}
        for job in self.values():
            self._enter(job)

    def __setitem__(self, ident: FleetJobId, job: FleetJob) -> None:
        old = self.get(ident)
        if old is not None:
            self._forget(old)
        super().__setitem__(ident, job)
        if job.state is FleetJobState.PENDING:
            insort(self._queue, turn(job, self._rules))
        if since := _waits_since(job):
            insort(self._waiting, since)
        if (kind := _kind(job)) is not None:
            self._kinds[ident] = kind
        self._enter(job)

    def __delitem__(self, ident: FleetJobId) -> None:
        old = self[ident]
        self._forget(old)
        if old.array is not None:
            left = self._arrays[old.array.id] - {ident}
            if left:
                self._arrays[old.array.id] = left
            else:
                del self._arrays[old.array.id]
        super().__delitem__(ident)

    def retell(self, job: FleetJob) -> None:
        """Replace a job by one that differs in its reason only."""
        super().__setitem__(job.id, job)

    def queue(self) -> list[FleetJob]:
        """Return the pending jobs in their order."""
        return [self[place.job] for place in self._queue]

    def waits_longest(self) -> list[FleetJob]:
        """Return the jobs that wait for room and for nothing else, who has waited longest first."""
        return [self[ident] for _, ident in self._waiting]

    def kind(self, ident: FleetJobId) -> int | None:
        """Return a number that pending jobs share which a pass over the queue answers alike.

        None for a job with affairs of its own: a back-off, a target, patience before others are stopped.
        """
        return self._kinds.get(ident)

    def on(self, host: str) -> list[FleetJob]:
        """Return the jobs with a member on a host, lowest id first."""
        return [self[ident] for ident in sorted(self._on.get(host, ()))]

    def numbers_on(self, host: str) -> frozenset[FleetJobId]:
        """Return the ids of the same: the same object for as long as they are the same jobs."""
        return self._on.get(host, NO_JOBS)

    def unready(self) -> list[FleetJob]:
        """Return the jobs over several hosts that were not told to go, lowest id first."""
        return [self[ident] for ident in sorted(self._unready)]

    def hosts(self) -> list[str]:
        """Return the hosts that jobs are on, by name."""
        return sorted(self._on)

    def counted(self) -> list[FleetJob]:
        """Return the jobs that disruption budgets count, running or not, lowest id first."""
        return [self[ident] for ident in sorted(self._counted)]

    def preempting(self) -> list[FleetJob]:
        """Return the jobs that may still stop others on their hosts, lowest id first."""
        return [self[ident] for ident in sorted(self._preempting)]

    def dependent(self) -> list[FleetJob]:
        """Return the jobs that wait for others to end, lowest id first."""
        return [self[ident] for ident in sorted(self._after)]

    def array(self, first: int) -> list[FleetJob]:
        """Return the jobs of an array, lowest id first; none of what is no array."""
        return [self[ident] for ident in sorted(self._arrays.get(first, ()))]

    def array_held(self, first: int) -> int:
        """Return how many jobs of an array with a limit were given to hosts and are not over."""
        return self._held[first]

    def _enter(self, job: FleetJob) -> None:
        if len(job.members) > 1 and not job.go and job.ending is None:
            self._unready.add(job.id)
        if job.after:
            self._after.add(job.id)
        if budget_names(job.spec, self._rules):
            self._counted.add(job.id)
        if any(_may_stop_others(member) for member in job.members):
            self._preempting.add(job.id)
        if job.array is not None and job.id not in (others := self._arrays.get(job.array.id, frozenset())):
            self._arrays[job.array.id] = others | {job.id}
        if (array := held_of(job)) is not None:
            self._held[array] += 1
        for member in job.members:
            self._on[member.host] = self._on.get(member.host, frozenset()) | {job.id}

    def _forget(self, old: FleetJob) -> None:
        for member in old.members:
            left = self._on[member.host] - {old.id}
            if left:
                self._on[member.host] = left
            else:
                del self._on[member.host]
        if old.state is FleetJobState.PENDING:
            del self._queue[bisect_left(self._queue, turn(old, self._rules))]
        if since := _waits_since(old):
            del self._waiting[bisect_left(self._waiting, since)]
        self._kinds.pop(old.id, None)
        self._unready.discard(old.id)
        self._after.discard(old.id)
        self._counted.discard(old.id)
        self._preempting.discard(old.id)
        if (array := held_of(old)) is not None:
            self._held[array] -= 1
            if not self._held[array]:
                del self._held[array]


def jobs_on(jobs: Mapping[FleetJobId, FleetJob], host: str) -> list[FleetJob]:
    """Return what `FleetJobs.on` does, of any mapping."""
    if isinstance(jobs, FleetJobs):
        return jobs.on(host)
    return [job for _, job in sorted(jobs.items()) if job.on(host) is not None]


def _kind(job: FleetJob) -> int | None:
    spec = job.spec
    if job.state is not FleetJobState.PENDING or job.not_before or job.ready_at is None:
        return None
    if job.target or job.fence or _is_limited(job) or spec.wait_before_preempt_seconds:
        return None
    return alike(spec, job.preemptions, job.request.hosts, job.request.select, job.request.gpu_model)


def _may_stop_others(member: Member) -> bool:
    """Say whether an assignment names victims, and has not begun yet as far as is known."""
    begins = member.report is None or member.report.state in ("pending", "starting")
    return bool(member.place.victims) and begins and not member.lost


def _is_limited(job: FleetJob) -> bool:
    return job.array is not None and job.array.limit is not None


def held_of(job: FleetJob) -> int | None:
    """Return the array whose limit a job counts against; None: none's."""
    if job.array is None or not _is_limited(job) or not job.members or job.state in ENDED:
        return None
    return job.array.id


def _waits_since(job: FleetJob) -> tuple[float, FleetJobId] | None:
    if job.state is not FleetJobState.PENDING or job.ready_at is None or not job.spec.request.gpus:
        return None
    return (job.ready_at, job.id)
