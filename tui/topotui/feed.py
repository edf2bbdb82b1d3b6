"""The line to a topod: asks in a thread what has changed, again and again, also when topod was away."""

import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from topod.errors import TopodError
from topod.protocol.client import Client
from topod.protocol.codec import ProtocolError
from topod.protocol.replies import Changes, FleetChanges
from topod.protocol.requests import Follow

WAIT_SECONDS: Final = 3.0
PATIENCE_SECONDS: Final = 3.0
"""Together: after so long without a word topod is taken to be away."""
RETRY_SECONDS: Final = 0.5
APART_SECONDS: Final = 0.4
"""From an answer to the next question: what happens meanwhile shares one answer, and is drawn once."""


C = TypeVar("C", Changes, FleetChanges)


class Feed(Generic[C]):
    """Tells `on_changes` every answer and `on_away` why there is none, from a thread of its own."""

    def __init__(
        self,
        answer: type[C],
        connect: Callable[[], Client],
        cursor: Callable[[], tuple[str, int, int]],
        *,
        on_changes: Callable[[C], None],
        on_away: Callable[[str], None],
    ) -> None:
        """`answer` is what comes: of a host or of a fleet.

        `cursor` says what is known: life, number and last event of the picture; see `Follow`.
        """
        self._answer: type[C] = answer
        self._connect = connect
        self._cursor = cursor
        self._on_changes: Callable[[C], None] = on_changes
        self._on_away = on_away
        self._ended = threading.Event()
        # A daemon thread: a question that waits for its answer holds up nobody who leaves.
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Tell nothing more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with self._connect() as client:
                    while not self._ended.is_set():
                        self._ask(client)
                        self._ended.wait(APART_SECONDS)
            except TopodError as error:
                self._tell(self._on_away, error.message)
                self._ended.wait(RETRY_SECONDS)

    def _ask(self, client: Client) -> None:
        life, number, event = self._cursor()
        request = Follow(life=life, since=number, event=event, seconds=WAIT_SECONDS)
        reply = client.ask(request, WAIT_SECONDS + PATIENCE_SECONDS)
        if not isinstance(reply, self._answer):
            raise ProtocolError(f"topod answered with {type(reply).__name__}, not {self._answer.__name__}")
        self._tell(self._on_changes, reply)

    def _tell(self, whom: Callable[..., None], what: object) -> None:
        if not self._ended.is_set():
            whom(what)
