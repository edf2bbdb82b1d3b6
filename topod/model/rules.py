"""The rules of a site that bind every decision: quotas, disruption budgets, protection from starvation.

They come from the configuration file and are an argument of the core, as the topology is.
"""

from dataclasses import dataclass
from enum import StrEnum

EACH = "*"
"""As the value of a quota or budget: every user, or every value of the label, has one of its own."""


class Scope(StrEnum):
    """What a quota counts over."""

    USER = "user"
    LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """At most `gpus` GPUs are held at a time by the jobs of one user, or with one value of a label."""

    scope: Scope
    value: str = EACH
    key: str = ""
    """The label; empty for users."""
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DisruptionBudget:
    """Of the running jobs with this label, preemption leaves at least `min_running`."""

    label: str
    value: str = EACH
    min_running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All rules of one host. Times in seconds. The defaults limit nobody and bound starvation mildly."""

    quotas: tuple[Quota, ...] = ()
    budgets: tuple[DisruptionBudget, ...] = ()
    preemption_cap: int = 3
    """Beyond so many preemptions a job's effective priority rises ..."""
    preemption_boost: int = 100
    """... by so much for each further one ..."""
    preemption_ceiling: int = 999
    """... to at most this; it never lowers a job."""
    hold_after_seconds: float = 3600.0
    """A job blocked for so long gets a hold on its target GPUs, one at first; 0: never."""
    hold_step_seconds: float = 600.0
    """One GPU more is held each time so long has passed, until all its target is."""
    hold_below: int = 1000
    """Jobs of this priority or more may take held GPUs all the same."""

    def effective(self, priority: int, preemptions: int) -> int:
        """Return what a priority counts for, in the queue and as protection, after so many preemptions."""
        beyond = preemptions - self.preemption_cap
        if beyond <= 0:
            return priority
        return max(priority, min(self.preemption_ceiling, priority + self.preemption_boost * beyond))


NO_RULES = Rules()
