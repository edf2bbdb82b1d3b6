"""Tells the service manager how a daemon is: ready, reloading, stopping, and that its event loop turns.

Rule: the watchdog is told from the event loop and nothing else, and only while the owner of the state goes
round. A loop that hangs says nothing; then the service manager ends the process and starts a new one.
The engine is left out on purpose: one that hangs is no better after a restart of the daemon.
"""

import asyncio
import contextlib
import faulthandler
import logging
import time
from collections.abc import Callable
from typing import Final

from topod.adapters.service_manager import (
    READY,
    STOPPING,
    WATCHDOG,
    ServiceManager,
    reloading,
    status,
)
from topod.shell.health import Health

EVERY_SECONDS: Final = 2.0
"""So often the line for people is looked at; it is told when it changed."""
STILL_SECONDS: Final = 120.0
"""The owner of the state may take so long for one turn. A slow disk is no reason to be ended."""
LINE_CHARS: Final = 500

log = logging.getLogger(__name__)


class Pulse:
    """When a task that goes round last began a turn."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def beat(self) -> None:
        """Note a turn."""
        self._at = time.monotonic()

    @property
    def still_seconds(self) -> float:
        """For how long there has been none."""
        return time.monotonic() - self._at


class Supervision:
    """Used from the event loop only."""

    def __init__(
        self,
        manager: ServiceManager,
        *,
        line: Callable[[], str],
        health: Health,
        pulse: Callable[[], Pulse | None],
    ) -> None:
        """`line` says how the daemon stands; `pulse` is that of the owner of the state, None: none is due."""
        self._manager = manager
        self._line = line
        self._health = health
        self._pulse = pulse
        self._owed = ""
        """What must still be told, however often it is not taken."""
        self._told = ""
        self._still = False
        watched = manager.watchdog_seconds
        self._every = EVERY_SECONDS if watched is None else min(EVERY_SECONDS, watched / 4)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Say that the daemon is ready, and from now on that it is alive."""
        if self._manager.listens:
            # Ended by the watchdog it says what every thread was at.
            faulthandler.enable()
            self.ready()
            self._task = asyncio.create_task(self._run(), name="supervision")

    async def stop(self) -> None:
        """Say that the daemon stops."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._manager.tell(STOPPING, status("stopping; jobs go on"))

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` ends that."""
        self._owe(reloading())

    def ready(self) -> None:
        """Say that the daemon is ready, with how it stands."""
        self._told = self._text()
        self._owe(f"{READY}\n{status(self._told)}")

    def _owe(self, lines: str) -> None:
        self._owed = f"{self._owed}\n{lines}".strip()
        if self._manager.tell(self._owed):
            self._owed = ""

    async def _run(self) -> None:
        while True:
            self._beat()
            await asyncio.sleep(self._every)

    def _beat(self) -> None:
        if self._owed:
            self._owe("")
        if self._lives():
            self._manager.tell(WATCHDOG)
        text = self._text()
        if text != self._told and self._manager.tell(status(text)):
            self._told = text

    def _lives(self) -> bool:
        pulse = self._pulse()
        still = pulse is not None and pulse.still_seconds > STILL_SECONDS
        if still and not self._still:
            log.error("daemon.stuck", extra={"detail": f"nothing is decided for {STILL_SECONDS:g} s"})
        self._still = still
        return not still

    def _text(self) -> str:
        text = "; ".join([self._line(), *self._health.notes])
        return text if len(text) <= LINE_CHARS else f"{text[: LINE_CHARS - 3]}..."
