"""What this machine really has, as far as the runtimes must know it."""

import os
from pathlib import Path

from topod.model.cpuset import CpuSet

_SYS = Path("/sys/devices/system")


def online_cpus() -> CpuSet:
    """Return the CPUs of this machine that are online."""
    return _read(_SYS / "cpu/online") or usable_cpus()


def usable_cpus() -> CpuSet:
    """Return the CPUs that this process, and so its children, may run on."""
    return CpuSet.of(os.sched_getaffinity(0))


def memory_nodes() -> tuple[int, ...]:
    """Return the NUMA nodes that have memory; (0,) where the kernel does not say."""
    return tuple(_read(_SYS / "node/has_memory") or CpuSet.of([0]))


def _read(path: Path) -> CpuSet | None:
    try:
        return CpuSet.parse(path.read_text().strip())
    except (OSError, ValueError):
        return None
