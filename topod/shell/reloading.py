"""Reads the configuration file again on SIGHUP: takes what can be taken, and names what needs a restart.

A file that is refused changes nothing: the one before stays in force, and the board says so.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from topod.errors import TopodError
from topod.shell.config_file import ConfigFile
from topod.shell.config_reading import read_config
from topod.shell.health import Health
from topod.shell.logs import Key
from topod.shell.supervision import Supervision

SUBJECT: Final = "config"
RULES: Final[Mapping[str, frozenset[str]]] = {
    "fairness": frozenset(),
    "quota": frozenset(),
    "budget": frozenset(),
}
"""What every daemon takes at a reload, by section; no keys: the whole section."""

log = logging.getLogger(__name__)


class Reloader:
    """Waits for SIGHUP. Used from the event loop only."""

    def __init__(
        self,
        path: Path | None,
        begun_with: ConfigFile,
        *,
        take: Callable[[ConfigFile], None],
        live: Mapping[str, frozenset[str]],
        foreign: frozenset[str],
        health: Health,
    ) -> None:
        """`take` puts a good file into force; `live` are the keys for which that is enough.

        `foreign` are sections that this daemon never reads.
        """
        self._path = path
        self._begun_with = begun_with
        self._take = take
        self._live = live
        self._foreign = foreign
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
            file = await asyncio.to_thread(read_config, self._path)
        except TopodError as error:
            self._health.trouble(SUBJECT, f"refused, the one before stays in force: {error.message}")
            # No defect, so no traceback.
            log.error("config.refused", extra={Key.ERROR: error.message})  # noqa: TRY400
            return
        self._take(file)
        waits = self.waits(file)
        self._health.tell(SUBJECT, f"{', '.join(waits)} changed: that needs a restart" if waits else "")
        log.info("config.reloaded", extra={Key.TEXT: f"after a restart: {', '.join(waits)}"} if waits else {})

    def waits(self, file: ConfigFile) -> list[str]:
        """Return the keys that differ from those the daemon began with, and that only a start takes."""
        found: list[str] = []
        for name in file.__struct_fields__:
            old, new = getattr(self._begun_with, name), getattr(file, name)
            if old == new or name in self._foreign:
                continue
            live = self._live.get(name)
            if live is None or (live and isinstance(new, msgspec.Struct)):
                found += _differing(name, old, new, live or frozenset())
        return found


def _differing(name: str, old: object, new: object, live: frozenset[str]) -> list[str]:
    if not isinstance(new, msgspec.Struct):
        return [name]
    keys = [key for key in new.__struct_fields__ if getattr(old, key) != getattr(new, key)]
    return [f"{name}.{key}" for key in keys if key not in live]


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
