"""A coordinator's port: hosts and users over TCP, each known by the key that it proves to have.

Rule: there is no way to listen without CURVE, and none to be let in without a line in the file of authorised
keys. Who somebody is comes with each message from the handshake, never from what the message says. Everything
is bounded, and nothing here ever waits for a peer.
"""

import asyncio
import contextlib
import errno
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import zmq

from topod.adapters.authorized import AuthorizedKeys, Entry
from topod.adapters.curve_admission import KEY_PROPERTY, Admission, Notes
from topod.adapters.curve_limits import Limits, room_for, watch_over
from topod.adapters.curve_peers import EVENTS, Connection, Connections
from topod.adapters.curve_waiting import Waiting
from topod.adapters.curve_wire import RouterWire
from topod.adapters.peers import RemotePeer
from topod.adapters.zmq_server import failure, replied
from topod.errors import ConflictError, DaemonUnavailableError, NotAllowedError, TopodError, UsageError
from topod.protocol.codec import (
    PROTOCOL_VERSION,
    ProtocolError,
    ReplyEnvelope,
    encode,
    request_head,
)
from topod.protocol.curve import KeyPair, Kind
from topod.protocol.link import AnyFromHost, AnyToHost, HostHello, TurnedAway
from topod.protocol.link_codec import comes_from_host, decode_from_host, encode_to_host
from topod.protocol.replies import AnyReply
from topod.protocol.requests import AnyRequest

DOMAIN: Final = b"topod-fleet"
TICK_SECONDS: Final = 1.0
TRACKED_BYTES: Final = 64 << 10
"""libzmq copies what is shorter; what is longer is counted until it is sent."""
OWN_ROUTING_BYTES: Final = 5
"""The names that the socket gives its connections: a zero, and a number that began at random."""

log = logging.getLogger(__name__)
OnHost = Callable[[Connection, AnyFromHost], None]
Answer = Callable[[AnyRequest, RemotePeer], Awaitable[AnyReply]]


class CurveServer:
    """Answers users and passes on what hosts say. Used from the event loop only."""

    def __init__(
        self,
        endpoint: str,
        keys: KeyPair,
        authorized: AuthorizedKeys,
        *,
        on_host: OnHost,
        answer: Answer,
        on_gone: Callable[[Connection], None] = lambda _: None,
        limits: Limits | None = None,
    ) -> None:
        """`endpoint`: `tcp://ADDRESS:PORT`; port 0 takes a free one, see `endpoint` after `bind`.

        `on_host` gets each message of a host, in order, with its connection, to which `send_to` answers; it
        must return at once. `answer` may raise any `TopodError`; it becomes a `Failure`. `on_gone` is told of
        each connection that ended.
        """
        self.endpoint = endpoint
        self._keys = keys
        self._authorized: Final = authorized
        self._on_host = on_host
        self._answer = answer
        self._on_gone = on_gone
        self._limits = limits or Limits()
        self._counts: Counter[str] = Counter()
        self._notes = Notes(self._counts)
        self._context = zmq.Context(2)
        self._router = RouterWire(self._context, self._take)
        self._monitor = zmq.Socket(self._context, zmq.PAIR)
        self._connections = self._table(0, Waiting(0))
        self._admission = Admission(self._context, DOMAIN, self._admit)
        self._requests: set[asyncio.Task[None]] = set()
        self._serving: list[asyncio.Task[None]] = []

    @property
    def counts(self) -> Mapping[str, int]:
        """How often what happened since the start, and `connections` and `half_open` as they are now."""
        now = {"connections": len(self._connections), "half_open": self._connections.half_open}
        return {**self._counts, **now}

    @property
    def trouble(self) -> str:
        """Why the file of authorised keys is not in force as it is; empty: it is."""
        return self._authorized.trouble

    def bind(self) -> None:
        """Listen. Raises `UsageError` for an endpoint that cannot be, `ConflictError` for one in use."""
        if not self.endpoint.startswith("tcp://"):
            raise UsageError(f"a coordinator listens at tcp://ADDRESS:PORT, not {self.endpoint!r}")
        limits = self._limits = room_for(self._limits)
        # Who answers before who asks: without an answer nobody is let in, which is right and looks wrong.
        self._admission.bind()
        wire = self._router.socket
        wire.set(zmq.CURVE_SERVER, 1)
        wire.set(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
        wire.set(zmq.ZAP_DOMAIN, DOMAIN)
        # Without this libzmq lets everybody with any key in when nobody answers its questions.
        wire.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
        wire.set(zmq.LINGER, 200)
        wire.set(zmq.IPV6, int("[" in self.endpoint))
        wire.set(zmq.BACKLOG, 1024)
        wire.set(zmq.MAXMSGSIZE, limits.message_bytes)
        wire.set(zmq.HANDSHAKE_IVL, limits.handshake_ms)
        # Unbounded: where a queue is full libzmq stops to read, takes the silence for a dead peer, and ends
        # the process when that one is gone (libzmq #3937, #4767). Who floods is cut instead.
        wire.set(zmq.RCVHWM, 0)
        wire.set(zmq.SNDHWM, limits.unsent_messages)
        # A message to nobody, or to who does not read, is told and not lost without a word.
        wire.set(zmq.ROUTER_MANDATORY, 1)
        watch_over(wire)
        watch = f"inproc://monitor-{id(self):x}"
        wire.monitor(watch, EVENTS)
        self._monitor.set(zmq.RCVHWM, 0)
        self._monitor.connect(watch)
        try:
            wire.bind(self.endpoint)
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConflictError(f"somebody listens at {self.endpoint} already") from None
            raise UsageError(f"cannot listen at {self.endpoint}: {error.strerror}") from None
        self.endpoint = wire.getsockopt_string(zmq.LAST_ENDPOINT)
        waiting = Waiting(limits.half_open, limits.half_open_of_address)
        self._connections = self._table(int(self.endpoint.rpartition(":")[2]), waiting)

    def _table(self, port: int, waiting: Waiting) -> Connections:
        return Connections(
            self._counts,
            port,
            waiting=waiting,
            waiting_seconds=self._limits.silent_seconds,
            refused=self._notes.refused,
        )

    def start(self) -> None:
        """Begin to let in and to answer."""
        asyncio.get_running_loop().add_reader(self._monitor, self._happened)
        for name, work in (("admission", self._admission.serve()), ("tick", self._tick())):
            self._serving.append(asyncio.create_task(work, name=name))
        self._router.start()

    async def stop(self) -> None:
        """Take nothing more and close; requests in progress get no reply. A second time does nothing."""
        if self._router.socket.closed:
            return
        tasks = [*self._requests, *self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._serving:
            asyncio.get_running_loop().remove_reader(self._monitor)
        self._router.socket.disable_monitor()
        self._monitor.close(linger=0)
        self._router.stop()
        self._admission.close()
        self._context.term()

    def send_to(self, connection: Connection, message: AnyToHost) -> bool:
        """Send to a host; False: its connection is gone, or it does not read what it was sent before.

        Raises `ProtocolError` for a message that is too long.
        """
        return self._push(connection, [encode_to_host(message)])

    def cut(self, connection: Connection) -> None:
        """End a connection; who comes again is judged anew."""
        self._connections.cut(connection.fd)
        self._gone(connection)

    def _admit(self, public: str, address: str) -> Entry | None:
        """Return who has a key; None: nobody, or there is no room. Counts and notes why."""
        if self._authorized.refresh():
            self._cut_revoked()
        entry = self._authorized.find(public)
        if entry is None:
            self._notes.refused("unknown_key", f"{address} with key {public[:8]}...")
            self._connections.explained()
            return None
        if len(self._connections) > self._limits.connections:
            self._notes.refused("full", f"{entry.who} from {address}")
            self._connections.explained()
            raise DaemonUnavailableError("no room for more connections")
        # What was accepted is known by then, since it asks.
        self._happened()
        self._connections.let_in(address)
        return entry

    def _cut_revoked(self) -> None:
        for connection in self._connections:
            if not self._still(connection):
                self._notes.refused("revoked", f"{connection.who} is cut: its key is not listed any more")
                self.cut(connection)

    def _still(self, connection: Connection) -> bool:
        """Whether a connection's key is still listed for the same host or user; takes over new roles."""
        entry = self._authorized.find(connection.key)
        if entry is not None and entry is connection.entry:
            return True
        if entry is None or (entry.kind, entry.name) != (connection.who.kind, connection.who.name):
            return False
        connection.who, connection.entry = _peer(entry, connection.who.address), entry
        return True

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._happened()
            if self._authorized.refresh():
                self._cut_revoked()
            self._connections.cut_silent(time.monotonic())

    def _happened(self) -> None:
        """Take in all that the monitor told. Always to the end: its descriptor is not told of the rest."""
        now = time.monotonic()
        with contextlib.suppress(zmq.Again):
            while True:
                ended = self._connections.happened(self._monitor.recv_multipart(zmq.NOBLOCK), now)
                if ended is not None:
                    self._gone(ended)

    def _gone(self, connection: Connection) -> None:
        if self._connections.remove(connection):
            self._on_gone(connection)

    def _take(self, frames: list[zmq.Frame]) -> None:
        connection = self._sender(frames[0].bytes, frames[-1])
        if connection is None:
            return
        if connection.floods(len(frames[-1]), self._limits):
            self._notes.refused("flood", f"{connection.who} says more than can be heard")
            self.cut(connection)
            return
        if not self._still(connection):
            self._notes.refused("revoked", f"{connection.who} is cut: its key is not listed any more")
            self.cut(connection)
            return
        # A REQ socket puts an empty frame before the message.
        *before, data = (frame.bytes for frame in frames[1:])
        if before not in ([], [b""]):
            self._notes.refused("bad_message", f"{connection.who}: {len(frames) - 1} frames")
        elif connection.who.kind is Kind.HOST:
            self._from_host(connection, before, data)
        else:
            self._from_user(connection, before, data)

    def _sender(self, routing: bytes, frame: zmq.Frame) -> Connection | None:
        """Return the connection that a frame came on; None: it is not to be listened to."""
        key, fd = _told(frame, KEY_PROPERTY), int(frame.get(zmq.SRCFD))
        known = self._connections.get(routing)
        if known is not None and (known.key, known.fd) == (key, fd):
            return known
        # What was accepted before the message came is known before the message is looked at.
        self._happened()
        user, address = _told(frame, "User-Id"), _told(frame, "Peer-Address")
        if known is not None:
            self._gone(known)
        if len(routing) != OWN_ROUTING_BYTES or routing[0]:
            # With a name of its own choice a peer could come to have that of another one.
            self._notes.refused("chosen_name", f"{user} from {address} named its connection itself")
            self._connections.cut(fd)
            return None
        if self._connections.has_ended(routing) or not self._connections.is_waiting(fd):
            self._connections.cut_late(routing, fd)
            return None
        if self._connections.of_key(key) >= self._limits.connections_of_key:
            self._notes.refused("too_many_of_key", f"{user} from {address}")
            self._connections.cut_waiting(fd, "cut")
            return None
        kind, _, name = user.partition(":")
        who = RemotePeer(kind=Kind(kind), name=name, address=address)
        connection = Connection(who=who, key=key, routing=routing, fd=fd)
        self._connections.add(connection)
        return connection

    def _from_host(self, connection: Connection, before: list[bytes], data: bytes) -> None:
        if before:
            self._asked_by_a_host(connection, before, data)
            return
        try:
            message = decode_from_host(data)
        except ProtocolError as error:
            if not comes_from_host(data) and request_head(data)[1]:
                self._asked_by_a_host(connection, before, data)
                return
            self._notes.refused("bad_message", f"{connection.who}: {error.message}")
            self.send_to(connection, TurnedAway(reason=error.message))
            return
        if isinstance(message, HostHello) and message.host != connection.name:
            self._notes.refused("wrong_name", f"{connection.who} calls itself {message.host[:80]!r}")
            text = f"this is the key of host {connection.name}, not of {message.host[:80]!r}"
            self.send_to(connection, TurnedAway(reason=text))
            return
        self._on_host(connection, message)

    def _asked_by_a_host(self, connection: Connection, before: list[bytes], data: bytes) -> None:
        self._notes.refused("wrong_place", f"{connection.who} asked as a user does")
        text = f"this is the key of host {connection.name}, and a user asks"
        self._fail(connection, before, data, NotAllowedError(text, hint="--key FILE, with a key of a user"))

    def _from_user(self, connection: Connection, before: list[bytes], data: bytes) -> None:
        if not before and comes_from_host(data):
            self._notes.refused("wrong_place", f"{connection.who} spoke as a host does")
            text = f"this is the key of user {connection.name}, not of a host"
            self.send_to(connection, TurnedAway(reason=text))
            return
        if (
            connection.in_flight >= self._limits.requests_of_connection
            or len(self._requests) >= self._limits.requests
        ):
            self._notes.refused("too_many_requests", str(connection.who))
            busy = DaemonUnavailableError("the coordinator is busy with too many requests", hint="try again")
            self._fail(connection, before, data, busy)
            return
        connection.in_flight += 1
        task = asyncio.create_task(self._reply(connection, before, data))
        self._requests.add(task)
        task.add_done_callback(self._finished)

    async def _reply(self, connection: Connection, before: list[bytes], data: bytes) -> None:
        try:
            who = connection.who
            wire = await replied(data, lambda request: self._answer(request, who))
        finally:
            connection.in_flight -= 1
        self._push(connection, [*before, wire])

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("request.failed", exc_info=task.exception())

    def _fail(self, connection: Connection, before: list[bytes], data: bytes, error: TopodError) -> None:
        reply = ReplyEnvelope(v=PROTOCOL_VERSION, id=request_head(data)[1], body=failure(error))
        self._push(connection, [*before, encode(reply)])

    def _push(self, connection: Connection, frames: list[bytes]) -> bool:
        """Give frames to libzmq, which sends them; never waits. False: they go nowhere."""
        if self._connections.get(connection.routing) is not connection:
            return False
        size = len(frames[-1])
        if connection.unsent_bytes() + size > self._limits.unsent_bytes:
            self._notes.refused("dropped", f"{connection.who} does not read")
            return False
        long = size > TRACKED_BYTES
        try:
            tracker = self._router.send([connection.routing, *frames], copy=not long)
        except zmq.ZMQError as error:
            if error.errno == errno.EHOSTUNREACH:
                self._gone(connection)
            else:
                self._notes.refused("dropped", f"{connection.who} does not read")
            return False
        if tracker is not None:
            connection.unsent.append((tracker, size))
        return True


def _told(frame: zmq.Frame, name: str) -> str:
    """Return a property of the connection that a frame came on."""
    return str(frame.get(name))


def _peer(entry: Entry, address: str) -> RemotePeer:
    return RemotePeer(
        kind=entry.kind,
        name=entry.name,
        roles=entry.roles,
        max_priority=entry.max_priority,
        address=address,
    )
