"""What lies in a mailbox: events, and who waits to hear what they led to."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from topod.errors import TopodError
from topod.shell.defects import internal

MAX_TOGETHER: Final = 256
"""Events that share one step and one transaction at most."""

E = TypeVar("E")
D = TypeVar("D")


@dataclass(slots=True, kw_only=True)
class Letter(Generic[E, D]):
    """An event; with a `reply` it is a request, with a `token` a submit that may come again."""

    event: E
    token: str = ""
    reply: "asyncio.Future[D] | None" = None

    def answer(self, decided: D) -> None:
        """Tell who asked, if somebody still waits."""
        if self.reply is not None and not self.reply.done():
            self.reply.set_result(decided)

    def fail(self, error: TopodError) -> None:
        """Tell who asked, if somebody still waits, why nothing was done."""
        if self.reply is not None and not self.reply.done():
            self.reply.set_exception(error)

    def failed(self, error: Exception, log: logging.Logger, text: str) -> None:
        """Tell who asked that it could not be handled; a defect is told in the log, and as `text`."""
        self.fail(
            error if isinstance(error, TopodError) else internal(log, "event.failed", self.event, error, text)
        )


def take(letters: deque[Letter[E, D]], alone: Callable[[E], bool] = lambda _: False) -> list[Letter[E, D]]:
    """Remove and return the first letters that can share a step; one whose event is `alone` shares none.

    A token that comes again waits for the next step: by then its job is found in the store.
    """
    taken = [letters.popleft()]
    tokens = {taken[0].token}
    while letters and len(taken) < MAX_TOGETHER and not alone(taken[0].event):
        if alone(letters[0].event) or (letters[0].token and letters[0].token in tokens):
            break
        tokens.add(letters[0].token)
        taken.append(letters.popleft())
    return taken
