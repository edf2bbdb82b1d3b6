"""What the watch of the GPUs needs of the world."""

from typing import Protocol

from topod.discovery.gpufacts import LiveFacts, XidEvent
from topod.health.use import Who


class HealthProbe(Protocol):
    """Readings of the GPUs. Every method may block, ends within its bound, and raises `ProbeError`."""

    def live(self) -> LiveFacts:
        """Return one reading of all GPUs, within some seconds."""
        ...

    def events(self, wait_seconds: float) -> tuple[XidEvent, ...]:
        """Return the Xids since the last call, after waiting up to so long for a first one."""
        ...

    def identify(self, pid: int) -> Who:
        """Return who a process on a GPU is."""
        ...

    def close(self) -> None:
        """Look no more."""
        ...
