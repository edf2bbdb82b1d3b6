"""How long a coordinator waits for what. Times in seconds."""

from dataclasses import dataclass
from typing import Final

from topod.model.job import JobSpec

KILL_SECONDS: Final = 30.0
"""What a host allows for SIGKILL to take effect."""
DRIFT: Final = 1.1
"""Two clocks agree on a span of time within a tenth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The settings of one coordinator. What hosts are told (`lease_seconds`) must be what is counted here."""

    lease_seconds: float = 60.0
    silent_after_seconds: float = 15.0
    """A host that was not heard of for so long gets no new work."""
    refused_seconds: float = 2.0
    """A host that gave a job back twice in a row is not asked for it for so long; doubled each time ..."""
    refused_limit_seconds: float = 300.0
    """... to at most this."""

    ready_seconds: float = 900.0
    """A job over several hosts is taken back where not all are ready so long after it was placed."""

    def refused_wait(self, times: int) -> float:
        """Return for how long not to ask a host again that refused a job so often.

        Not at all after the first time: the report that refuses shows why, and one can plan on that.
        """
        if times <= 1:
            return 0.0
        return min(self.refused_limit_seconds, self.refused_seconds * (1 << min(times - 2, 10)))

    def certainly_stopped(self, heard_at: float, spec: JobSpec) -> float:
        """Return from when on a cut-off host has surely stopped a job.

        `heard_at` is when its last report came: its lease counts from when it sent that one, which was
        earlier.
        """
        hook = spec.checkpoint.timeout_seconds if spec.checkpoint else 0.0
        return heard_at + DRIFT * (self.lease_seconds + hook + spec.grace_seconds + KILL_SECONDS)


DEFAULT_TERMS: Final = Terms()
