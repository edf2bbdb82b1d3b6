"""Discovery of the machine that this process runs on, with the real sources."""

import platform
from pathlib import Path

from topod.adapters.nvidia_smi import topology_matrix
from topod.adapters.nvml_probe import NvmlProbe
from topod.adapters.sysfs_reader import this_machine
from topod.discovery.discover import Discovery, discover


def discover_host(
    *,
    nvml: NvmlProbe | None = None,
    sysfs_root: Path = Path("/"),
    nvidia_smi: str | None = "nvidia-smi",
    name: str | None = None,
    timeout: float = 15.0,
) -> Discovery:
    """Return this host, after about `timeout` seconds at the latest; raises nothing.

    `nvml` is the probe that goes on to watch the GPUs; without one, one is started and ended here.
    `sysfs_root` holds `sys` and `proc`. `nvidia_smi` is the program to ask for a second opinion, None to ask
    none. The name is the host name unless given.
    """
    probe = NvmlProbe() if nvml is None else nvml
    try:
        return discover(
            name=name or platform.node() or "localhost",
            nvml=probe.snapshot,
            matrix=None if nvidia_smi is None else lambda left: topology_matrix(left, program=nvidia_smi),
            machine=lambda _left: this_machine(sysfs_root),
            timeout=timeout,
        )
    finally:
        if nvml is None:
            probe.close()
