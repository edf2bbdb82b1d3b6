"""Jobs that are the same to a pass over a queue: what is found for one of them holds for all."""

from collections.abc import Hashable
from functools import lru_cache
from itertools import count

from topod.model.job import JobSpec

_numbers = count()


def alike(spec: JobSpec, preemptions: int, *more: Hashable) -> int:
    """Return a number that only jobs share of which a pass sees the same; `more` is what else it looks at.

    For jobs without affairs of their own, such as a back-off or a place that is kept.
    """
    labels = tuple(sorted(spec.labels.items()))
    protection = (spec.preemptible, spec.min_runtime_seconds, preemptions)
    return _number((spec.request, spec.user, labels, *protection, *more))


@lru_cache(maxsize=1 << 16)
def _number(_alike: Hashable) -> int:
    """Return the number of a kind of jobs. A kind that was forgotten gets a new one: none is ever shared."""
    return next(_numbers)
