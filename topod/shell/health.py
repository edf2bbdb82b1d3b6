"""What is wrong with the daemon's surroundings just now, in words, for whoever asks."""

import logging
from typing import NamedTuple

from topod.discovery.gpufacts import LiveFacts
from topod.shell.logs import Key

log = logging.getLogger(__name__)


class Ahead(NamedTuple):
    """By how many seconds another's clock is ahead of ours, and how many more or less that may be."""

    seconds: float
    within: float


class Health:
    """A board with one line per trouble; said in the log once when it comes and once when it goes."""

    def __init__(self) -> None:
        self._troubles: dict[str, str] = {}
        self.runtime_text = ""
        """What the runtime last said of itself."""
        self.metrics_url = ""
        """Where Prometheus is told of this process; empty: nowhere."""
        self.idle_since: dict[str, float] = {}
        """GPUs (UUIDs) that a job holds and does not use, with since when (epoch seconds)."""
        self.live: LiveFacts | None = None
        """The last reading of the GPUs."""
        self.followed_at = float("-inf")
        """When somebody last waited for changes (steady clock): then the GPUs are looked at more often."""

        self.coordinator_ahead: Ahead | None = None
        """The clock of the coordinator; None: not known, or this is no host of a fleet."""

    def trouble(self, subject: str, text: str) -> None:
        """Put a trouble on the board; `subject` (`store`, `runtime`) names it."""
        if subject not in self._troubles:
            log.warning("%s.troubled", subject, extra={Key.ERROR: text})
        self._troubles[subject] = text

    def well(self, subject: str) -> None:
        """Take the trouble off the board."""
        if self._troubles.pop(subject, None) is not None:
            log.info("%s.restored", subject)

    def tell(self, subject: str, text: str) -> None:
        """Put a trouble on the board, or with an empty text take it off."""
        if text:
            self.trouble(subject, text)
        else:
            self.well(subject)

    def has(self, subject: str) -> bool:
        """Say whether there is a trouble of that name."""
        return subject in self._troubles

    @property
    def subjects(self) -> tuple[str, ...]:
        """The names of the troubles."""
        return tuple(sorted(self._troubles))

    @property
    def notes(self) -> list[str]:
        """The troubles as sentences."""
        return [f"{subject}: {text}" for subject, text in sorted(self._troubles.items())]
