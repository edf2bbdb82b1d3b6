"""The connections of a coordinator's port: who is connected, how many, and how one is cut.

libzmq tells of its connections through a monitor, which names them by file descriptor, and with each message,
which names it too. This table brings both together. A descriptor is used again after its connection, so the
table may for a moment take one connection for another: it then cuts the wrong one, which connects again. It
never takes one *peer* for another: who that is comes with each message, from the handshake.
"""

import contextlib
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import zmq

from topod.adapters.authorized import Entry
from topod.adapters.curve_limits import Limits
from topod.adapters.curve_waiting import Waiting
from topod.adapters.peers import RemotePeer

FAILED: Final = {
    zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: ("no_curve", "a peer that does not speak CURVE"),
    zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: (
        "wrong_server_key",
        "a peer that knows another key for this coordinator",
    ),
}
"""Why a handshake failed, as counted and as noted. libzmq does not say whose it was."""
MALFORMED: Final = ("malformed", "a peer that does not speak ZeroMQ as libzmq does")
"""Any other breach of the protocol."""
ENDED_KEPT: Final = 8192
EVENTS: Final = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_ACCEPT_FAILED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


@dataclass(slots=True, kw_only=True, eq=False)
class Connection:
    """One peer's connection. Its name comes from the key that it proved to have, never from what it says."""

    who: RemotePeer
    key: str
    """Public, 40 characters of Z85."""
    routing: bytes
    """How the socket names the connection."""
    fd: int
    entry: Entry | None = None
    """Its line in the file of keys, as looked up last."""
    in_flight: int = 0
    """Requests that are being answered."""
    unsent: list[tuple[zmq.MessageTracker, int]] = field(default_factory=list)
    """Long messages that libzmq still holds, with their sizes in bytes."""
    _heard: tuple[int, int, int] = (0, 0, 0)
    """A second of the steady clock, and how many messages and bytes came in it so far."""

    @property
    def name(self) -> str:
        """Return the name of the host or user."""
        return self.who.name

    def floods(self, size: int, limits: Limits) -> bool:
        """Take note of a message of so many bytes; say whether the peer says more than it may."""
        second, messages, total = self._heard
        now = int(time.monotonic())
        if now != second:
            messages = total = 0
        self._heard = now, messages + 1, total + size
        return messages >= limits.messages_a_second or total + size > limits.bytes_a_second

    def unsent_bytes(self) -> int:
        """Return how much of what was sent is still in memory."""
        if not self.unsent:
            return 0
        self.unsent = [(tracker, size) for tracker, size in self.unsent if not tracker.done]
        return sum(size for _, size in self.unsent)


class Connections:
    """All connections of one port. Used from the event loop only."""

    def __init__(
        self,
        counts: Counter[str],
        port: int,
        *,
        waiting: Waiting,
        waiting_seconds: float,
        refused: Callable[[str, str], None],
    ) -> None:
        """Keep them of a port; one may say nothing for `waiting_seconds`.

        `refused` counts and notes why somebody was not let in, or cut: a reason of few words, and who.
        """
        self._counts = counts
        self._refused = refused
        self._explained = 0
        """Of how many that wait it is known already why they end, or that they were let in."""
        self._port = port
        self._waiting_seconds = waiting_seconds
        self._waiting = waiting
        self._by_fd: dict[int, Connection] = {}
        self._by_routing: dict[bytes, Connection] = {}
        self._of_key: Counter[str] = Counter()
        self._ended: dict[bytes, None] = {}
        """Names of connections that ended, the last ones: the socket gives none of them again."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._by_fd)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._by_fd.values()))

    @property
    def half_open(self) -> int:
        """How many are connected and were not let in yet."""
        return self._waiting.half_open

    def let_in(self, address: str) -> None:
        """Note that somebody at an address proved to have a key that is listed."""
        self._waiting.let_in(address)
        self._explained += 1

    def explained(self) -> None:
        """Note that somebody was told no, which is counted elsewhere."""
        self._explained += 1

    def of_key(self, key: str) -> int:
        """Return how many connections a key has."""
        return self._of_key[key]

    def get(self, routing: bytes) -> Connection | None:
        """Return the connection that the socket names so."""
        return self._by_routing.get(routing)

    def is_waiting(self, fd: int) -> bool:
        """Whether a descriptor is that of a connection from which nothing came so far."""
        return fd in self._waiting

    def has_ended(self, routing: bytes) -> bool:
        """Whether a message is of a connection that ended: its descriptor may be another one's by now."""
        return routing in self._ended

    def cut_late(self, routing: bytes, fd: int) -> None:
        """Cut who has a descriptor now: a message came on it, and not from whom the table has there.

        Either that one hung up, or the table took its connection for another one's, which is put right so.
        """
        self._counts["late"] += 1
        if routing not in self._ended:
            self._end(routing)
            self.cut(fd)

    def add(self, connection: Connection) -> None:
        """Take in a connection at its first message."""
        self._waiting.spoke(connection.fd)
        self._explained = max(0, self._explained - 1)
        self._by_fd[connection.fd] = connection
        self._by_routing[connection.routing] = connection
        self._of_key[connection.key] += 1

    def remove(self, connection: Connection) -> bool:
        """Forget a connection; False: it was gone already."""
        if self._by_routing.get(connection.routing) is not connection:
            return False
        del self._by_routing[connection.routing]
        self._end(connection.routing)
        if self._by_fd.get(connection.fd) is connection:
            del self._by_fd[connection.fd]
        self._of_key[connection.key] -= 1
        if not self._of_key[connection.key]:
            del self._of_key[connection.key]
        return True

    def _end(self, routing: bytes) -> None:
        self._ended[routing] = None
        if len(self._ended) > ENDED_KEPT:
            del self._ended[next(iter(self._ended))]

    def happened(self, frames: list[bytes], now: float) -> Connection | None:
        """Take in one event of the monitor; return the connection that it ended, if one."""
        event, value = struct.unpack("=hi", frames[0]) if len(frames[0]) == 6 else (0, 0)
        match event:
            case zmq.EVENT_ACCEPTED:
                self._counts["accepted"] += 1
                stale = self._by_fd.get(value)
                self._waiting.add(value, self._address(value), now)
                surplus = self._waiting.too_many()
                if surplus is not None:
                    self.cut_waiting(surplus, "pushed_out")
                return stale
            case zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED:
                if self.is_waiting(value):
                    self._left(value)
                return self._by_fd.get(value)
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._counts["admitted"] += 1
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                self._refused(*FAILED.get(value, MALFORMED))
                self._explained += 1
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                self._refused("unfinished", "a peer that hung up in the handshake, or took too long for it")
                self._explained += 1
            case zmq.EVENT_ACCEPT_FAILED:
                self._refused("accept_failed", f"a connection could not be accepted: {os.strerror(value)}")
            case _:
                pass
        return None

    def _left(self, fd: int) -> None:
        """Forget who left without a word. libzmq has no event for bytes that do not even begin as ZeroMQ."""
        self._waiting.remove(fd)
        if self._explained:
            self._explained = min(self._explained - 1, len(self._waiting))
        else:
            self._refused("no_word", "a peer that sent nothing, or no ZeroMQ, and was gone")

    def cut_silent(self, now: float) -> None:
        """Cut who has been connected for long without having said anything."""
        for fd in self._waiting.accepted_before(now - self._waiting_seconds):
            self.cut_waiting(fd, "silent")

    def cut_waiting(self, fd: int, reason: str) -> None:
        """Cut a connection that has not said anything yet."""
        address = self._address(fd) or "somebody"
        self._waiting.remove(fd)
        self._refused(reason, f"{address}: connected, not let in or silent since")
        self.cut(fd)

    def cut(self, fd: int) -> None:
        """Close a connection from this side; libzmq then notices that it ended.

        The descriptor is libzmq's. A copy of it is looked at before anything is done: by now it may be
        another connection of this port, which will come back, but never anything else of this process.
        """
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as copy:
            if self._is_ours(copy):
                copy.shutdown(socket.SHUT_RDWR)

    def _address(self, fd: int) -> str:
        """Return where a connection comes from; empty: it is gone already."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as copy:
            if self._is_ours(copy):
                return str(copy.getpeername()[0])
        return ""

    def _is_ours(self, copy: socket.socket) -> bool:
        return copy.family in (socket.AF_INET, socket.AF_INET6) and copy.getsockname()[1] == self._port
