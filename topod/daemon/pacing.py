"""When a burst of submits goes without a run of the queue, which takes long where thousands of jobs wait."""

from collections.abc import Sequence
from typing import Final

from topod.lifecycle.events import Event, Submitted

QUEUE_SHARE: Final = 0.2
"""Share of the time that runs of the queue may take while nothing but submits comes."""
SHORT_SECONDS: Final = 0.005
"""A step of this length or less is nothing to save."""


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

    def puts_off(self, events: Sequence[Event], now: float) -> bool:
        """Say whether the step of these events goes without a run of the queue."""
        return now < self.due and all(isinstance(event, Submitted) for event in events)

    def stepped(self, begun: float, now: float, *, queued: bool) -> None:
        """Take note of a step that is durable; `queued`: the queue was run in it."""
        self.owed = not queued
        if queued:
            took = now - begun
            self.due = now + took * (1 / QUEUE_SHARE - 1) if took > SHORT_SECONDS else 0.0
