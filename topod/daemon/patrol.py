"""Watches the runtime: recovers the state from it at the start, and finds what its event stream missed."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from topod.daemon.mailbox import Mailbox
from topod.errors import TopodError
from topod.lifecycle import events as ev
from topod.ports import Clock, ContainerRuntime, Exit
from topod.shell.health import Health
from topod.shell.logs import Key

EVERY_SECONDS: Final = 15.0
RETRY_SECONDS: Final = (0.2, 5.0)

log = logging.getLogger(__name__)
T = TypeVar("T")


class Patrol:
    """Looks at the runtime now and then. Used from the event loop only."""

    def __init__(self, runtime: ContainerRuntime, mailbox: Mailbox, *, clock: Clock, health: Health) -> None:
        self._runtime = runtime
        self._mailbox = mailbox
        self._clock = clock
        self._health = health
        self._task: asyncio.Task[None] | None = None
        self._posts: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin: recovery first, as soon as the runtime answers."""
        self._task = asyncio.create_task(self._run(), name="patrol")

    async def stop(self) -> None:
        """Look no more."""
        tasks = [*self._posts, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        # Watched before it is looked at: an exit between the two is told twice rather than never.
        await self._watch()
        seen = await self._until_answered(self._runtime.observe)
        await self._mailbox.post(ev.Recovered(containers=seen))
        self._health.runtime_text = await self._until_answered(self._runtime.describe)
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            at = self._clock.now()
            seen = await self._until_answered(self._runtime.observe)
            await self._mailbox.post(ev.Swept(containers=seen, at=at))

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()

        def on_exit(exit_: Exit) -> None:
            # Called from any thread, and possibly while the loop is being closed.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._exited, exit_)

        await self._until_answered(partial(self._runtime.watch, on_exit))

    async def _until_answered(self, ask: Callable[[], T]) -> T:
        """Return what the runtime answers, however often it must be asked."""
        pause, longest = RETRY_SECONDS
        while True:
            try:
                answer = await asyncio.to_thread(ask)
            except TopodError as error:
                trouble = error.message
            except Exception as error:
                # Not even a defect of an adapter ends the patrol: nobody would look any more.
                log.exception("patrol.failed")
                trouble = f"unexpected {type(error).__name__}; see the log of topod"
            else:
                self._health.well("runtime")
                return answer
            self._health.trouble("runtime", trouble)
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)

    def _exited(self, exit_: Exit) -> None:
        log.debug("container.exited", extra={Key.JOB: exit_.job, Key.TEXT: str(exit_)})
        event = ev.Exited(
            job=exit_.job,
            attempt=exit_.attempt,
            exit_code=exit_.exit_code,
            out_of_memory=exit_.out_of_memory,
            started_at=exit_.started_at,
        )
        task = asyncio.create_task(self._mailbox.post(event))
        self._posts.add(task)
        task.add_done_callback(self._posts.discard)
