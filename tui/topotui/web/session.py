"""One browser and the process that draws its screen.

The process is a Textual application with Textual's own driver for the web: packets of a letter, four bytes of
length and a payload; `D` holds what a terminal would get, `M` JSON about the rest. The page (textual-serve's
script) talks JSON lists. A process or a page that breaks these rules is hung up on.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import WSMsgType, web

PRELUDE: Final = b"__GANGLION__\n"
"""With this line Textual's driver says that it begins."""
PACKET_MAX: Final = 16 * 1024 * 1024
ERROR_BYTES: Final = 4096
QUIT_SECONDS: Final = 3.0
"""So long the process may take to end by itself."""
CELLS_MAX: Final = 1000
"""Wider and higher than any screen."""


def packet(kind: bytes, payload: bytes) -> bytes:
    """Return a packet for the process."""
    return kind + len(payload).to_bytes(4, "big") + payload


def meta(**data: object) -> bytes:
    """Return a packet that is not typed by anybody."""
    return packet(b"M", json.dumps(data).encode())


def from_page(text: str) -> tuple[bytes, list[str]]:
    """Return what a message of the page means: a packet for the process, and an answer to the page.

    Either may be empty. Raises `ValueError` for what the page never says.
    """
    try:
        said = json.loads(text)
    except RecursionError:
        raise ValueError("not a message of the page: it is too deep") from None
    match said:
        case ["stdin", str(keys)]:
            return packet(b"D", keys.encode(errors="replace")), []
        case ["resize", {"width": int(width), "height": int(height)}]:
            return meta(type="resize", width=cells(width), height=cells(height)), []
        case ["ping", str(when)]:
            return b"", ["pong", when]
        case ["focus" | "blur" as what]:
            return meta(type=what), []
        case _:
            raise ValueError(f"not a message of the page: {text[:80]!r}")


def cells(number: int) -> int:
    """Return a width or height that a screen may have."""
    return min(max(number, 1), CELLS_MAX)


class Session:
    """Runs until the browser leaves, the process ends or `leave` is called; then the process is gone."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Let it come to its end."""
        self._leaving.set()

    async def run(self, page: web.WebSocketResponse, width: int, height: int) -> None:
        """Serve one browser. Raises `OSError` where the process cannot be started."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(width, height),
        )
        errors = asyncio.create_task(_last_words(process))
        works = [
            asyncio.create_task(_draw(process, page)),
            asyncio.create_task(_type(process, page)),
            asyncio.create_task(self._leaving.wait()),
        ]
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for work in works:
                work.cancel()
            await asyncio.shield(asyncio.gather(*works, return_exceptions=True))
            await asyncio.shield(_end(process))
        words = await errors
        if process.returncode and words:
            with contextlib.suppress(ConnectionError):
                await page.send_bytes(b"\x1b[2J\x1b[H" + words.replace(b"\n", b"\r\n"))


async def _draw(process: asyncio.subprocess.Process, page: web.WebSocketResponse) -> None:
    """Pass on what the process draws, until it ends."""
    out = process.stdout
    assert out is not None
    if await out.readline() != PRELUDE:
        await process.wait()
        return
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await out.readexactly(5)
            size = int.from_bytes(head[1:], "big")
            if size > PACKET_MAX:
                return
            payload = await out.readexactly(size)
            if head[:1] == b"D":
                await page.send_bytes(payload)
            elif head[:1] == b"M" and json.loads(payload).get("type") == "exit":
                return


async def _type(process: asyncio.subprocess.Process, page: web.WebSocketResponse) -> None:
    """Pass on what is typed, until the browser leaves."""
    into = process.stdin
    assert into is not None
    async for message in page:
        if message.type is not WSMsgType.TEXT:
            return
        try:
            data, answer = from_page(message.data)
        except ValueError:
            return
        if answer:
            await page.send_json(answer)
        if data:
            into.write(data)
            await into.drain()


async def _last_words(process: asyncio.subprocess.Process) -> bytes:
    """Return the end of what the process writes to stderr."""
    stream, kept = process.stderr, b""
    assert stream is not None
    while data := await stream.read(ERROR_BYTES):
        kept = (kept + data)[-ERROR_BYTES:]
    return kept


async def _end(process: asyncio.subprocess.Process) -> None:
    """Have the process end, kindly at first, and wait until it has."""
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError, RuntimeError):
        process.stdin.write(meta(type="quit"))
    try:
        await asyncio.wait_for(_drawn_out(process), QUIT_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _drawn_out(process: asyncio.subprocess.Process) -> None:
    """Wait until the process has ended; what it still draws is read: a full pipe would keep it from that."""
    assert process.stdout is not None
    while await process.stdout.read(65536):
        pass
    await process.wait()


def _environment(width: int, height: int) -> dict[str, str]:
    """Return the variables by which Textual draws for a page instead of a terminal."""
    return {
        **os.environ,
        "TEXTUAL_DRIVER": "textual.drivers.web_driver:WebDriver",
        "TEXTUAL_COLOR_SYSTEM": "truecolor",
        "TERM_PROGRAM": "textual",
        "COLUMNS": str(cells(width)),
        "ROWS": str(cells(height)),
    }


def command(words: Sequence[str]) -> list[str]:
    """Return the process that runs `topoctl` with these words as a child of this one."""
    return [sys.executable, "-m", "topotui.web.child", str(os.getpid()), *words]


def number(text: Any, default: int) -> int:
    """Return the number of a query, or the default where there is none."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() else default
