"""The port that Prometheus scrapes: plain HTTP in a thread of its own, one answer a connection.

Whoever connects costs a bounded time and little memory, and never holds up whose state is told: that is asked
for what never changes any more, and all else happens here. There is no login and no encryption: listen on
loopback, or behind a proxy that has both.
"""

import asyncio
import concurrent.futures
import errno
import ipaddress
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from topod.errors import ConflictError, NotAllowedError, UsageError

CONNECTIONS: Final = 32
"""So many at a time; who comes then pushes out who has been there longest."""
SECONDS: Final = 5.0
"""One connection lasts so long at most, whatever its client does or leaves undone."""
LOOK_SECONDS: Final = 2.5
"""So long the owner of the state may take to hand it out."""
HEAD_BYTES: Final = 8192
FRESH_SECONDS: Final = 0.5
"""An answer that is younger is given again: who asks a thousand times a second costs no more than twice."""
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
PLAIN: Final = "text/plain; charset=utf-8"

S = TypeVar("S")
log = logging.getLogger(__name__)


def parse_place(text: str) -> tuple[str, int]:
    """Return address and port of `[ADDR:]PORT`; without an address, loopback. Raises `ValueError`."""
    found = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[0-9.]+|localhost):)?([0-9]+)", text.strip())
    if found is not None and int(found[2]) >= 1 << 16:
        raise ValueError(f"{found[2]} is no port: those are 0 to 65535")
    if found is None:
        raise ValueError(f"written PORT, ADDRESS:PORT or [IPV6]:PORT, not {text!r}")
    address = (found[1] or "127.0.0.1").strip("[]")
    if address == "localhost":
        return "127.0.0.1", int(found[2])
    try:
        return str(ipaddress.ip_address(address)), int(found[2])
    except ValueError:
        raise ValueError(f"{address!r} is no IP address") from None


class MetricsPort(Generic[S]):
    """Answers `GET /metrics`. Made, bound, started and stopped by the owner of the state."""

    def __init__(self, place: tuple[str, int], look: Callable[[], S], render: Callable[[S], bytes]) -> None:
        """`look` is called in the loop of who starts it and must return at once; `render` in the thread."""
        self._place = place
        self._look = look
        self._render = render
        self._socket: socket.socket | None = None
        self._owner: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._answer: tuple[float, bytes] = (float("-inf"), b"")
        self._one = asyncio.Lock()

    @property
    def url(self) -> str:
        """Where it answers, once it is bound."""
        host, port = self._place
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"

    def bind(self) -> None:
        """Listen. Raises `ConflictError` for a port in use, `NotAllowedError`, `UsageError`."""
        host, port = self._place
        where = f"{host} port {port}"
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=64)
        except PermissionError:
            hint = "take a port from 1024 up"
            raise NotAllowedError(f"may not listen for metrics at {where}", hint=hint) from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                hint = "give another one with --metrics, or stop who has it"
                raise ConflictError(
                    f"somebody listens at {where} already, where metrics were to be", hint=hint
                ) from None
            raise UsageError(f"cannot listen for metrics at {where}: {error.strerror}") from None
        self._place = host, self._socket.getsockname()[1]

    def start(self) -> None:
        """Begin to answer. Called in the loop of the state's owner."""
        self._owner = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer nobody any more."""
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(SECONDS)
        if self._socket is not None:
            self._socket.close()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        begin = asyncio.start_server(self._met, sock=self._socket, limit=HEAD_BYTES)
        server = loop.run_until_complete(begin)
        try:
            loop.run_forever()
        finally:
            server.close()
            for writer in self._open.values():
                writer.transport.abort()
            for task in self._open:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*self._open, return_exceptions=True))
            loop.close()

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        while len(self._open) >= CONNECTIONS:
            oldest = next(iter(self._open))
            self._open.pop(oldest).transport.abort()
            oldest.cancel()
        self._open[task] = writer
        try:
            async with asyncio.timeout(SECONDS):
                await self._served(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it hung up, or is slower than anybody who means it
        except Exception:
            log.exception("metrics.failed")
        finally:
            self._open.pop(task, None)
            writer.transport.abort()

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            await _send(writer, "431 Request Header Fields Too Large", b"the request is too long\n")
            return
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ", 1)[0].partition(b"?")[0]
        body_wanted = method != b"HEAD"
        if method not in (b"GET", b"HEAD"):
            await _send(writer, "405 Method Not Allowed", b"GET /metrics\n")
        elif path != b"/metrics":
            await _send(writer, "404 Not Found", b"metrics are at /metrics\n", with_body=body_wanted)
        else:
            status, body = await self._metrics()
            kind = TEXT if status == "200 OK" else PLAIN
            await _send(writer, status, body, kind, with_body=body_wanted)

    async def _metrics(self) -> tuple[str, bytes]:
        async with self._one:
            at, body = self._answer
            if time.monotonic() - at < FRESH_SECONDS:
                return "200 OK", body
            assert self._owner is not None
            asked = asyncio.run_coroutine_threadsafe(self._looked(), self._owner)
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    seen = await asyncio.wrap_future(asked)
            except (TimeoutError, concurrent.futures.CancelledError):
                return "503 Service Unavailable", b"it is busy; ask again\n"
            body = self._render(seen)
            self._answer = time.monotonic(), body
            return "200 OK", body

    async def _looked(self) -> S:
        return self._look()


async def _send(
    writer: asyncio.StreamWriter, status: str, body: bytes, kind: str = PLAIN, *, with_body: bool = True
) -> None:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\nCache-Control: no-store\r\n\r\n"
    )
    writer.write(head.encode() + (body if with_body else b""))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
