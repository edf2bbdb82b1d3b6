"""What a site says about the health and the use of its GPUs and CPUs: values from the configuration file."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from topod.health.xids import CRITICAL

IGNORED_PROCESSES = ("nv-hostengine", "dcgm-exporter", "nvidia-persiste*", "nvidia-cuda-mps*")
"""Names as the kernel cuts them, to 15 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRules:
    """When a GPU is unfit, and whose use of it counts. Times in seconds."""

    critical_xids: frozenset[int] = CRITICAL
    ignore_xids: frozenset[int] = frozenset()
    xid_clear_seconds: float = 300.0
    """How long a GPU must be idle until an Xid that clears by itself is forgotten."""
    max_uncorrected: int = 0
    """Uncorrectable memory errors since the driver was loaded that are borne; below 0: any number."""
    requeue: bool = False
    """Whether the job on a GPU that turned unhealthy goes back into the queue."""
    foreign_gpus: bool = True
    ignore_processes: tuple[str, ...] = IGNORED_PROCESSES
    """Names (`*` stands for anything) of processes whose presence on a GPU does not count."""
    foreign_cpu_share: float = 0.25
    """CPUs that a pinned process must use on average to count; 0.25 is a quarter of one CPU."""
    cpu_calm_seconds: float = 60.0
    """How long it must be quieter than that until its CPUs are handed out again."""

    def is_critical(self, xid: int) -> bool:
        """Say whether a GPU with this Xid is unfit."""
        return xid in self.critical_xids and xid not in self.ignore_xids

    def ignores(self, process: str) -> bool:
        """Say whether a process of this name never counts as foreign use."""
        return any(fnmatchcase(process, pattern) for pattern in self.ignore_processes)
