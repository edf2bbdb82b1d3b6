"""Jobs that wait for the end of others (`after`). One host or a fleet.

A dependency on the first job of an array means all its members, unless `index` says that only that one is
meant.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from topod.model.arrays import ArrayPlace
from topod.model.job import AfterCondition, Dependency, JobSpec

SUCCEEDED: Final = "succeeded"
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


class Related(Protocol):
    """A job, of a host or of a fleet, as far as others may wait for it."""

    @property
    def id(self) -> int:
        """Its number."""
        ...

    @property
    def label(self) -> str:
        """How sentences name it."""
        ...

    @property
    def state(self) -> StrEnum:
        """Where it is in its life; the words of ends are the same everywhere."""
        ...

    @property
    def spec(self) -> JobSpec:
        """What it runs."""
        ...

    @property
    def array(self) -> ArrayPlace | None:
        """Its place in an array."""
        ...

    @property
    def after(self) -> tuple[Dependency, ...]:
        """What it still waits for."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether it will never run again."""
        ...


Parents = Callable[[Dependency], Sequence[Related]]
"""The jobs that a dependency means, of those that are still remembered as not put to rest."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How what a job waits for stands."""

    after: tuple[Dependency, ...]
    """What it still waits for."""
    never: str | None
    """Why it can never start; None: it can."""


def met(condition: AfterCondition, state: str) -> bool:
    """Say whether a job that ended so is what somebody waited for."""
    match condition:
        case AfterCondition.OK:
            return state == SUCCEEDED
        case AfterCondition.ANY:
            return True
        case AfterCondition.FAILED:
            return state != SUCCEEDED


def impossible(
    after: Iterable[Dependency], settled: Iterable[tuple[int, str]], parents: Parents
) -> str | None:
    """Return why what a new job waits for can never be met, or None.

    `settled` are the ends of those that were put to rest, by the number that the dependency names.
    """
    ended: dict[int, list[str]] = {}
    for ident, state in settled:
        ended.setdefault(ident, []).append(state)
    for wanted in after:
        states = ended.get(wanted.job, [])
        bad = next((state for state in states if not met(wanted.condition, state)), None)
        if bad is not None:
            return never(f"job {wanted.job} {bad}", wanted)
        if not states and not parents(wanted):
            return never(f"job {wanted.job} is not known any more", wanted)
    return None


def standing(job: Related, parents: Parents) -> Standing:
    """Return how what a job waits for stands now."""
    kept, bad = [], None
    for wanted in job.after:
        found = parents(wanted)
        if any(not parent.has_ended for parent in found):
            kept.append(wanted)
        failed = [one for one in found if one.has_ended and not met(wanted.condition, one.state)]
        if failed:
            bad = never(f"{failed[0].label} {failed[0].state.value}", wanted)
    return Standing(tuple(kept), bad)


def waits_for(job: Related, parent: Related | None) -> str:
    """Say what a job with open dependencies waits for: `waits for job 12 (train) to succeed`.

    `parent` is the job that the first of them names; None: the first of an array of which others go on.
    """
    wanted, *more = job.after
    if parent is None:
        name = f"array {wanted.job}"
    elif wanted.index is None and parent.array is not None and parent.array.id == parent.id:
        name = f"array {wanted.job} ({parent.spec.name})"
    else:
        name = parent.label
    rest = f" and {len(more)} more job{'' if len(more) == 1 else 's'}" if more else ""
    return f"waits for {name} to {_WANTED[wanted.condition]}{rest}"


def never(what: str, wanted: Dependency) -> str:
    """Say why a dependency can never be met; `what` became of the job that was waited for."""
    return f"{what}, and this job was to run {_ONLY[wanted.condition]}"
