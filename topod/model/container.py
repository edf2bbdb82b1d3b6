"""What a runtime says of containers: plain values shared by the core and the adapters."""

from dataclasses import dataclass
from enum import StrEnum

from topod.model.job import JobId, Signal

__all__ = ["ContainerStatus", "Exit", "Observed", "Signal"]


class ContainerStatus(StrEnum):
    """What a runtime says of one container."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One container (or process group) of this topod that a runtime knows of."""

    job: JobId
    attempt: int
    handle: str
    status: ContainerStatus
    exit_code: int | None = None
    """None while running, and where the exit was not seen. 128+n after signal n."""
    out_of_memory: bool = False
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A container ended."""

    job: JobId
    attempt: int
    handle: str
    exit_code: int | None
    out_of_memory: bool = False
    """False also where that is not looked at: the job succeeded, or was told to stop."""
    started_at: float | None = None
    """When the life that ended had begun; None where the runtime does not tell."""
