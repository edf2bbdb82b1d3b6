"""The working copy of one step: what the handlers change before it becomes an `Outcome`.

It lives only inside `step`; nobody outside ever sees a half-changed state.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from topod.flextopo.tables import TopologyTables
from topod.lifecycle.effects import Effect, Notice
from topod.lifecycle.jobtable import JobTable, Role
from topod.lifecycle.outcome import Outcome
from topod.lifecycle.states import ENDED, HOLDING, HostState, Job, Mark, MarkKind, with_reason
from topod.model.job import JobId
from topod.model.occupancy import Occupancy
from topod.model.rules import NO_RULES, Rules

RETOLD_AT_ONCE: Final = 1000
"""A job that starts or ends may change the reason of every job that waits; a step must stay short."""


class Draft:
    """A host state being changed at the moment `now` (epoch seconds)."""

    def __init__(self, tables: TopologyTables, state: HostState, now: float, rules: Rules = NO_RULES) -> None:
        self.tables = tables
        self.now = now
        self.rules = rules
        self.drain = state.drain
        self.marks: Mapping[str, tuple[Mark, ...]] = state.marks
        self.foreign_cpus: Mapping[str, str] = state.foreign_cpus
        self.blind = state.blind
        self.settled_fence = state.settled_fence
        self.next_job = state.next_job
        self.jobs = JobTable(state.jobs, rules)
        self.effects: list[Effect] = []
        self.notices: list[Notice] = []
        self._before = state
        self.taken: Occupancy | None = None
        """Who holds what, while the queue is run; None: to be looked at again."""
        self.tell_dependents = False
        """Whether a job ended, or a new one waits for others, since dependencies were looked at."""
        self._touched: set[JobId] = set()
        self._retold = 0

    @property
    def generation(self) -> int:
        """The generation of the state before this step."""
        return self._before.generation

    def get(self, job: JobId | None) -> Job | None:
        """Return a job that has not been put to rest, or None."""
        return None if job is None else self.jobs.get(job)

    def put(self, job: Job) -> Job:
        """Store a changed job."""
        self.jobs[job.id] = job
        self._touched.add(job.id)
        if job.state in ENDED:
            self.tell_dependents = True
        self.taken = None
        return job

    def retell(self, job: Job, reason: str) -> None:
        """Say anew what a pending job waits for. That is not stored: it follows from all the rest.

        At most `RETOLD_AT_ONCE` jobs are told anew in one step, the others in the next ones, soon after.
        """
        if self._retold >= RETOLD_AT_ONCE:
            self.jobs.behind = True
            return
        self.jobs.retell(with_reason(job, reason))
        self._retold += 1

    def all(self) -> Iterator[Job]:
        """Yield every job, lowest id first, as it was when the loop began."""
        yield from [self.jobs[ident] for ident in sorted(self.jobs)]

    def active(self) -> Iterator[Job]:
        """Yield what `JobTable.active` names, lowest id first, as it was when the loop began."""
        yield from self.jobs.active()

    def holding(self) -> Iterator[Job]:
        """Yield the jobs that hold GPUs or pinned CPUs."""
        return (job for job in self.jobs.having(Role.ROOM) if job.state in HOLDING)

    def do(self, effect: Effect) -> None:
        """Add something that the daemon must do once this step is durable."""
        self.effects.append(effect)

    def note(self, name: str, job: Job | None, text: str, **data: object) -> None:
        """Add one line to the host's story."""
        self.notices.append(
            Notice(name=name, job=job.id if job else None, text=text, data=tuple(data.items()))
        )

    def gpu_name(self, uuid: str) -> str:
        """Return how people call a GPU: `GPU3`."""
        index = next((gpu.index for gpu in self.tables.topology.gpus if gpu.uuid == uuid), None)
        return uuid if index is None else f"GPU{index}"

    def mark(self, uuid: str, mark: Mark) -> None:
        """Keep a GPU from being handed out; replaces a mark of the same kind."""
        others = tuple(old for old in self.marks.get(uuid, ()) if old.kind is not mark.kind)
        self.marks = {**self.marks, uuid: (*others, mark)}

    def unmark(self, uuid: str, kind: MarkKind | None = None, job: JobId | None = None) -> bool:
        """Remove the marks of one kind (None: all), only those made for `job` if given."""
        old = self.marks.get(uuid, ())
        kept = tuple(
            mark
            for mark in old
            if (kind is not None and mark.kind is not kind) or (job is not None and mark.job != job)
        )
        rest = {other: marks for other, marks in self.marks.items() if other != uuid}
        self.marks = {**rest, uuid: kept} if kept else rest
        return kept != old

    def finish(self) -> Outcome:
        """Return the outcome; jobs that ended and left nothing behind are put to rest.

        Those of the fleet only when the coordinator knows of their end for good.
        """
        touched = [self.jobs[ident] for ident in sorted(self._touched)]
        changed = tuple(job for job in touched if self._before.jobs.get(job.id) != job)
        for job in changed:
            unsettled = job.assignment is not None and not job.assignment.settled
            if job.state in ENDED and not job.leftovers and not unsettled:
                del self.jobs[job.id]
        state = self._before
        host = replace(
            state,
            next_job=self.next_job,
            marks=self.marks,
            drain=self.drain,
            foreign_cpus=self.foreign_cpus,
            blind=self.blind,
            settled_fence=self.settled_fence,
        )
        if changed or self.notices or host != state:
            state = replace(host, generation=state.generation + 1, jobs=self.jobs)
        elif self._retold:
            state = replace(self._before, jobs=self.jobs)
        return Outcome(state=state, effects=tuple(self.effects), notices=tuple(self.notices), changed=changed)
