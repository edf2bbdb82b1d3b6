"""Requests that wait for something to happen: not for ever, and not too many at the same time."""

from collections.abc import Callable
from typing import Final

from topod.daemon.mailbox import Mailbox
from topod.lifecycle.states import HostState

WAITERS_MAX: Final = 512
"""Requests that may wait at the same time; one more is answered at once."""
WAIT_SECONDS_MAX: Final = 60.0


class Patience:
    """Lets requests wait for the state. Used from the event loop only."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._waiting = 0

    def bounded(self, seconds: float) -> float:
        """Return for how long a request that asks for so much may wait now."""
        return max(0.0, min(seconds, WAIT_SECONDS_MAX)) if self._waiting < WAITERS_MAX else 0.0

    async def until(self, done: Callable[[HostState], bool], seconds: float) -> None:
        """Return when `done` holds of the state, at the latest after that many seconds, or fewer."""
        bounded = self.bounded(seconds)
        self._waiting += 1
        try:
            await self._mailbox.until(done, bounded)
        finally:
            self._waiting -= 1
