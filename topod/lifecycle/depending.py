"""Jobs that wait for others (`after`), and arrays: many jobs of one submit.

A dependency on the first job of an array means all its members, unless `index` says that only that one is
meant. A job is told of the end of another in the step in which it happens, so none can be missed.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from topod.lifecycle import events as ev
from topod.lifecycle.draft import Draft
from topod.lifecycle.states import ENDED, HOLDING, ArrayPlace, Job, JobState, StopCause
from topod.lifecycle.stopping import begin_stop
from topod.model.job import AfterCondition, Dependency, JobId, JobSpec

ARRAY_VARIABLES: Final = ("TOPOD_ARRAY_ID", "TOPOD_ARRAY_INDEX", "TOPOD_ARRAY_COUNT")
_WANTED: Final = {
    AfterCondition.OK: "succeed",
    AfterCondition.ANY: "end",
    AfterCondition.FAILED: "fail",
}
_ONLY: Final = {
    AfterCondition.OK: "only after its success",
    AfterCondition.ANY: "only after its end",
    AfterCondition.FAILED: "only after its failure",
}


def members(event: ev.Submitted, first: JobId) -> Iterator[tuple[JobSpec, ArrayPlace | None]]:
    """Yield what each job of a submit is to run and its place in the array; `first` is the first one's id."""
    if event.array is None:
        yield event.spec, None
        return
    count = len(event.array.indices)
    for index in event.array.indices:
        values = dict(zip(ARRAY_VARIABLES, (str(first), str(index), str(count)), strict=True))
        place = ArrayPlace(id=first, index=index, limit=event.array.limit, count=count)
        yield replace(event.spec, env={**event.spec.env, **values}), place


def met(condition: AfterCondition, state: JobState) -> bool:
    """Say whether a job that ended so is what somebody waited for."""
    match condition:
        case AfterCondition.OK:
            return state is JobState.SUCCEEDED
        case AfterCondition.ANY:
            return True
        case AfterCondition.FAILED:
            return state is not JobState.SUCCEEDED


def impossible(draft: Draft, event: ev.Submitted) -> str | None:
    """Return why what a new job waits for can never be met, or None."""
    ended: dict[JobId, list[JobState]] = {}
    for ident, state in event.settled:
        ended.setdefault(ident, []).append(state)
    groups = _groups(draft) if event.spec.after else {}
    for wanted in event.spec.after:
        states = ended.get(wanted.job, [])
        bad = next((state for state in states if not met(wanted.condition, state)), None)
        if bad is not None:
            return never(f"job {wanted.job} {bad.value}", wanted)
        if not states and not _parents(draft, groups, wanted):
            return never(f"job {wanted.job} is not known any more", wanted)
    return None


def settle_dependencies(draft: Draft) -> None:
    """Tell the jobs that wait for others which of those have ended.

    In the order of ids, so that the end of a chain follows in the same step: who waits is always younger.
    """
    if not draft.tell_dependents:
        return
    waiting = draft.jobs.dependent()
    groups = _groups(draft) if waiting else {}
    for job in waiting:
        kept, bad = [], None
        for wanted in job.after:
            parents = [draft.jobs[ident] for ident in _parents(draft, groups, wanted)]
            if any(parent.state not in ENDED for parent in parents):
                kept.append(wanted)
            failed = [p for p in parents if p.state in ENDED and not met(wanted.condition, p.state)]
            if failed:
                bad = never(f"{failed[0].label} {failed[0].state.value}", wanted)
        if bad is not None:
            begin_stop(draft, draft.put(replace(job, after=())), StopCause.CANCEL, bad)
        elif len(kept) < len(job.after):
            draft.put(replace(job, after=tuple(kept)))
    draft.tell_dependents = False


def waits_for(draft: Draft, job: Job) -> str:
    """Say what a job with open dependencies waits for: `waits for job 12 (train) to succeed`."""
    wanted, *more = job.after
    parent = draft.get(wanted.job)
    if parent is None:  # the first of an array of which others have not ended
        name = f"array {wanted.job}"
    elif wanted.index is None and parent.array is not None and parent.array.id == parent.id:
        name = f"array {wanted.job} ({parent.spec.name})"
    else:
        name = parent.label
    rest = f" and {len(more)} more job{'' if len(more) == 1 else 's'}" if more else ""
    return f"waits for {name} to {_WANTED[wanted.condition]}{rest}"


def array_counts(draft: Draft) -> "Counter[JobId]":
    """Return how many jobs of each array that has a limit hold an allocation, or one reserved for a move."""
    return Counter(
        job.array.id
        for job in draft.active()
        if job.array is not None
        and job.array.limit is not None
        and (job.state in HOLDING or job.pinned_reserved)
    )


def array_is_full(job: Job, counts: "Counter[JobId]") -> str | None:
    """Return why a member of an array may not start now, or None."""
    place = job.array
    if place is None or place.limit is None or job.pinned_reserved or counts[place.id] < place.limit:
        return None
    return f"{place.limit} of array {place.id} run, which is its limit"


def _groups(draft: Draft) -> dict[JobId, list[JobId]]:
    """Return the members of each array that the draft still has."""
    groups: dict[JobId, list[JobId]] = {}
    for job in draft.jobs.values():
        if job.array is not None:
            groups.setdefault(job.array.id, []).append(job.id)
    return groups


def _parents(draft: Draft, groups: dict[JobId, list[JobId]], wanted: Dependency) -> list[JobId]:
    if wanted.index is None and wanted.job in groups:
        return groups[wanted.job]
    return [wanted.job] if wanted.job in draft.jobs else []


def never(what: str, wanted: Dependency) -> str:
    """Say why a dependency can never be met; `what` became of the job that was waited for."""
    return f"{what}, and this job was to run {_ONLY[wanted.condition]}"
