"""NVML of this machine; tests that ask for it are skipped where there is no GPU."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from topod.adapters.nvml_probe import NvmlProbe
from topod.errors import ProbeError

PATIENT = 60.0


@pytest.fixture(scope="module")
def probe() -> Iterator[NvmlProbe]:
    if not Path("/proc/driver/nvidia/version").exists() and shutil.which("nvidia-smi") is None:
        pytest.skip("no NVIDIA driver on this machine")
    probe = NvmlProbe()
    try:
        if not probe.snapshot(PATIENT).gpus:
            pytest.skip("no NVIDIA GPU on this machine")
        yield probe
    except ProbeError as error:
        pytest.skip(f"no NVIDIA GPU can be read: {error}")
    finally:
        probe.close()
