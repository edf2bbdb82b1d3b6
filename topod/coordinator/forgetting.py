"""Forgets jobs that ended long ago, and old events: a fleet's database must not grow for ever."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from topod.errors import StoreError
from topod.ports import Clock
from topod.shell.logs import Key

EVERY_SECONDS: Final = 600.0
PAUSE_SECONDS: Final = 1.0
"""Between two steps of one round: no commit waits for more than one."""
ROWS: Final = 500
"""So many jobs, and as many events, one step forgets at most."""
DAY: Final = 86400.0

log = logging.getLogger(__name__)


async def forget_old(forget: Callable[[float, int], int], keep_days: int, clock: Clock) -> None:
    """Look every ten minutes, for ever. `forget` takes a moment and a number, and returns how many rows went.

    Does nothing where `keep_days` is 0.
    """
    while keep_days:
        try:
            rows = await asyncio.to_thread(forget, clock.now() - keep_days * DAY, ROWS)
        except StoreError as error:
            log.warning("housekeeping.failed", extra={Key.ERROR: str(error)})
            rows = 0
        if rows:
            log.info("housekeeping.done", extra={Key.TEXT: f"{rows} rows removed"})
        await asyncio.sleep(PAUSE_SECONDS if rows >= ROWS else EVERY_SECONDS)
