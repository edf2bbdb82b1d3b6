"""The daemon's two sockets: requests in, replies and events out.

Rule: every request that names itself is answered exactly once, also when it is damaged or the daemon fails at
it. A request that waits holds up no other; their number is bounded.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import zmq
import zmq.asyncio

from topod.adapters.ipc_files import GROUP, MODE, Listener, check_path, gid_of, listen
from topod.adapters.peers import Peer, check_peers, parse_peer, peer_of
from topod.errors import TopodError, UsageError
from topod.protocol.client import events_socket
from topod.protocol.codec import (
    MAX_MESSAGE_BYTES,
    MAX_REPLY_BYTES,
    PROTOCOL_VERSION,
    ProtocolError,
    ReplyEnvelope,
    decode_request,
    encode,
    request_head,
)
from topod.protocol.replies import AnyReply, Failure
from topod.protocol.requests import AnyRequest
from topod.protocol.views import EventView

MAX_AT_ONCE: Final = 1024
LOOK_SECONDS: Final = 3.0
"""How often the files of the sockets are looked at: a cleaner of /tmp or a slip of `rm` takes them away."""
ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"
"""Where libzmq asks whether a peer may connect, see https://rfc.zeromq.org/spec/27."""

log = logging.getLogger(__name__)
_Wire = zmq.asyncio.Socket | zmq.Socket[bytes]


class Server:
    """Answers requests on `path` and publishes events beside it. Used from the event loop only."""

    def __init__(
        self,
        path: Path,
        answer: Callable[[AnyRequest, Peer | None], Awaitable[AnyReply]],
        *,
        group: str = GROUP,
        mode: int = MODE,
        may_watch: Callable[[Peer | None], Awaitable[bool]] | None = None,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`answer` may raise any `TopodError`; it becomes a `Failure`.

        `group` and `mode` are those of the sockets' files. `may_watch` says who gets events; None: whoever
        can open the socket. `on_trouble` is told why a socket that lost its file cannot get it back, and ""
        when all is well.
        """
        self.path: Final = path
        self._group = group
        self._mode = mode
        self._may_watch = may_watch
        self._on_trouble = on_trouble
        self.events_path: Final = events_socket(path)
        self._answer = answer
        self._context = zmq.Context()
        self._router = zmq.asyncio.Socket(self._context, zmq.ROUTER)
        self._publisher = zmq.Socket(self._context, zmq.PUB)
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._serving: list[asyncio.Task[None]] = []
        self._zap: zmq.asyncio.Socket | None = None
        self._bound: dict[Path, Listener] = {}

    def bind(self) -> None:
        """Listen, for this user and the group only.

        Raises `UsageError` for a path that cannot be a socket, `ConflictError` when somebody listens there.
        """
        check_path(self.path)
        gid = gid_of(self._group)
        check_peers(self._context)
        if self._may_watch is not None:
            self._zap = zmq.asyncio.Socket(self._context, zmq.REP)
            self._zap.bind(ZAP_ENDPOINT)
            self._publisher.set(zmq.ZAP_DOMAIN, b"events")
        for wire, path in self._wires():
            wire.set(zmq.LINGER, 200)
            # Twice the limit, so that a message a little too long still gets its reply.
            wire.set(zmq.MAXMSGSIZE, 2 * MAX_MESSAGE_BYTES)
            self._take(wire, listen(path, gid, self._mode))

    def _wires(self) -> tuple[tuple[_Wire, Path], ...]:
        return (self._router, self.path), (self._publisher, self.events_path)

    def _take(self, wire: _Wire, listener: Listener) -> None:
        """Let a socket answer at a listener too: those it has go on, and so do who came by them.

        To unbind an old one would end its connections: libzmq has sessions owned by their listener.
        """
        # With a descriptor of ours libzmq leaves the file alone; by itself it removes whatever lies there.
        wire.set(zmq.USE_FD, listener.fd)
        try:
            wire.bind(f"ipc://{listener.path}")
        except zmq.ZMQError as error:
            listener.remove()
            os.close(listener.fd)
            raise UsageError(f"cannot listen at {listener.path}: {error}") from error
        self._bound[listener.path] = listener

    def start(self) -> None:
        """Begin to answer."""
        self._serving.append(asyncio.create_task(self._serve(), name="server"))
        self._serving.append(asyncio.create_task(self._look(), name="socket files"))
        if self._zap is not None and self._may_watch is not None:
            self._serving.append(asyncio.create_task(_admit(self._zap, self._may_watch), name="watchers"))

    def publish(self, event: EventView) -> None:
        """Tell every watcher; one that is too slow misses events and can ask for them by number.

        So can all of them for what happens after `stop`: what is being decided is brought to its end.
        """
        if self._publisher.closed:
            return
        with contextlib.suppress(zmq.Again):
            self._publisher.send_multipart([event.name.encode(), encode(event)], zmq.NOBLOCK)

    async def stop(self) -> None:
        """Take no more requests and close the sockets; requests in progress get no reply."""
        tasks = [*self._tasks, *self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for wire in (self._router, self._publisher, *([self._zap] if self._zap else [])):
            wire.close()
        self._context.term()
        for listener in self._bound.values():
            listener.remove()

    async def _look(self) -> None:
        """Put back the files of the sockets when somebody took them away."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            trouble = ""
            for wire, path in self._wires():
                if self._bound[path].in_place():
                    continue
                try:
                    # In a thread: who listens there now may be slow to take a connection.
                    found = await asyncio.to_thread(listen, path, gid_of(self._group), self._mode)
                    self._take(wire, found)
                except TopodError as error:
                    trouble = f"{path} was taken away, nobody new reaches this daemon there: {error.message}"
                    break
                log.warning("socket.restored", extra={"socket": str(path)})
            self._on_trouble(trouble)

    async def _serve(self) -> None:
        while True:
            await self._slots.acquire()
            try:
                frames = await self._router.recv_multipart(copy=False)
            except zmq.ZMQError as error:
                self._slots.release()
                log.warning("request.unreadable", extra={"error": str(error)})
                await asyncio.sleep(0.05)
                continue
            task = asyncio.create_task(self._handle(frames))
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and task.exception() is not None:
            log.error("request.failed", exc_info=task.exception())

    async def _handle(self, frames: list[zmq.Frame]) -> None:
        # A REQ socket puts an empty frame between its address and the message; others may not.
        *address, data = (frame.bytes for frame in frames)
        if not address or len(address) > 2 or any(address[1:]):
            return
        peer = peer_of(frames[-1])
        wire = await replied(data, lambda request: self._answer(request, peer))
        await self._router.send_multipart([*address, wire])


async def replied(data: bytes, answer: Callable[[AnyRequest], Awaitable[AnyReply]]) -> bytes:
    """Return the reply to the bytes of a request, damaged or not; a `TopodError` becomes a `Failure`."""
    # Bytes without an envelope are answered too: whoever sent them may be waiting.
    _, ident = request_head(data)
    try:
        reply = await answer(decode_request(data).body)
    except TopodError as refused:
        reply = failure(refused)
    wire = encode(ReplyEnvelope(v=PROTOCOL_VERSION, id=ident, body=reply))
    if len(wire) > MAX_REPLY_BYTES:
        error = ProtocolError(f"the answer has {len(wire)} bytes; the limit is {MAX_REPLY_BYTES}")
        wire = encode(ReplyEnvelope(v=PROTOCOL_VERSION, id=ident, body=failure(error)))
    return wire


async def _admit(zap: zmq.asyncio.Socket, may_watch: Callable[[Peer | None], Awaitable[bool]]) -> None:
    """Answer libzmq's questions who may connect to the event stream."""
    while True:
        version, ident, _, address, *_ = await zap.recv_multipart()
        peer = parse_peer(address.decode(errors="replace"))
        code, text = (b"200", b"OK") if await may_watch(peer) else (b"400", b"not allowed")
        await zap.send_multipart([version, ident, code, text, b"", b""])


def failure(error: TopodError) -> Failure:
    """Return the reply that an error becomes."""
    return Failure(code=error.code, text=error.message, hint=error.hint, exit_status=error.exit_status)
