"""A host's line to its coordinator without a network: messages come after a while, or never, or twice."""

import asyncio
from collections.abc import Callable

from tests.simulation.chance import World
from topod.protocol.link import AnyFromHost, AnyToHost
from topod.protocol.link_codec import decode_from_host, encode_to_host


class SimWire:
    """A `topod.ports.Wire` for one life of topod. `hear` gets what the host says, unless the line is `cut`."""

    def __init__(
        self, world: World, hear: Callable[[AnyFromHost], None], cut: Callable[[], bool] = lambda: False
    ) -> None:
        self._cut = cut
        self._world = world
        self._hear = hear
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._closed = False
        self.connected = True
        self.trouble = ""
        self.moved = 0

    async def send(self, data: bytes) -> None:
        message = decode_from_host(data)
        self._later(lambda: self._hear(message))

    def say(self, message: AnyToHost) -> None:
        """Say something to the host."""
        data = encode_to_host(message)
        self._later(lambda: None if self._closed else self._inbox.put_nowait(data))

    async def recv(self) -> bytes:
        return await self._inbox.get()

    def move_on(self) -> None:
        self.moved += 1

    def close(self) -> None:
        self._closed = True

    def _later(self, act: Callable[[], None]) -> None:
        chance, rng = self._world.chance, self._world.chance.rng
        if self._cut() or chance.strikes("link.loses"):
            return
        slow = 30.0 if chance.strikes("link.slow") else 0.1
        self._world.after(rng.uniform(0.0, slow), act)
        if chance.strikes("link.repeats"):
            self._world.after(rng.uniform(0.0, 60.0), act)
