"""How the GPUs are: `GpuProbe` and `HealthProbe` for real and for emulated hosts."""

import threading
from collections.abc import Callable

from topod.adapters.emulated_faults import FaultsFile
from topod.adapters.host_processes import busy_for, identify
from topod.adapters.nvml_probe import NvmlProbe
from topod.discovery.gpufacts import LiveFacts, XidEvent
from topod.health.use import Who

EMULATED_LOOK_SECONDS = 0.2


class EmulatedProbe:
    """An emulated GPU is well, and free when its container is gone, unless its faults say otherwise."""

    def __init__(self, faults: FaultsFile, ignores: Callable[[str], bool]) -> None:
        """`ignores` says of which name a process on a GPU does not count."""
        self._faults = faults
        self._ignores = ignores
        self._closed = threading.Event()

    def busy(self, uuids: tuple[str, ...]) -> dict[str, str]:
        """Return, for each GPU that is not free, why. Raises `ProbeError` when the faults say so."""
        return busy_for(self._faults.live(), uuids, self.identify, self._ignores)

    def live(self) -> LiveFacts:
        """Return one reading of all GPUs. Raises `ProbeError` when the faults say so."""
        return self._faults.live()

    def events(self, wait_seconds: float) -> tuple[XidEvent, ...]:
        """Return the Xids that were added to the file, looking at it a few times a second."""
        waited = 0.0
        while waited <= wait_seconds:
            found = self._faults.events()
            if found or self._closed.wait(EMULATED_LOOK_SECONDS):
                return found
            waited += EMULATED_LOOK_SECONDS
        return ()

    def identify(self, pid: int) -> Who:
        """Return who a process is, as the file says, else as the machine says."""
        named = self._faults.named(pid)
        return identify(pid) if named is None else Who(pid=pid, name=named[0], user=named[1])

    def close(self) -> None:
        """Look no more."""
        self._closed.set()


class NvmlGpuProbe:
    """Asks NVML for processes, memory and health; waits for its events in a worker process of its own."""

    def __init__(
        self,
        probe: NvmlProbe,
        timeout: float,
        ignores: Callable[[str], bool],
        events: NvmlProbe | None = None,
    ) -> None:
        """`timeout`: how many seconds NVML may take for one answer.

        `ignores` says of which name a process on a GPU does not count.
        """
        self._probe = probe
        self._ignores = ignores
        self._timeout = timeout
        self._events = NvmlProbe() if events is None else events
        self._unwell: set[str] = set()
        self._listen_anew = threading.Event()

    def busy(self, uuids: tuple[str, ...]) -> dict[str, str]:
        """Return, for each GPU that is not free, why. Raises `ProbeError`; bounded by the timeout."""
        return self._probe.busy(uuids, self._timeout, ignores=self._ignores)

    def live(self) -> LiveFacts:
        """Return one reading of all GPUs. Raises `ProbeError`; bounded by the timeout and a little."""
        live = self._probe.live(self._timeout)
        unwell = {gpu.uuid for gpu in live.gpus if gpu.problem is not None}
        if self._unwell - unwell:
            self._listen_anew.set()  # who listens registered without the GPUs that are back now
        self._unwell = unwell
        return live

    def events(self, wait_seconds: float) -> tuple[XidEvent, ...]:
        """Return the Xids since the last call. Raises `ProbeError`; bounded by wait and timeout."""
        if self._listen_anew.is_set():
            self._listen_anew.clear()
            self._events.renew()
        return self._events.events(self._timeout, wait_seconds=wait_seconds)

    def identify(self, pid: int) -> Who:
        """Return who a process is."""
        return identify(pid)

    def close(self) -> None:
        """End the worker processes."""
        self._probe.close()
        self._events.close()
