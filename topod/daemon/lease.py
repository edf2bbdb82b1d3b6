"""Until when a host may run what must not run elsewhere, by a clock that cannot be set."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from topod.lifecycle.events import Event, LeaseEnded

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
LOOK_SECONDS: Final = 1.0
"""A machine that slept has not heard its timers."""


def steady() -> float:
    """Return seconds since the machine booted, the time it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return what names this run of the machine; empty where the system does not say."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


class Lease:
    """When (`steady`) the lease ends, and the file that keeps that for the next topod of this boot.

    The file never says more than is so: what cannot be written down is over for a topod that comes back.
    """

    def __init__(self, path: Path, boot: str) -> None:
        """Read what an earlier topod left; what is damaged, or of another boot, is no lease."""
        self.path: Final = path
        self._boot = boot
        self.until: float = self._read()

    def renew(self, until: float) -> None:
        """Let the lease end later; never earlier."""
        if until <= self.until:
            return
        self.until = until
        beside = self.path.with_name(f"{self.path.name}.new")
        try:
            beside.write_text(json.dumps({"boot": self._boot, "until": until}))
            beside.replace(self.path)
        except OSError:
            # The next renewal tries again. Until then a restart finds an earlier end, which is safe.
            return

    def left(self, now: float) -> float:
        """Return how many seconds of it are left; 0 when it is over."""
        return max(0.0, self.until - now)

    def _read(self) -> float:
        try:
            found = json.loads(self.path.read_text())
            until = float(found["until"])
            known = bool(self._boot) and found["boot"] == self._boot
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0
        return until if known else 0.0


class LeaseWatch:
    """Has what may be placed elsewhere stopped when the lease ends, whether or not anybody talks to topod."""

    def __init__(
        self, lease: Lease, post: Callable[[Event], Awaitable[None]], now: Callable[[], float] = steady
    ) -> None:
        self._lease = lease
        self._post = post
        self._now = now
        self._over = False
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Look once, before anything else happens: what an earlier topod left may not even be started."""
        await self._look()

    def start(self) -> None:
        """Go on looking."""
        self._task = asyncio.create_task(self._watch(), name="lease")

    async def stop(self) -> None:
        """Stop to look; the file of the lease stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            left = self._lease.left(self._now())
            await asyncio.sleep(min(left, LOOK_SECONDS) if left else LOOK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        over = not self._lease.left(self._now())
        if over and not self._over:
            await self._post(LeaseEnded())
        self._over = over
