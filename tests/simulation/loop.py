"""An event loop on which no time passes: the daemon's own code runs, one callback at a time, on virtual time.

Blocking calls that the daemon would send to a thread are carried out at a moment that the seed chooses, and
their results arrive at a later one; so calls overlap and overtake one another as threads do.
"""

import asyncio
import heapq
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Any, Final

from tests.simulation.chance import World

CLOSE_TRIES: Final = 20


class LaterError(BaseException):
    """Raised by a fake call: what it does, it does so many seconds from now."""

    def __init__(self, seconds: float, act: Callable[[], Any]) -> None:
        super().__init__()
        self.seconds = seconds
        self.act = act


class VirtualLoop(asyncio.BaseEventLoop):
    """One life of the daemon. `each_step` is called after every callback that ran."""

    def __init__(self, world: World, each_step: Callable[[], None]) -> None:
        super().__init__()
        self._world = world
        self._each_step = each_step
        self._alive = True
        self.set_exception_handler(self._complain)

    def time(self) -> float:
        return self._world.now

    def _run_once(self) -> None:
        """Run one callback, or let time pass until the next thing happens."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        ready: Any = self._ready  # type: ignore[attr-defined]
        while scheduled and (scheduled[0].cancelled() or scheduled[0].when() <= self._world.now):
            handle = heapq.heappop(scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]
            if not handle.cancelled():
                ready.append(handle)
        if ready:
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()
                self._each_step()
            return
        due, timer = self._world.due, scheduled[0].when() if scheduled else None
        assert due is not None or timer is not None, "nothing will ever happen again"
        if timer is None or (due is not None and due <= timer):
            self._world.happen()
            self._each_step()
        else:
            self._world.now = max(self._world.now, timer)

    def run_in_executor(  # type: ignore[override] # as asyncio's own, without its overloads
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.create_future()
        rng = self._world.chance.rng

        def carry_out(work: Callable[[], Any]) -> None:
            self._world.takes = 0.0
            try:
                result, error = work(), None
            except LaterError as later:
                # What the world was asked to do it does, whether or not topod lives to hear of it.
                self._world.after(later.seconds, partial(carry_out, later.act))
                return
            except Exception as problem:  # noqa: BLE001 - it is the caller's, as with a real thread
                result, error = None, problem
            if not self._alive:
                return
            self.call_later(self._world.takes + rng.choice((0.0, 0.001, 0.02)), deliver, result, error)

        def deliver(result: Any, error: Exception | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.call_later(rng.choice((0.0, 0.0005, 0.005)), carry_out, lambda: func(*args))
        return future

    def kill(self) -> None:
        """End the daemon as SIGKILL does: nothing of it runs any more, not even its `finally`s count."""
        self._alive = False
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine: Any = task.get_coro()
            for _ in range(CLOSE_TRIES):
                # One that awaits while it is closed goes on to its next `await`; one that wants a lock then
                # finds no loop to wait on.
                with suppress(RuntimeError, AttributeError):
                    coroutine.close()
                    break
        self.close()

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if self._alive:
            self._world.violated(f"the loop complains: {context.get('message')} {context.get('exception')!r}")

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """The loop never sleeps."""
