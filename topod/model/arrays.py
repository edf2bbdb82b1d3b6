"""Arrays: many jobs of one submit, with ids that follow each other. One host or a fleet."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from topod.model.job import JobSpec

ARRAY_VARIABLES: Final = ("TOPOD_ARRAY_ID", "TOPOD_ARRAY_INDEX", "TOPOD_ARRAY_COUNT")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayPlan:
    """The members of an array, and how many of them may hold an allocation at a time."""

    indices: tuple[int, ...]
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayPlace:
    """The place of a job in the array it was submitted with."""

    id: int
    """The first job of the array."""
    index: int
    limit: int | None = None
    """At most so many of the array hold an allocation at a time."""
    count: int = 1
    """How many members the array has; their ids follow each other."""


def members(
    spec: JobSpec, array: ArrayPlan | None, first: int
) -> Iterator[tuple[JobSpec, ArrayPlace | None]]:
    """Yield what each job of a submit is to run and its place in the array; `first` is the first one's id."""
    if array is None:
        yield spec, None
        return
    count = len(array.indices)
    for index in array.indices:
        values = dict(zip(ARRAY_VARIABLES, (str(first), str(index), str(count)), strict=True))
        place = ArrayPlace(id=first, index=index, limit=array.limit, count=count)
        yield replace(spec, env={**spec.env, **values}), place


def ident(job: int, array: ArrayPlace | None) -> str:
    """Return how the command line names a job: `17`, in an array `12[3]`."""
    return str(job) if array is None else f"{array.id}[{array.index}]"


def is_full(array: ArrayPlace | None, held: int) -> str | None:
    """Return why a member of an array of which `held` hold an allocation may not start now, or None."""
    if array is None or array.limit is None or held < array.limit:
        return None
    return f"{array.limit} of array {array.id} run, which is its limit"


def whole(job: int, array: ArrayPlace | None) -> range:
    """Return the ids of the array that a job is the first of; of any other job only its own."""
    first = array is not None and array.id == job
    return range(job, job + (array.count if first and array is not None else 1))
