"""What events lead to."""

from dataclasses import dataclass, replace

from topod.lifecycle.effects import Effect, Notice
from topod.lifecycle.states import HostState, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The new state, and what to do once it is durable.

    `changed` lists every job that differs from before, also those that were put to rest and are no longer
    in `state.jobs`: exactly what a store must write. What a pending job waits for follows from the rest and
    is said anew by every step: a job that differs in that only is not listed. Without anything to write the
    generation stays the same.
    """

    state: HostState
    effects: tuple[Effect, ...] = ()
    notices: tuple[Notice, ...] = ()
    changed: tuple[Job, ...] = ()

    def timed(self, seconds: float) -> "Outcome":
        """Return the same with what it took to decide beside every decision of the story."""
        if not any(notice.name == "job.placed" for notice in self.notices):
            return self
        told = ("decide_seconds", round(seconds, 6))
        notices = (
            replace(notice, data=(*notice.data, told)) if notice.name == "job.placed" else notice
            for notice in self.notices
        )
        return replace(self, notices=tuple(notices))
