"""Whether GPUs are really free before a job starts on them: `GpuProbe` for real and for emulated hosts."""

from topod.adapters.nvml_probe import NvmlProbe

TIMEOUT_SECONDS = 5.0


class EmulatedProbe:
    """An emulated GPU has no processes and no memory: it is free the moment its container is gone."""

    def busy(self, uuids: tuple[str, ...]) -> dict[str, str]:
        """Return nothing, whatever `uuids` are asked for."""
        del uuids
        return {}


class NvmlGpuProbe:
    """Asks NVML for processes and memory on the GPUs."""

    def __init__(self, probe: NvmlProbe) -> None:
        self._probe = probe

    def busy(self, uuids: tuple[str, ...]) -> dict[str, str]:
        """Return, for each GPU that is not free, why. Raises `ProbeError`; bounded by 5 s and a little."""
        return self._probe.busy(uuids, TIMEOUT_SECONDS)
