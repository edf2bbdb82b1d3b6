"""The GPUs as a driver sees them: processes, memory that dead ones left, and a driver that stops answering."""

from typing import Final

from tests.simulation.chance import World
from tests.simulation.engine import Engine
from topod.errors import ProbeError

SLOW_SECONDS: Final = 5.0


class Devices:
    """`GpuProbe` over the true state of the devices."""

    def __init__(self, world: World, engine: Engine) -> None:
        self._world = world
        self._engine = engine
        self.foreign: dict[str, float] = {}
        """GPU UUID to the moment until which somebody else's process is on it."""
        self.dead_until = 0.0

    def busy(self, uuids: tuple[str, ...]) -> dict[str, str]:
        """Return who is on the GPUs. Raises `ProbeError`."""
        world = self._world
        if world.now < self.dead_until:
            raise ProbeError("NVML: GPU is lost")
        if world.chance.strikes("nvml.slow"):
            world.takes = SLOW_SECONDS
            raise ProbeError("NVML does not answer within 5 s")
        found: dict[str, str] = {}
        for uuid in uuids:
            if world.now < self._engine.memory_left.get(uuid, 0.0):
                found[uuid] = "9.1 GiB in use by no process"
            if world.now < self.foreign.get(uuid, 0.0):
                found[uuid] = "pid 4711 (python) holds 22.1 GiB"
            for box in self._engine.live():
                if uuid in box.allocation.gpus:
                    found[uuid] = f"pid of {box.handle}"
        return found

    def recover(self) -> None:
        """The driver works again; who was there foreign goes."""
        self.dead_until = 0.0
        self.foreign.clear()
