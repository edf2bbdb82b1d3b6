"""The patrol: whatever the runtime does, somebody goes on looking."""

import asyncio
from typing import Any

from tests.integration.test_executor import Scripted
from topod.daemon.patrol import Patrol
from topod.errors import RuntimeUnavailableError
from topod.lifecycle import events as ev
from topod.shell.health import Health


class Heard:
    """A mailbox that only remembers."""

    def __init__(self) -> None:
        self.events: list[ev.Event] = []
        self.came = asyncio.Event()

    async def post(self, event: ev.Event) -> None:
        self.events.append(event)
        self.came.set()


class Clock:
    def now(self) -> float:
        return 1000.0


class Failing(Scripted):
    """A runtime whose first looks fail as the script says."""

    def observe(self) -> tuple[Any, ...]:
        answer: tuple[Any, ...] = self._play("observe", ())
        return answer


def test_neither_a_dead_engine_nor_a_defect_of_an_adapter_ends_the_patrol() -> None:
    async def play() -> None:
        heard, health = Heard(), Health()
        runtime = Failing(observe=[RuntimeUnavailableError("down"), ZeroDivisionError("a defect")])
        patrol = Patrol(runtime, heard, clock=Clock(), health=health)  # type: ignore[arg-type] # stands in
        patrol.start()
        async with asyncio.timeout(20):
            await heard.came.wait()
        assert heard.events == [ev.Recovered(containers=())]
        assert runtime.calls.count("observe") == 3
        assert not health.notes
        await patrol.stop()

    asyncio.run(play())
