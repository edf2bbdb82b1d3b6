"""The jobs of a host with what each step asks for among thousands of them: who waits in which order, who not.

Kept up to date at every change, so that an event that touches one job does not look at all the others.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

from topod.lifecycle.fairness import effective_priority
from topod.lifecycle.states import ENDED, HOLDING, Job, JobState, Stage, StopPhase
from topod.model.alike import alike
from topod.model.job import JobId
from topod.model.rules import Rules


class Turn(NamedTuple):
    """The place of a pending job in the queue; the lowest goes first."""

    urgency: int
    """The negative effective priority."""
    not_first: bool
    """False for a victim whose preemptor gave up: it goes before its equals."""
    submitted_at: float
    job: JobId


def turn(job: Job, rules: Rules) -> Turn:
    """Return the job's place: effective priority, victims whose preemptor gave up, submit time, id."""
    return Turn(-effective_priority(job, rules), not job.restart_first, job.submitted_at, job.id)


class Role(Enum):
    """What a few jobs of thousands are in, and others ask for again and again."""

    ROOM = auto()
    """Holds GPUs or pinned CPUs, or has some reserved."""
    VICTIM = auto()
    """Stopped for another job: waits until that one runs, or gives up."""
    PROMISED = auto()
    """Starting: waits until its victims are gone, or looks whether its GPUs are free."""
    STUCK = auto()
    """Survives SIGKILL."""


class JobTable(dict[JobId, Job]):
    """Jobs by id. Changed by `table[id] = job`, `del table[id]` and `retell` only."""

    def __init__(self, jobs: Mapping[JobId, Job], rules: Rules) -> None:
        """Copy `jobs`; quickly, where they are a table made under the same rules."""
        super().__init__(jobs)
        self._rules: Final = rules
        self.behind = False
        """Whether some pending jobs still say an earlier reason; the next step tells more of them."""
        self._active: dict[JobId, Job]
        self._queue: list[Turn]
        self._after: set[JobId]
        self._blocked: list[tuple[float, JobId]]
        self._kinds: dict[JobId, int]
        self._roles: dict[Role, set[JobId]]
        if isinstance(jobs, JobTable) and jobs._rules == rules:
            self._active, self._queue = jobs._active.copy(), jobs._queue.copy()
            self._after, self._blocked = jobs._after.copy(), jobs._blocked.copy()
            self._kinds = jobs._kinds.copy()
            self._roles = {role: held.copy() for role, held in jobs._roles.items()}
        else:
            self._active = {job.id: job for job in self.values() if not _only_waits(job)}
            self._queue = sorted(turn(job, rules) for job in self.values() if job.state is JobState.PENDING)
            self._blocked = sorted(since for job in self.values() if (since := _blocked_since(job)))
            self._after = {job.id for job in self.values() if job.after and job.state not in ENDED}
            self._kinds = {job.id: kind for job in self.values() if (kind := _kind(job)) is not None}
            self._roles = {role: set() for role in Role}
            for job in self.values():
                self._enlist(job)

    def __setitem__(self, ident: JobId, job: Job) -> None:
        old = self.get(ident)
        if old is not None:
            self._forget(old)
        super().__setitem__(ident, job)
        if not _only_waits(job):
            self._active[ident] = job
        if job.state is JobState.PENDING:
            insort(self._queue, turn(job, self._rules))
        if job.after and job.state not in ENDED:
            self._after.add(ident)
        if since := _blocked_since(job):
            insort(self._blocked, since)
        if (kind := _kind(job)) is not None:
            self._kinds[ident] = kind
        self._enlist(job)

    def __delitem__(self, ident: JobId) -> None:
        self._forget(self[ident])
        super().__delitem__(ident)

    def retell(self, job: Job) -> None:
        """Replace a job by one that differs in its reason only."""
        super().__setitem__(job.id, job)
        if job.id in self._active:
            self._active[job.id] = job

    def active(self) -> list[Job]:
        """Return the jobs that do more than wait in the queue, lowest id first.

        They hold, reserve or leave behind something, or wait for a moment to come.
        """
        return [self._active[ident] for ident in sorted(self._active)]

    def having(self, role: Role) -> list[Job]:
        """Return the jobs in a role, lowest id first."""
        return [self[ident] for ident in sorted(self._roles[role])]

    def first(self) -> Job | None:
        """Return the pending job that goes first, or None."""
        return self[self._queue[0].job] if self._queue else None

    def waiting(self) -> list[tuple[Job, int | None]]:
        """Return the pending jobs in the order of the queue, each with its kind.

        That is a number which jobs share that a pass over the queue answers alike; None for a job with
        affairs of its own: a back-off, a dependency, a place it is bound to, an order of the fleet's.
        """
        kinds = self._kinds
        return [(self[ident], kinds.get(ident)) for _, _, _, ident in self._queue]

    def dependent(self) -> list[Job]:
        """Return the jobs that wait for others to end, lowest id first."""
        return [self[ident] for ident in sorted(self._after)]

    def blocked(self) -> Iterator[Job]:
        """Yield the jobs that wait for GPUs and for nothing else, who waits longest first."""
        return (self[ident] for _, ident in self._blocked)

    def _enlist(self, job: Job) -> None:
        for role in _roles(job):
            self._roles[role].add(job.id)

    def _forget(self, old: Job) -> None:
        for role in _roles(old):
            self._roles[role].discard(old.id)
        self._active.pop(old.id, None)
        self._after.discard(old.id)
        self._kinds.pop(old.id, None)
        if old.state is JobState.PENDING:
            del self._queue[bisect_left(self._queue, turn(old, self._rules))]
        if since := _blocked_since(old):
            del self._blocked[bisect_left(self._blocked, since)]


def _roles(job: Job) -> Iterator[Role]:
    held = job.allocation if job.state in HOLDING else None
    if job.pinned_reserved or (held is not None and (held.gpus or held.cpus)):
        yield Role.ROOM
    if job.state is JobState.PREEMPTED:
        yield Role.VICTIM
    elif job.state is JobState.STARTING and job.stage in (Stage.CLEARING, Stage.CHECKING):
        yield Role.PROMISED
    if job.stop is not None and job.stop.phase is StopPhase.STUCK:
        yield Role.STUCK


def _only_waits(job: Job) -> bool:
    return (
        job.state is JobState.PENDING
        and not job.pinned_reserved
        and not job.leftovers
        and job.not_before == 0.0
        and not job.spec.wait_before_preempt_seconds
    )


def _kind(job: Job) -> int | None:
    if job.state is not JobState.PENDING or not job.image_ready or job.not_before or job.ready_at is None:
        return None
    spec = job.spec
    if job.after or job.array is not None or job.pinned is not None or spec.wait_before_preempt_seconds:
        return None
    if job.assignment is not None:
        return None
    return alike(spec, job.preemptions)


def _blocked_since(job: Job) -> tuple[float, JobId] | None:
    """Return since when a job waits for GPUs and for nothing else; None where that is not so."""
    if job.state is not JobState.PENDING or job.ready_at is None or not job.spec.request.gpus:
        return None
    if not job.image_ready or job.after or job.pinned is not None or job.assignment is not None:
        return None
    return (job.ready_at, job.id)


def active(jobs: Mapping[JobId, Job]) -> list[Job]:
    """Return what `JobTable.active` does, of any mapping."""
    if isinstance(jobs, JobTable):
        return jobs.active()
    return [job for _, job in sorted(jobs.items()) if not _only_waits(job)]


def having(jobs: Mapping[JobId, Job], role: Role) -> list[Job]:
    """Return what `JobTable.having` does, of any mapping."""
    if isinstance(jobs, JobTable):
        return jobs.having(role)
    return [job for _, job in sorted(jobs.items()) if role in _roles(job)]


def blocked(jobs: Mapping[JobId, Job]) -> Iterator[Job]:
    """Return what `JobTable.blocked` does, of any mapping."""
    if isinstance(jobs, JobTable):
        return jobs.blocked()
    since = sorted(since for job in jobs.values() if (since := _blocked_since(job)))
    return (jobs[ident] for _, ident in since)
