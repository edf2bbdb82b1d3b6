"""Jobs of a fleet that wait for others (`after`), and the limits of arrays.

As on a host: a job is told of the end of another in the step in which it happens, so none can be missed.
"""

from collections.abc import Callable
from dataclasses import replace

from topod.fleet.draft import Draft
from topod.fleet.members import finish
from topod.fleet.states import Ending, FleetJob, FleetJobId, FleetJobState
from topod.model import dependencies
from topod.model.arrays import is_full
from topod.model.job import Dependency


def impossible(
    draft: Draft, after: tuple[Dependency, ...], settled: tuple[tuple[int, str], ...]
) -> str | None:
    """Return why what a new job waits for can never be met, or None."""
    return dependencies.impossible(after, settled, _parents(draft)) if after else None


def settle_dependencies(draft: Draft) -> None:
    """Tell the jobs that wait for others which of those have ended.

    In the order of ids, so that the end of a chain follows in the same step: who waits is always younger.
    """
    if not draft.tell_dependents:
        return
    parents = _parents(draft)
    for job in draft.jobs.dependent():
        now = dependencies.standing(job, parents)
        if now.never is not None:
            finish(draft, job, Ending(state=FleetJobState.CANCELLED, reason=now.never))
        elif len(now.after) < len(job.after):
            draft.put(replace(job, after=now.after))
    draft.tell_dependents = False


def held_back(draft: Draft, job: FleetJob) -> str | None:
    """Return what a pending job waits for other than room: other jobs, or the limit of its array."""
    if job.after:
        return dependencies.waits_for(job, draft.get(job.after[0].job))
    return None if job.array is None else is_full(job.array, draft.jobs.array_held(job.array.id))


def _parents(draft: Draft) -> Callable[[Dependency], list[FleetJob]]:
    def parents(wanted: Dependency) -> list[FleetJob]:
        members = draft.jobs.array(wanted.job) if wanted.index is None else []
        one = draft.jobs.get(FleetJobId(wanted.job))
        return members or ([] if one is None else [one])

    return parents
