"""Reads the configuration file again on SIGHUP: takes what can be taken, and names what needs a restart.

A file that is refused changes nothing: the one before stays in force, and the board says so.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from topod.errors import TopodError
from topod.shell.config_file import ConfigFile
from topod.shell.configured import Configured
from topod.shell.health import Health
from topod.shell.logs import Key
from topod.shell.supervision import Supervision

SUBJECT: Final = "config"

log = logging.getLogger(__name__)


class Reloader:
    """Waits for SIGHUP. Used from the event loop only."""

    def __init__(self, configured: Configured, *, take: Callable[[ConfigFile], None], health: Health) -> None:
        """`take` puts a good configuration into force, as far as that needs no restart."""
        self._configured = configured
        self._take = take
        self._health = health
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, *, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """Begin to hear SIGHUP; `begin` and `end` are called around each reload."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)
        self._task = asyncio.create_task(self._run(begin, end), name="reloading")

    def stop(self) -> None:
        """Obey no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            begin()
            try:
                await self.reload()
            finally:
                end()

    async def reload(self) -> None:
        """Read the file once; the board and the log say what came of it."""
        try:
            loaded = await self._configured.read()
        except TopodError as error:
            self._health.trouble(SUBJECT, f"refused, the one before stays in force: {error.message}")
            # No defect, so no traceback.
            log.error("config.refused", extra={Key.ERROR: error.message})  # noqa: TRY400
            return
        self._take(loaded.config)
        self._configured.took(loaded)
        waits = self._configured.waits(loaded.config)
        self._health.tell(SUBJECT, f"{', '.join(waits)} changed: that needs a restart" if waits else "")
        log.info("config.reloaded", extra={Key.TEXT: f"after a restart: {', '.join(waits)}"} if waits else {})


@asynccontextmanager
async def supervised(supervision: Supervision, reloader: Reloader) -> AsyncIterator[None]:
    """Tell the service manager that the daemon is ready, and obey it, for as long as this lasts."""
    supervision.start()
    reloader.start(begin=supervision.reloading, end=supervision.ready)
    try:
        yield
    finally:
        reloader.stop()
        await supervision.stop()
