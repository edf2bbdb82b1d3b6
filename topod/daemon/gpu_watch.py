"""Watches the GPUs: their health, what runs on them unasked, and what dead jobs left on them.

Rule: it only posts events, and only on change; what follows from them the core decides. A probe that hangs or
fails twice in a row makes the host blind: running jobs go on, no job with GPUs starts. Nothing is ever waited
for without a bound, and nobody is stopped because a look failed.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from topod.daemon.mailbox import Mailbox
from topod.daemon.owners import Owners
from topod.discovery.gpufacts import LiveFacts, XidEvent
from topod.errors import ProbeError, TopodError
from topod.health.assessor import Assessor, Look
from topod.health.idle import IdleClock
from topod.health.probe import HealthProbe
from topod.health.use import Who
from topod.lifecycle import events as ev
from topod.ports import Clock
from topod.shell.health import Health
from topod.shell.logs import Key

AGAIN_SECONDS: Final = 1.0
"""How soon a suspicion, or a failed look, is looked into once more."""
EVENTS_WAIT_SECONDS: Final = 5.0
EVENTS_RETRY_SECONDS: Final = (1.0, 60.0)
"""First and longest pause before a driver that tells no events is asked again."""

LIVE_SECONDS: Final = 2.0
"""How often the GPUs are looked at while somebody follows what happens on the host ..."""
FOLLOWED_SECONDS: Final = 30.0
"""... which is so long after the last question."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class GpuWatch:
    """Looks at the GPUs every `every_seconds`, and at once after an Xid. Used from the event loop only."""

    def __init__(
        self,
        probe: HealthProbe,
        mailbox: Mailbox,
        owners: Owners,
        assessor: Assessor,
        *,
        clock: Clock,
        health: Health,
        every_seconds: float,
        seen_first: Callable[[], None],
    ) -> None:
        """`seen_first` is called once, in a thread, after the events of the first good look are durable."""
        self._probe = probe
        self._mailbox = mailbox
        self._owners = owners
        self._assessor = assessor
        self._clock = clock
        self._health = health
        self._every = every_seconds
        self._seen_first: Callable[[], None] | None = seen_first
        self._xids: list[XidEvent] = []
        self._wake = asyncio.Event()
        self._idle = IdleClock()
        self._failures = 0
        self._noted: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(3, "gpus")

    def start(self) -> None:
        """Begin to look."""
        for work, name in ((self._looking(), "gpu watch"), (self._listening(), "xid watch")):
            self._tasks.append(asyncio.create_task(work, name=name))

    async def stop(self) -> None:
        """Look no more; a call that hangs is left behind."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _looking(self) -> None:
        while True:
            again = True
            try:
                again = await self._look()
            except ProbeError as error:
                await self._failed(error)
            except TopodError as error:
                log.warning("gpus.unassessed", extra={Key.ERROR: error.message})
            except Exception:
                # A defect here must cost the watch one look, not the daemon its eyes.
                log.exception("gpus.unassessed")
            self._wake.clear()
            every = self._pause()
            try:
                async with asyncio.timeout(min(AGAIN_SECONDS, every) if again else every):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _pause(self) -> float:
        """Return how long until the next look; who watches the host live wants to see its GPUs live."""
        followed = time.monotonic() - self._health.followed_at < FOLLOWED_SECONDS
        return min(self._every, LIVE_SECONDS) if followed else self._every

    async def _look(self) -> bool:
        """Take one look; return whether the next one should come soon."""
        live = await self._in_thread(self._probe.live)
        self._failures = 0
        self._health.well("gpus")
        self._health.live = live
        users = await self._users(live)
        xids = tuple(self._xids)
        seen = Look(at=self._clock.now(), live=live, users=users, xids=xids)
        verdict = self._assessor.look(self._mailbox.state, seen)
        for event in verdict.events:
            await self._mailbox.ask(event)
        # Only now: what could not be made durable is told again at the next look.
        del self._xids[: len(xids)]
        if self._mailbox.state.blind is not None:
            await self._mailbox.ask(ev.GpusSeen())
        self._note(dict(verdict.notes or {}))
        self._health.idle_since = self._idle.look(self._mailbox.state, live, seen.at)
        if self._seen_first is not None:
            await self._in_thread(self._seen_first)
            self._seen_first = None
        return verdict.again

    async def _users(self, live: LiveFacts) -> dict[int, Who] | None:
        """Return who is on the GPUs; None when it cannot be known which processes are of jobs."""
        pids = {process.pid for gpu in live.gpus for process in gpu.processes or ()}
        if not self._mailbox.recovered:
            return None
        owned = await self._in_thread(self._owners.of, frozenset(pids), self._mailbox.state)
        if owned is None:
            return None
        return {pid: await self._in_thread(self._owners.identify, pid, owned) for pid in sorted(pids)}

    async def _failed(self, error: ProbeError) -> None:
        self._failures += 1
        self._health.trouble("gpus", f"their health is unknown: {error.message}")
        # Once may be a hiccup of the driver: the worker process is a fresh one at the second time.
        if self._failures >= 2 and self._mailbox.state.blind is None:
            await self._mailbox.post(ev.GpusSeen(problem=error.message))

    def _note(self, notes: dict[str, str]) -> None:
        for name in self._noted - notes.keys():
            self._health.well(name)
        for name, text in notes.items():
            self._health.trouble(name, text)
        self._noted = set(notes)

    async def _listening(self) -> None:
        pause, longest = EVENTS_RETRY_SECONDS
        told = ""
        while True:
            try:
                found = await self._in_thread(self._probe.events, EVENTS_WAIT_SECONDS)
            except ProbeError as error:
                if error.message != told:
                    log.warning("gpus.without_events", extra={Key.ERROR: error.message})
                    told = error.message
            except Exception:
                log.exception("gpus.without_events")
            else:
                pause, told = EVENTS_RETRY_SECONDS[0], ""
                if found:
                    self._xids.extend(found)
                    self._wake.set()
                continue
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
