"""What the daemon adds to a submit of an array, or of a job that waits for others.

The core knows the jobs that have not been put to rest; how the others ended is looked up in the store.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

from topod.daemon.storage import Store
from topod.errors import ConflictError, NotFoundError, UsageError
from topod.lifecycle.depending import met, never
from topod.lifecycle.events import ArrayPlan, Event, Submitted
from topod.lifecycle.states import ENDED, HostState, Job, JobState
from topod.model.job import Dependency, JobId, JobSpec
from topod.protocol.jobextras import AFTER_MAX, ARRAY_MAX, INDEX_MAX


def with_settled(store: Store, base: HostState, events: Sequence[Event]) -> list[Event]:
    """Return the events, each submit with how the jobs that it waits for ended, of those put to rest."""
    return [
        replace(event, settled=tuple(_settled(store, base, event)))
        if isinstance(event, Submitted) and event.spec.after
        else event
        for event in events
    ]


def _settled(store: Store, base: HostState, event: Submitted) -> Iterator[tuple[JobId, JobState]]:
    for wanted in event.spec.after:
        parent = base.jobs.get(wanted.job) or store.job(wanted.job)
        if parent is None:
            continue
        for ident in array_ids(parent) if wanted.index is None else [parent.id]:
            if ident in base.jobs:
                continue
            ended = parent if ident == parent.id else store.job(ident)
            if ended is not None and ended.state in ENDED:
                yield wanted.job, ended.state


def array_ids(job: Job) -> range:
    """Return the ids of the array that the job is the first of; of any other job only its own."""
    whole = job.array is not None and job.array.id == job.id
    return range(job.id, job.id + (job.array.count if whole and job.array is not None else 1))


async def resolved(spec: JobSpec, find: Callable[[int], Awaitable[Job]]) -> JobSpec:
    """Return the job with every `12[3]` that it waits for turned into that job's own number.

    Raises `NotFoundError` for a job or a member that is not there, `UsageError` for one named twice.
    """
    if not spec.after:
        return spec
    if len(spec.after) > AFTER_MAX:
        raise UsageError(f"the job waits for {len(spec.after)} jobs; {AFTER_MAX} are allowed")
    found: list[Dependency] = []
    for wanted in spec.after:
        one = wanted if wanted.index is None else await _member(wanted, wanted.index, find)
        await find(one.job)
        if any(other.job == one.job for other in found):
            raise UsageError(f"the job waits for job {one.job} twice")
        found.append(one)
    return replace(spec, after=tuple(found))


async def never_met(spec: JobSpec, find: Callable[[int], Awaitable[Job]]) -> str | None:
    """Return why what a job of `resolved` waits for can never be met, or None."""
    for wanted in spec.after:
        parent = await find(wanted.job)
        for ident in array_ids(parent) if wanted.index is None else [parent.id]:
            job = parent if ident == parent.id else await find(ident)
            if job.state in ENDED and not met(wanted.condition, job.state):
                return never(f"{job.label} {job.state.value}", wanted)
    return None


async def refuse_unmet(
    spec: JobSpec, token: str, find: Callable[[int], Awaitable[Job]], store: Store
) -> None:
    """Raise `ConflictError` for what would never run for what it waits for.

    Not for the second try, with the same token, of what was taken.
    """
    refused = await never_met(spec, find)
    if refused is None:
        return
    if not await asyncio.to_thread(store.submitted, [token] if token else []):
        raise ConflictError(f"the job would never run: {refused}", hint="--after any:ID waits for any end")


async def _member(wanted: Dependency, index: int, find: Callable[[int], Awaitable[Job]]) -> Dependency:
    first = await find(wanted.job)
    for ident in array_ids(first):
        job = await find(ident)
        if job.array is not None and job.array.index == index and job.array.id == first.id:
            # The first one's number would mean the whole array.
            return replace(wanted, job=job.id, index=index if job.id == first.id else None)
    raise NotFoundError(f"no job {first.id}[{index}]", hint=f"topoctl show {first.id}")


def check_array(plan: ArrayPlan | None) -> None:
    """Raise `UsageError` for an array that cannot be meant."""
    if plan is None:
        return
    many = len(plan.indices)
    if not 0 < many <= ARRAY_MAX:
        raise UsageError(f"an array has 1 to {ARRAY_MAX} jobs, not {many}")
    if any(after <= before for before, after in zip(plan.indices, plan.indices[1:], strict=False)):
        raise UsageError("the indices of an array go upwards, each once")
    if plan.indices[0] < 0 or plan.indices[-1] > INDEX_MAX:
        raise UsageError(f"the indices of an array are 0 to {INDEX_MAX}")
    if plan.limit is not None and plan.limit < 1:
        raise UsageError(f"at least one job of an array must be able to run, not {plan.limit}")
