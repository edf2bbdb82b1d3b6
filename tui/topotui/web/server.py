"""The server behind `topoctl web`: a page with a terminal in it, and a process for each browser.

The page's script, style and font are textual-serve's, served from its package: nothing is fetched from
elsewhere. Its server is not used: it lets any site's script and any name in, has the font fetched from the
network, and has no bounds.
"""

import asyncio
import errno
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final

from aiohttp import web

from topod.errors import ConflictError, NotAllowedError, TopodError, UsageError
from topotui.web.access import foreign, is_loopback, same_key
from topotui.web.session import Session, command, number

MESSAGE_MAX: Final = 64 * 1024
"""Bytes of one message of a page; what is pasted in one go is longer than a key."""
HEARTBEAT_SECONDS: Final = 15.0
SHUTDOWN_SECONDS: Final = 10.0
HEADERS: Final = {
    # Scripts and data from here only; the terminal sets styles of its own. No other site may frame the page.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " font-src 'self' data:; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none';"
    " base-uri 'none'; form-action 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_NO_KEY: Final = "open the address that `topoctl web` printed when it began: it holds the key\n"
_TEXTUAL_SERVE: Final = Path(str(files("textual_serve")))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is served where. `words`: those of the `topoctl` that runs for each browser."""

    words: Sequence[str]
    listen: str = "127.0.0.1"
    port: int = 8000
    """0: any that is free."""
    sessions: int = 8
    key: str = field(default_factory=lambda: secrets.token_urlsafe(24))


def serve(settings: Settings, told: Callable[[str], None]) -> bool:
    """Serve until SIGTERM or SIGINT, and return whether it was SIGINT; `told` gets the address to open.

    Raises `ConflictError` where the port is taken, `NotAllowedError`, `UsageError`.
    """
    return asyncio.run(_Server(settings).run(told))


class _Server:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cookie = ""
        self._open: set[Session] = set()
        self._names = {"localhost", settings.listen}
        if not is_loopback(settings.listen):
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._page = _own_file("page.html").replace("{sessions}", str(settings.sessions))
        self._script = _own_file("page.js")

    async def run(self, told: Callable[[str], None]) -> bool:
        asked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        for one in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(one, _ask_once, asked, one)
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            port = await self._listen(runner)
            # Cookies do not tell ports apart: several servers on a machine must not overwrite each other's.
            self._cookie = f"topod-{port}"
            host = f"[{self._settings.listen}]" if ":" in self._settings.listen else self._settings.listen
            told(f"http://{host}:{port}/?key={self._settings.key}")
            return await asked
        finally:
            await runner.cleanup()

    def _application(self) -> web.Application:
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        application = web.Application(middlewares=[web.middleware(guard)])
        application.add_routes(
            [
                web.get("/", self._index),
                web.get("/page.js", self._page_script),
                web.get("/ws", self._talk),
                web.static("/static", _TEXTUAL_SERVE / "static"),
            ]
        )
        application.on_shutdown.append(self._leave)
        return application

    async def _listen(self, runner: web.AppRunner) -> int:
        at = self._settings
        try:
            await web.TCPSite(runner, at.listen, at.port).start()
        except (OSError, OverflowError) as error:
            raise _cannot_listen(error, at) from None
        return int(runner.addresses[0][1])

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn away what no browser of the user's own asks for."""
        talks = request.path == "/ws"
        why = foreign(request.host, request.headers.get("Origin"), self._names, talks=talks)
        if why:
            return web.Response(status=403, text=f"{why}\n", headers=HEADERS)
        given = request.query.get("key")
        if request.path == "/" and given is not None and same_key(given, self._settings.key):
            answer = web.Response(status=303, headers={**HEADERS, "Location": "/"})
            answer.set_cookie(self._cookie, self._settings.key, httponly=True, samesite="Lax", path="/")
            return answer
        if not same_key(request.cookies.get(self._cookie), self._settings.key):
            return web.Response(status=403, text=_NO_KEY, headers=HEADERS)
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _index(self, request: web.Request) -> web.StreamResponse:
        size = min(max(number(request.query.get("fontsize"), 16), 6), 60)
        return web.Response(text=self._page.replace("{font_size}", str(size)), content_type="text/html")

    async def _page_script(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text=self._script, content_type="text/javascript")

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        if len(self._open) >= self._settings.sessions:
            return web.Response(status=503, text="too many screens are open\n")
        session = Session(command(self._settings.words))
        self._open.add(session)
        page = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=MESSAGE_MAX)
        try:
            await page.prepare(request)
            width, height = (number(request.query.get(name), 80) for name in ("width", "height"))
            await session.run(page, width, height)
        finally:
            self._open.discard(session)
        await page.close()
        return page

    async def _leave(self, _: web.Application) -> None:
        for session in self._open:
            session.leave()


def _ask_once(asked: "asyncio.Future[bool]", number: signal.Signals) -> None:
    if not asked.done():
        asked.set_result(number is signal.SIGINT)


def _own_file(name: str) -> str:
    return (files("topotui.web") / name).read_text(encoding="utf-8")


def _cannot_listen(error: OSError | OverflowError, at: Settings) -> TopodError:
    where = f"port {at.port} of {at.listen}"
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return ConflictError(f"{where} is taken", hint="--port 0 takes any that is free")
        case errno.EACCES | errno.EPERM:
            return NotAllowedError(f"no permission to listen at {where}", hint="--port 8000")
        case _:
            reason = getattr(error, "strerror", None) or error
            return UsageError(f"cannot listen at {where}: {reason}")
