"""When a burst of submits goes without a run of the queue, which takes long where thousands of jobs wait."""

from collections.abc import Mapping, Sequence
from typing import Final

from topod.lifecycle.events import Event, Submitted
from topod.lifecycle.jobtable import JobTable
from topod.lifecycle.states import Job
from topod.model.job import JobId

QUEUE_SHARE: Final = 0.2
"""Share of the time that runs of the queue may take while nothing but submits comes."""
LONG_QUEUE: Final = 500
"""With fewer jobs a run of the queue is short."""


class Pacer:
    """Puts off runs of the queue, never for longer than the last took times (1 / `QUEUE_SHARE` - 1).

    A job that is put off is durable and pending; it is looked at when the queue is run, which is owed.
    Times are seconds of the event loop's clock.
    """

    def __init__(self) -> None:
        self.owed: bool = False
        """Whether jobs came since the queue was run."""
        self.due: float = 0.0
        """From when on the queue is run again for submits, too."""

    def puts_off(self, events: Sequence[Event], jobs: Mapping[JobId, Job], now: float) -> bool:
        """Say whether the step of these events goes without a run of the queue.

        A job that goes before all that wait is never put off: it may be one that others are stopped for.
        """
        if now >= self.due or len(jobs) < LONG_QUEUE or not isinstance(jobs, JobTable):
            return False
        first = jobs.first()
        return all(
            isinstance(event, Submitted)
            and first is not None
            and event.spec.request.priority <= first.priority
            for event in events
        )

    def stepped(self, begun: float, now: float, *, queued: bool) -> None:
        """Take note of a step that is durable; `queued`: the queue was run in it."""
        self.owed = not queued
        if queued:
            self.due = now + (now - begun) * (1 / QUEUE_SHARE - 1)
