"""What waits for the mailbox, in the order in which it came; what is in no hurry waits for company."""

import asyncio
import contextlib
from collections import deque
from typing import Final, Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Letters, bounded in number. Used from the event loop only."""

    def __init__(self, most: int) -> None:
        self.letters: Final[deque[T]] = deque()
        self._patient: Final[deque[T]] = deque()
        """They came before what is put in now, and after all of `letters`."""
        self._most = most
        self._come = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def full(self) -> bool:
        """Whether there is no room for another one."""
        return len(self.letters) + len(self._patient) >= self._most

    def put(self, letter: T, *, patience: float = 0.0) -> bool:
        """Put a letter in that can wait so long (seconds) for company; False: there is no room."""
        if self.full:
            return False
        self._patient.append(letter)
        self.expedite(patience)
        return True

    def expedite(self, patience: float) -> None:
        """Let what waits for company wait no longer than this (seconds) from now."""
        if patience <= 0:
            self._open()
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + patience
        if self._timer is None or self._timer.when() > due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(due, self._open)

    def close(self) -> list[T]:
        """Return all that is left; nobody waits for it any more."""
        self._open()
        left = list(self.letters)
        self.letters.clear()
        return left

    async def wait(self, until: float) -> None:
        """Return when there are letters to see to, or at a moment of the loop's clock."""
        if self.letters:
            return
        self._come.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._come.wait()

    def _open(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.letters.extend(self._patient)
        self._patient.clear()
        self._come.set()
