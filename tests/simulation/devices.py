"""The GPUs as a driver sees them: processes, what dead ones left behind, errors, and a driver that dies."""

from typing import Final

from tests.simulation.chance import World
from tests.simulation.engine import Engine
from tests.simulation.loop import LaterError
from topod.discovery.gpufacts import GpuLive, GpuProcess, LiveFacts, XidEvent
from topod.errors import ProbeError
from topod.health.use import Who
from topod.model.topology import Topology

SLOW_SECONDS: Final = 5.0
GIB: Final = 1 << 30
STRANGER: Final = 4711
"""The PID of somebody else's process; one more for each GPU."""


class Devices:
    """`GpuProbe` and `HealthProbe` over the true state of the devices."""

    def __init__(self, world: World, engine: Engine, topology: Topology) -> None:
        self._world = world
        self._engine = engine
        self._topology = topology
        self._xids: list[XidEvent] = []
        self.foreign: dict[str, float] = {}
        """GPU UUID to the moment until which somebody else's process is on it."""
        self.lost: dict[str, float] = {}
        """GPU UUID to the moment until which it is off the bus."""
        self.errors: dict[str, int] = {}
        """GPU UUID to the memory errors that it had since the driver was loaded."""
        self.dead_until = 0.0

    def raise_xid(self, uuid: str, xid: int) -> None:
        """Let the driver report an error, once."""
        self._xids.append(XidEvent(uuid=uuid, xid=xid))

    def recover(self) -> None:
        """The driver works again, the GPUs were reset, who was there foreign goes."""
        self.dead_until = 0.0
        self.foreign.clear()
        self.lost.clear()
        self.errors.clear()

    # --- `GpuProbe` -----------------------------------------------------------------------------------------

    def busy(self, uuids: tuple[str, ...]) -> dict[str, str]:
        """Return who is on the GPUs. Raises `ProbeError`."""
        self._answer()
        found: dict[str, str] = {}
        for uuid in uuids:
            if self._memory_left(uuid):
                found[uuid] = "9.1 GiB in use by no process"
            for pid in self._pids(uuid):
                found[uuid] = f"pid {pid} holds 22.1 GiB"
        return found

    # --- `HealthProbe` --------------------------------------------------------------------------------------

    def live(self) -> LiveFacts:
        """Return one reading of all GPUs. Raises `ProbeError`."""
        self._answer()
        return LiveFacts(gpus=tuple(self._reading(gpu.uuid) for gpu in self._topology.gpus))

    def events(self, wait_seconds: float) -> tuple[XidEvent, ...]:
        """Return the errors since the last call. Raises `ProbeError`."""

        def taken() -> tuple[XidEvent, ...]:
            self._answer()
            found, self._xids = tuple(self._xids), []
            return found

        raise LaterError(wait_seconds, taken)

    def identify(self, pid: int) -> Who:
        if pid >= STRANGER:
            return Who(pid=pid, started_at=1.0, name="python", user="mallory")
        box = self._engine.past[pid - 1]
        return Who(pid=pid, started_at=box.began, name="train", user="alice", left_by=box.job)

    def close(self) -> None:
        """Nothing is open."""

    def _answer(self) -> None:
        if self._world.now < self.dead_until:
            raise ProbeError("NVML: driver not loaded")
        if self._world.chance.strikes("nvml.slow"):
            self._world.takes = SLOW_SECONDS
            raise ProbeError("NVML does not answer within 5 s")

    def _reading(self, uuid: str) -> GpuLive:
        if self._world.now < self.lost.get(uuid, 0.0):
            return GpuLive(uuid=uuid, problem="GPU is lost")
        pids = self._pids(uuid)
        used = 22 * GIB * len(pids) + 9 * GIB * self._memory_left(uuid)
        return GpuLive(
            uuid=uuid,
            memory_bytes=80 * GIB,
            memory_used_bytes=used,
            processes=tuple(GpuProcess(pid=pid, memory_bytes=22 * GIB) for pid in pids),
            ecc_uncorrected=self.errors.get(uuid, 0),
        )

    def _memory_left(self, uuid: str) -> bool:
        return self._world.now < self._engine.memory_left.get(uuid, 0.0)

    def _pids(self, uuid: str) -> list[int]:
        pids = [box.pid for box in self._engine.live() if uuid in box.allocation.gpus]
        if self._world.now < self.foreign.get(uuid, 0.0):
            index = next(gpu.index for gpu in self._topology.gpus if gpu.uuid == uuid)
            pids.append(STRANGER + index)
        return pids
