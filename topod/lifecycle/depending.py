"""Jobs of a host that wait for others (`after`), and the limits of arrays.

A job is told of the end of another in the step in which it happens, so none can be missed.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from topod.lifecycle import events as ev
from topod.lifecycle.draft import Draft
from topod.lifecycle.states import HOLDING, Job, StopCause
from topod.lifecycle.stopping import begin_stop
from topod.model import dependencies
from topod.model.arrays import is_full
from topod.model.job import Dependency, JobId


def impossible(draft: Draft, event: ev.Submitted) -> str | None:
    """Return why what a new job waits for can never be met, or None."""
    after = event.spec.after
    return dependencies.impossible(after, event.settled, _parents(draft)) if after else None


def settle_dependencies(draft: Draft) -> None:
    """Tell the jobs that wait for others which of those have ended.

    In the order of ids, so that the end of a chain follows in the same step: who waits is always younger.
    """
    if not draft.tell_dependents:
        return
    waiting = draft.jobs.dependent()
    parents = _parents(draft, needed=bool(waiting))
    for job in waiting:
        now = dependencies.standing(job, parents)
        if now.never is not None:
            begin_stop(draft, draft.put(replace(job, after=())), StopCause.CANCEL, now.never)
        elif len(now.after) < len(job.after):
            draft.put(replace(job, after=now.after))
    draft.tell_dependents = False


def waits_for(draft: Draft, job: Job) -> str:
    """Say what a job with open dependencies waits for."""
    return dependencies.waits_for(job, draft.get(job.after[0].job))


def array_counts(draft: Draft) -> "Counter[int]":
    """Return how many jobs of each array that has a limit hold an allocation, or one reserved for a move."""
    return Counter(
        job.array.id
        for job in draft.active()
        if job.array is not None
        and job.array.limit is not None
        and (job.state in HOLDING or job.pinned_reserved)
    )


def array_is_full(job: Job, counts: "Counter[int]") -> str | None:
    """Return why a member of an array may not start now, or None."""
    return None if job.array is None or job.pinned_reserved else is_full(job.array, counts[job.array.id])


def _parents(draft: Draft, *, needed: bool = True) -> Callable[[Dependency], list[Job]]:
    groups: dict[int, list[JobId]] = {}
    for job in draft.jobs.values() if needed else ():
        if job.array is not None:
            groups.setdefault(job.array.id, []).append(job.id)

    def parents(wanted: Dependency) -> list[Job]:
        if wanted.index is None and wanted.job in groups:
            return [draft.jobs[ident] for ident in groups[wanted.job]]
        return [draft.jobs[wanted.job]] if wanted.job in draft.jobs else []

    return parents
