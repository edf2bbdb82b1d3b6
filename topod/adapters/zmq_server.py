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

log = logging.getLogger(__name__)


class Server:
    """Answers requests on `path` and publishes events beside it. Used from the event loop only."""

    def __init__(self, path: Path, answer: Callable[[AnyRequest], Awaitable[AnyReply]]) -> None:
        """`answer` may raise any `TopodError`; it becomes a `Failure`."""
        self.path: Final = path
        self.events_path: Final = events_socket(path)
        self._answer = answer
        self._context = zmq.Context()
        self._router = zmq.asyncio.Socket(self._context, zmq.ROUTER)
        self._publisher = zmq.Socket(self._context, zmq.PUB)
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._bound: list[Path] = []

    def bind(self) -> None:
        """Listen, for this user and group only.

        Raises `UsageError` for a path that cannot be a socket, `ConflictError` when somebody listens there.
        """
        check_path(self.path)
        _make_folder(self.path.parent)
        for wire, path in ((self._router, self.path), (self._publisher, self.events_path)):
            _clear(path)
            wire.set(zmq.LINGER, 200)
            # Twice the limit, so that a message a little too long still gets its reply.
            wire.set(zmq.MAXMSGSIZE, 2 * MAX_MESSAGE_BYTES)
            previous = os.umask(0o117)
            try:
                wire.bind(f"ipc://{path}")
            except zmq.ZMQError as error:
                raise UsageError(f"cannot listen at {path}: {error}") from error
            finally:
                os.umask(previous)
            self._bound.append(path)
            _share(path, 0o660)

    def start(self) -> None:
        """Begin to answer."""
        self._task = asyncio.create_task(self._serve(), name="server")

    def publish(self, event: EventView) -> None:
        """Tell every watcher; one that is too slow misses events and can ask for them by number."""
        with contextlib.suppress(zmq.Again):
            self._publisher.send_multipart([event.name.encode(), encode(event)], zmq.NOBLOCK)

    async def stop(self) -> None:
        """Take no more requests and close the sockets; requests in progress get no reply."""
        tasks = [*self._tasks, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._router.close()
        self._publisher.close()
        self._context.term()
        for path in self._bound:
            path.unlink(missing_ok=True)

    async def _serve(self) -> None:
        while True:
            await self._slots.acquire()
            try:
                frames = await self._router.recv_multipart()
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

    async def _handle(self, frames: list[bytes]) -> None:
        # A REQ socket puts an empty frame between its address and the message; others may not.
        *address, data = frames
        if not address or len(address) > 2 or any(address[1:]):
            return
        await self._router.send_multipart([*address, await self._reply(data)])

    async def _reply(self, data: bytes) -> bytes:
        # Bytes without an envelope are answered too: whoever sent them may be waiting.
        _, ident = request_head(data)
        try:
            reply = await self._answer(decode_request(data).body)
        except TopodError as refused:
            reply = failure(refused)
        wire = encode(ReplyEnvelope(v=PROTOCOL_VERSION, id=ident, body=reply))
        if len(wire) > MAX_REPLY_BYTES:
            error = ProtocolError(f"the answer has {len(wire)} bytes; the limit is {MAX_REPLY_BYTES}")
            wire = encode(ReplyEnvelope(v=PROTOCOL_VERSION, id=ident, body=failure(error)))
        return wire


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


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    try:
        folder.mkdir(mode=0o750, parents=True)
    except OSError as error:
        raise UsageError(f"cannot create the socket's folder {folder}: {error.strerror}") from error
    _share(folder, 0o750)


def _share(path: Path, mode: int) -> None:
    path.chmod(mode)
    if os.geteuid() == 0:
        with contextlib.suppress(KeyError):
            os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)


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
