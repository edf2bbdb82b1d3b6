"""Who goes before a preemptor whose container is still being made: see `topod.lifecycle.outranked`."""

from collections.abc import Iterator
from dataclasses import dataclass

from topod.lifecycle.draft import Draft
from topod.lifecycle.fairness import standing
from topod.lifecycle.jobtable import Role, active
from topod.lifecycle.states import Job, JobState, Mark, Stage
from topod.model.job import JobId


@dataclass(frozen=True, slots=True)
class HostWithout:
    """A host as if some of its jobs were not there."""

    jobs: dict[JobId, Job]
    marks: dict[str, tuple[Mark, ...]]
    foreign_cpus: dict[str, str]


def without(draft: Draft, jobs: list[Job]) -> HostWithout:
    """Return who is on the host beside `jobs`."""
    gone = {job.id for job in jobs}
    others = {job.id: job for job in active(draft.jobs) if job.id not in gone}
    return HostWithout(others, dict(draft.marks), dict(draft.foreign_cpus))


def overtaken(draft: Draft, job: Job) -> Iterator[list[Job]]:
    """Yield more and more of the jobs `job` goes before that have stopped nobody yet, lowest first."""
    making = [
        other
        for other in draft.jobs.having(Role.ROOM)
        if other.state is JobState.STARTING
        and other.stage is Stage.CREATING
        and other.victims
        and other.spec.preemptible
        and standing(other, draft.now, draft.rules) < job.priority
    ]
    making.sort(key=lambda other: (other.priority, -other.id))
    for count in range(1, len(making) + 1):
        yield making[:count]
