"""The jobs of a simulated day. Times are seconds from its beginning."""

from dataclasses import dataclass, field
from math import floor

from topod.model.request import ResourceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class SimJob:
    """One job: what it asks for, when it comes, how long it works."""

    ident: int
    submit: float
    run: float
    """Seconds of work."""
    request: ResourceRequest
    part: str = "batch"
    """Of the workload: what reports group by."""
    preemptible: bool = True
    checkpoint: float = 0.0
    """It saves its work so often (seconds); 0: never."""
    ends: float | None = None
    """A replica that is wanted until then, running or not; None: it works for `run` seconds."""


@dataclass(slots=True, kw_only=True)
class Waiting:
    """A job in the queue."""

    job: SimJob
    left: float
    """Seconds of work that are not saved yet."""
    since: float
    """Waits since then."""
    restarts: int = 0


@dataclass(slots=True, kw_only=True)
class Run:
    """A job that holds its place on a host."""

    waiting: Waiting
    gpus: int
    """As a mask, as `cpus`."""
    cpus: int
    placed: float
    """Holds them since then."""
    begun: float
    """Works since then: later than `placed` where others had to go first."""
    over: bool = field(default=False)

    @property
    def job(self) -> SimJob:
        """What runs."""
        return self.waiting.job

    def saved(self, now: float) -> float:
        """Return how many seconds of work of this run would outlive a stop."""
        worked, every = max(0.0, now - self.begun), self.job.checkpoint
        return floor(worked / every) * every if every else 0.0

    def unsaved_since(self, now: float) -> float:
        """Return since when work would be lost."""
        return self.begun + self.saved(now)
