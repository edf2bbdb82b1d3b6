"""Whether a job as submitted can be meant, and can ever run on this host."""

from typing import Final

from topod.errors import TopodError, UsageError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.admission import admit
from topod.model.image import is_reference
from topod.model.job import JobSpec
from topod.model.rules import Rules

PRIORITY_MAX: Final = 1_000_000_000


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


def check_spec(spec: JobSpec, tables: TopologyTables, rules: Rules, runtime: str) -> None:
    """Raise `UsageError` or `CannotRunError` for a job that can never run; `runtime` is a name."""
    check_priority(spec.request.priority)
    if not spec.command and spec.image is None:
        raise UsageError("nothing to run: give a command, an image, or both")
    check_image(spec)
    if spec.image is None and runtime != "process":
        raise CannotRunError("the job names no image, and this host runs jobs in containers")
    if not spec.command and runtime == "process":
        raise CannotRunError("the job names no command, and this host runs jobs without containers")
    reason = admit(tables, spec, rules)
    if reason is not None:
        raise CannotRunError(f"{tables.topology.name} can never run this job: {reason}")
