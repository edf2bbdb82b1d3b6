"""What is added to a submit of an array, or of a job that waits for others: by a host and by a coordinator.

The cores know the jobs that have not been put to rest; how the others ended is looked up in the store.
"""

import asyncio
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator
from dataclasses import replace
from typing import Any

from topod.errors import ConflictError, NotFoundError, UsageError
from topod.model.arrays import ArrayPlan, whole
from topod.model.dependencies import Related, met, never
from topod.model.job import Dependency, JobId, JobSpec
from topod.protocol.jobextras import AFTER_MAX, ARRAY_MAX, INDEX_MAX

Find = Callable[[int], Awaitable[Related]]
"""Returns a job, ended or not; raises `NotFoundError` where there never was one."""


def settled(
    after: Iterable[Dependency], alive: Container[Any], stored: Callable[[int], Related | None]
) -> Iterator[tuple[int, str]]:
    """Yield how the jobs that one waits for ended, of those put to rest: the number named, and the state.

    `alive` are the numbers of the jobs that the core knows, `stored` looks up any other. May block.
    """
    for wanted in after:
        parent = stored(wanted.job)
        if parent is None:
            continue
        for ident in whole(parent.id, parent.array) if wanted.index is None else [parent.id]:
            if ident in alive:
                continue
            ended = parent if ident == parent.id else stored(ident)
            if ended is not None and ended.has_ended:
                yield wanted.job, ended.state.value


async def resolved(spec: JobSpec, find: Find) -> JobSpec:
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


async def never_met(spec: JobSpec, find: Find) -> str | None:
    """Return why what a job of `resolved` waits for can never be met, or None."""
    for wanted in spec.after:
        parent = await find(wanted.job)
        for ident in whole(parent.id, parent.array) if wanted.index is None else [parent.id]:
            job = parent if ident == parent.id else await find(ident)
            if job.has_ended and not met(wanted.condition, job.state):
                return never(f"{job.label} {job.state.value}", wanted)
    return None


async def refuse_unmet(
    spec: JobSpec, token: str, find: Find, submitted: Callable[[list[str]], Container[str]]
) -> None:
    """Raise `ConflictError` for what would never run for what it waits for.

    Not for the second try, with the same token, of what was taken: `submitted`, which may block, tells.
    """
    refused = await never_met(spec, find)
    if refused is None:
        return
    if not token or token not in await asyncio.to_thread(submitted, [token]):
        raise ConflictError(f"the job would never run: {refused}", hint="--after any:ID waits for any end")


async def _member(wanted: Dependency, index: int, find: Find) -> Dependency:
    first = await find(wanted.job)
    for ident in whole(first.id, first.array):
        job = await find(ident)
        if job.array is not None and job.array.index == index and job.array.id == first.id:
            # The first one's number would mean the whole array.
            return replace(wanted, job=JobId(job.id), index=index if job.id == first.id else None)
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
