"""The daemon's two sockets: requests in, replies and events out.

Rule: every request that names itself is answered exactly once, also when it is damaged or the daemon fails at
it. A request that waits holds up no other; their number is bounded.
"""

import asyncio
import contextlib
import grp
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import zmq
import zmq.asyncio

from topod.adapters.peers import Peer, check_peers, parse_peer, peer_of
from topod.errors import ConflictError, TopodError, UsageError
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

MAX_PATH_BYTES: Final = 100
"""The kernel's limit is 107; the event stream's name is 7 longer."""
MAX_AT_ONCE: Final = 1024
GROUP: Final = "topod"
"""Its members may talk to a topod of root, where the group exists."""
MODE: Final = 0o660
ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"
"""Where libzmq asks whether a peer may connect, see https://rfc.zeromq.org/spec/27."""

log = logging.getLogger(__name__)


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
    ) -> None:
        """`answer` may raise any `TopodError`; it becomes a `Failure`.

        `group` and `mode` are those of the sockets' files. `may_watch` says who gets events; None: whoever
        can open the socket.
        """
        self.path: Final = path
        self._group = group
        self._mode = mode
        self._may_watch = may_watch
        self.events_path: Final = events_socket(path)
        self._answer = answer
        self._context = zmq.Context()
        self._router = zmq.asyncio.Socket(self._context, zmq.ROUTER)
        self._publisher = zmq.Socket(self._context, zmq.PUB)
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._serving: list[asyncio.Task[None]] = []
        self._zap: zmq.asyncio.Socket | None = None
        self._bound: list[Path] = []

    def bind(self) -> None:
        """Listen, for this user and the group only.

        Raises `UsageError` for a path that cannot be a socket, `ConflictError` when somebody listens there.
        """
        check_path(self.path)
        gid = _gid(self._group)
        _make_folder(self.path.parent, gid, self._mode)
        check_peers(self._context)
        if self._may_watch is not None:
            self._zap = zmq.asyncio.Socket(self._context, zmq.REP)
            self._zap.bind(ZAP_ENDPOINT)
            self._publisher.set(zmq.ZAP_DOMAIN, b"events")
        for wire, path in ((self._router, self.path), (self._publisher, self.events_path)):
            _clear(path)
            wire.set(zmq.LINGER, 200)
            # Twice the limit, so that a message a little too long still gets its reply.
            wire.set(zmq.MAXMSGSIZE, 2 * MAX_MESSAGE_BYTES)
            # Nobody gets in before the file has its group and its mode.
            previous = os.umask(0o177)
            try:
                wire.bind(f"ipc://{path}")
            except zmq.ZMQError as error:
                raise UsageError(f"cannot listen at {path}: {error}") from error
            finally:
                os.umask(previous)
            self._bound.append(path)
            _share(path, gid, self._mode)

    def start(self) -> None:
        """Begin to answer."""
        self._serving.append(asyncio.create_task(self._serve(), name="server"))
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
        for path in self._bound:
            path.unlink(missing_ok=True)

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


def check_path(path: Path) -> None:
    """Raise `UsageError` when no socket can have this path."""
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise UsageError(
            f"the socket's path has {length} bytes, {MAX_PATH_BYTES} are allowed: {path}",
            hint="name a shorter one with --socket or TOPOD_SOCKET",
        )


def _gid(group: str) -> int | None:
    """Return the group that shares the sockets; None: nobody does. Only root can give a file away."""
    if os.geteuid() != 0 and group == GROUP:
        return None
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        if group == GROUP:
            return None
        raise UsageError(f"there is no group {group}", hint=f"groupadd --system {group}") from None


def _make_folder(folder: Path, gid: int | None, mode: int) -> None:
    if not folder.is_dir():
        try:
            folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise UsageError(f"cannot create the socket's folder {folder}: {error.strerror}") from error
        _share(folder, gid, 0o755 if mode & 0o007 else 0o750)
    found = folder.stat().st_mode
    if found & 0o002 and not found & stat.S_ISVTX:
        raise UsageError(
            f"everybody may replace files in the socket's folder {folder}", hint=f"chmod o-w {folder}"
        )


def _share(path: Path, gid: int | None, mode: int) -> None:
    """Give a file its group, then its mode: never the mode while the group is another one."""
    if gid is None:
        mode &= ~0o070
    else:
        try:
            os.chown(path, -1, gid, follow_symlinks=False)
        except OSError as error:
            raise UsageError(f"cannot give {path} to group {gid}: {error.strerror}") from error
    path.chmod(mode)


def _clear(path: Path) -> None:
    """Remove the socket of a daemon that is gone."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise UsageError(f"{path} is in the way: it is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"cannot use {path}: {error.strerror or error}") from error
    raise ConflictError(
        f"another topod listens at {path}", hint="stop it, or name another socket with --socket"
    )
