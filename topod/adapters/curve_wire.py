"""The ROUTER socket of a coordinator's port, read and written straight from the event loop.

A future for each message, as `zmq.asyncio` has it, costs more than the message: a thousand hosts that only
say that they are there would take a tenth of a core.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import zmq

AT_ONCE: Final = 64
"""Messages that are taken before the rest of the program has its turn: a peer may never stop talking."""

log = logging.getLogger(__name__)


class RouterWire:
    """Used from the event loop only."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", take: Callable[[list[zmq.Frame]], None]
    ) -> None:
        """`take` gets each message that comes, after `start`; what it raises goes to the log."""
        self.socket: Final[zmq.Socket[Any]] = zmq.Socket(context, zmq.ROUTER)
        self._take = take
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = False
        """Whether `_read` will be called."""

    def start(self) -> None:
        """Begin to read."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.socket, self._read)
        self._soon()

    def stop(self) -> None:
        """Read no more, and close."""
        if self._loop is not None:
            self._loop.remove_reader(self.socket)
            self._loop = None
        self.socket.close()

    def send(self, frames: list[bytes], *, copy: bool) -> "zmq.MessageTracker | None":
        """Give a message to libzmq; with `copy` false its tracker tells when it was sent. Never waits.

        Raises `zmq.ZMQError`: `EHOSTUNREACH` where nobody has that name, `EAGAIN` where its queue is full.
        """
        try:
            tracker: zmq.MessageTracker | None = self.socket.send_multipart(
                frames, zmq.NOBLOCK, copy=copy, track=not copy
            )
            return tracker
        finally:
            # Sending takes in what libzmq's threads had to say; of messages among it nobody else would tell.
            self._soon()

    def _soon(self) -> None:
        if not self._due and self._loop is not None:
            self._due = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._due = False
        if self._loop is None:
            return
        for _ in range(AT_ONCE):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            except zmq.ZMQError as error:
                log.warning("port.unreadable", extra={"error": str(error)})
                return
            try:
                self._take(frames)
            except Exception:
                log.exception("port.failed")
        self._soon()
