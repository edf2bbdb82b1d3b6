"""Removes what is no longer to be kept: output of attempts that are over, old jobs and old events.

It works in small steps, so that no decision waits for it. What it removes can no longer matter to any job.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topod.adapters.sqlite_store import SqliteStore
from topod.errors import StoreError
from topod.lifecycle.states import HOLDING, HostState
from topod.ports import Clock
from topod.shell.config_file import ConfigFile, LogsSection
from topod.shell.logs import Key

EVERY_SECONDS: Final = 600.0
PAUSE_SECONDS: Final = 1.0
"""Between two steps of one round."""
ROWS: Final = 500
FILES: Final = 200
"""How many of each one step removes at most."""
YOUNG_SECONDS: Final = 60.0
"""Output as new as that is left alone: its attempt may have begun after the state was looked at."""
DAY: Final = 86400.0
_NAME = re.compile(r"(\d+)\.(\d+)\.log")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    path: Path
    at: float
    bytes: int


class Housekeeper:
    """Looks every ten minutes. Used from the event loop only."""

    def __init__(
        self,
        store: SqliteStore,
        log_dir: Path,
        config: ConfigFile,
        *,
        state: Callable[[], HostState],
        clock: Clock,
    ) -> None:
        self._store = store
        self._log_dir = log_dir
        self._config = config
        self._state = state
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, at once."""
        self._task = asyncio.create_task(self._run(), name="housekeeping")

    def obey(self, config: ConfigFile) -> None:
        """Go by another configuration from the next step on."""
        self._config = config

    async def stop(self) -> None:
        """Begin no further step."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                more = await self.step()
            except (OSError, StoreError) as error:
                log.warning("housekeeping.failed", extra={Key.ERROR: str(error)})
                more = False
            await asyncio.sleep(PAUSE_SECONDS if more else EVERY_SECONDS)

    async def step(self) -> bool:
        """Remove a bounded part of what is too old or too much; return whether there may be more."""
        now = self._clock.now()
        in_use = _in_use(self._state())
        files = await asyncio.to_thread(self._remove_output, in_use, now)
        rows = 0
        if self._config.history.keep_days:
            before = now - self._config.history.keep_days * DAY
            rows = await asyncio.to_thread(self._store.forget, before, ROWS)
        if files or rows:
            log.info("housekeeping.done", extra={Key.TEXT: f"{files} outputs and {rows} rows removed"})
        return files >= FILES or rows >= ROWS

    def _remove_output(self, in_use: frozenset[tuple[int, int]], now: float) -> int:
        found = sorted(_outputs(self._log_dir, in_use), key=lambda one: (one.at, one.path.name))
        # By the clock of the file system, which is the machine's and not the daemon's.
        young = time.time() - YOUNG_SECONDS
        old = [one for one in found if one.at < young]
        doomed = _too_many(old, self._config.logs, sum(one.bytes for one in found), now)[:FILES]
        for one in doomed:
            one.path.unlink(missing_ok=True)
        return len(doomed)


def _in_use(state: HostState) -> frozenset[tuple[int, int]]:
    """Return the (job, attempt) pairs whose output may still grow."""
    pairs = {
        (job.id, job.attempt)
        for job in state.jobs.values()
        if job.state in HOLDING or job.handle is not None or job.frozen is not None
    }
    pairs |= {(job.id, left.attempt) for job in state.jobs.values() for left in job.leftovers}
    return frozenset(pairs)


def _outputs(folder: Path, in_use: frozenset[tuple[int, int]]) -> Iterator[_Output]:
    """Yield the output of every attempt that is over."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        name = _NAME.fullmatch(path.name)
        if name is None or (int(name[1]), int(name[2])) in in_use:
            continue
        state = path.stat()
        # Blocks, not the size: the beginning of a long log is a hole.
        yield _Output(path=path, at=state.st_mtime, bytes=state.st_blocks * 512)


def _too_many(old: list[_Output], kept: LogsSection, total: int, now: float) -> list[_Output]:
    """Return what must go, the oldest first: by age, and until the rest fits into `keep_bytes`."""
    doomed = []
    for one in old:
        aged = bool(kept.keep_days) and one.at < now - kept.keep_days * DAY
        if not aged and not (kept.keep_bytes and total > kept.keep_bytes):
            break
        doomed.append(one)
        total -= one.bytes
    return doomed
