"""Watches the CPUs for processes that topod did not start and that somebody bound to a few of them."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from topod.adapters.cpu_look import CpuLook
from topod.daemon.mailbox import Mailbox
from topod.daemon.owners import Owners
from topod.errors import TopodError
from topod.health.cpu_use import CpuWatch
from topod.health.rules import HealthRules
from topod.lifecycle import events as ev
from topod.model.cpuset import CpuSet
from topod.shell.logs import Key

log = logging.getLogger(__name__)
T = TypeVar("T")
NOBODY: Final = frozenset({os.getpid()})


class ForeignCpuWatch:
    """Looks every `every_seconds` and posts on change. Used from the event loop only."""

    def __init__(
        self, mailbox: Mailbox, owners: Owners, rules: HealthRules, *, pinnable: CpuSet, every_seconds: float
    ) -> None:
        """`pinnable`: the CPUs that topod may give to jobs."""
        self._mailbox = mailbox
        self._owners = owners
        self._rules = rules
        self._look = CpuLook()
        self._watch = CpuWatch(rules, pinnable, self._look.baseline())
        self._every = every_seconds
        self._task: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(1, "cpus")

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run(), name="cpu watch")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        while True:
            try:
                if self._mailbox.recovered:
                    await self._once()
            except TopodError as error:
                log.warning("cpus.unassessed", extra={Key.ERROR: error.message})
            except Exception:
                # A defect here must cost the watch one look, not the daemon its eyes.
                log.exception("cpus.unassessed")
            await asyncio.sleep(self._every)

    async def _once(self) -> None:
        now = time.monotonic()
        loads = await self._in_thread(self._look.look, now, self._rules.foreign_cpu_share)
        state = self._mailbox.state
        owned = await self._in_thread(self._owners.of, frozenset(load.who.pid for load in loads), state)
        if owned is None:
            return  # whose processes these are nobody knows just now
        alive = frozenset(await self._in_thread(self._look.pids))
        seen = self._watch.look(loads, NOBODY | owned.keys(), alive, now)
        if dict(seen) != dict(self._mailbox.state.foreign_cpus):
            await self._mailbox.ask(ev.ForeignCpusSeen(cpus=seen))

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
