"""Whether a job as submitted can be meant, and can ever run on this host."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from topod.errors import ConflictError, TopodError, UsageError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.admission import admit
from topod.lifecycle.states import ENDED, Job
from topod.model.image import is_reference
from topod.model.job import JobSpec
from topod.model.rules import Rules

AnyJob = TypeVar("AnyJob")
PRIORITY_MAX: Final = 1_000_000_000
NO_IMAGE: Final = "none"
"""Stands for the image in a plan for a job of which only the room that it needs is known."""
MOST_REASONS: Final = 3
"""So many are told where nothing can be done with any of several jobs."""


class CannotRunError(TopodError):
    """The job can never run on this host."""

    code = "cannot-run"


def check_priority(priority: int) -> None:
    """Raise `UsageError` for a priority that nobody can mean."""
    if abs(priority) > PRIORITY_MAX:
        raise UsageError(f"priority {priority} is beyond {PRIORITY_MAX}")


def check_image(spec: JobSpec) -> None:
    """Raise `UsageError` for an image whose name cannot be one."""
    if spec.image is not None and not is_reference(spec.image):
        raise UsageError(f"not the name of an image: {spec.image[:200]!r}")


def asks_for_room(spec: JobSpec) -> bool:
    """Whether nothing is to run: `topoctl plan` asks what a job of this size would get."""
    return not spec.command and spec.image in (None, NO_IMAGE)


def check_spec(spec: JobSpec, tables: TopologyTables, rules: Rules, runtime: str) -> None:
    """Raise `UsageError` or `CannotRunError` for a job that can never run; `runtime` is a name."""
    check_priority(spec.request.priority)
    check_runs(spec, runtime)
    reason = admit(tables, spec, rules)
    if reason is not None:
        raise CannotRunError(f"{tables.topology.name} can never run this job: {reason}")


def check_runs(spec: JobSpec, runtime: str) -> None:
    """Raise `UsageError` or `CannotRunError` for a job whose command or image is none for this runtime."""
    if not spec.command and spec.image is None:
        raise UsageError("nothing to run: give a command, an image, or both")
    check_image(spec)
    if spec.image is None and runtime != "process":
        raise CannotRunError("the job names no image, and this host runs jobs in containers")
    if not spec.command and runtime == "process":
        raise CannotRunError("the job names no command, and this host runs jobs without containers")


def possible(
    jobs: Sequence[AnyJob], why_not: Callable[[AnyJob], str | None]
) -> tuple[list[AnyJob], list[str]]:
    """Return the jobs with which something can be done, and of the others why not.

    Raises `ConflictError` where there are only others: a list of jobs is old when it is used, not wrong.
    """
    reasons = [why_not(job) for job in jobs]
    refused = [reason for reason in reasons if reason is not None]
    if refused and len(refused) == len(jobs):
        rest = len(refused) - MOST_REASONS
        raise ConflictError(
            "; ".join(refused[:MOST_REASONS]) + (f"; {rest} more such jobs" if rest > 0 else "")
        )
    return [job for job, reason in zip(jobs, reasons, strict=True) if reason is None], refused


def ended(job: Job) -> str | None:
    """Return how a job ended, in words; None if it has not."""
    return f"{job.label} has ended: {job.state.value}" if job.state in ENDED else None
