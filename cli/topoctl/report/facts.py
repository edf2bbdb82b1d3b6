"""What a report tells of: the facts of a period, read from jobs and events. Times are epoch seconds."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From `since`, until before `until`."""

    since: float
    until: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.until - self.since

    def holds(self, at: float) -> bool:
        """Whether a moment lies in it."""
        return self.since <= at < self.until

    def overlap(self, begin: float, end: float) -> float:
        """Return how many seconds of a span lie in it."""
        return max(0.0, min(end, self.until) - max(begin, self.since))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One job on its GPUs, from its start until it was gone."""

    user: str
    priority: int
    gpus: int
    begin: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A place that was decided for a job: how close its GPUs were to be, and how close they are."""

    asked: str
    got: str

    @property
    def satisfied(self) -> bool:
        """Whether the GPUs are as close as asked for."""
        return self.asked == self.got


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """How long a job waited from its submit to its first start, or has waited so far."""

    priority: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A job that was stopped for another, with the planner's reason."""

    label: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempted:
    """One preemption. `phases` by name in seconds, those that are over; `decided_by`: why no other plan."""

    at: float
    host: str
    label: str
    victims: tuple[Stopped, ...]
    phases: Mapping[str, float]
    result: str
    decided_by: str
    work_lost: float
    """GPU-seconds that the victims do again."""


@dataclass(slots=True, kw_only=True)
class Facts:
    """All that is known of a period, of one host or of a fleet."""

    period: Period
    gpus: int = 0
    """How many there are now."""
    runs: list[Run] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)
    preemptions: list[Preempted] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    waiting: list[Wait] = field(default_factory=list)
    """Of the jobs that had not started at the end."""
    counts: Counter[str] = field(default_factory=Counter)
    """How many jobs were `submitted`, `succeeded`, `failed`, ..."""
    notes: list[str] = field(default_factory=list)
    """What the reader must know: hosts that could not be asked, history that is no longer kept."""

    @property
    def empty(self) -> bool:
        """Whether nothing happened that can be told."""
        return not (self.runs or self.placements or self.waits or self.waiting or self.counts)
