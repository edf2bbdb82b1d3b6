"""What a job asks of a host: GPUs with an affinity, CPUs beside them, at a priority."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal


class Affinity(StrEnum):
    """How close the GPUs of a job must be; the ladder from closest to none.

    `nvlink`: NCCL can run a ring over NVLink alone. `pcie`: every pair PXB, PIX or NVLink.
    """

    NVLINK_ALL = "nvlink-all"
    NVLINK = "nvlink"
    PCIE = "pcie"
    NUMA = "numa"
    SOCKET = "socket"
    ANY = "any"


LADDER: Final = tuple(Affinity)
"""Affinity levels, closest first: a best-effort job goes down this ladder."""


class CpuAffinity(StrEnum):
    """Where pinned CPUs must lie relative to the job's GPUs."""

    NUMA = "numa"
    SOCKET = "socket"
    ANY = "any"


CPU_LADDER: Final = tuple(CpuAffinity)


class Policy(StrEnum):
    """Whether a job waits for its affinity or runs without it."""

    GUARANTEED = "guaranteed"
    BEST_EFFORT = "best-effort"


AUTO: Final = "auto"
"""As a number of CPUs: the fair share of its GPUs' NUMA nodes."""

PRIORITIES: Final = {"low": 100, "normal": 500, "high": 1000}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequest:
    """Resources on one host. `gpus` counts whole GPUs; `cpus` counts hardware threads (0 = shared pool)."""

    gpus: int = 0
    affinity: Affinity = Affinity.ANY
    policy: Policy = Policy.GUARANTEED
    cpus: int | Literal["auto"] = 0
    cpu_affinity: CpuAffinity = CpuAffinity.NUMA
    priority: int = PRIORITIES["normal"]

    def __post_init__(self) -> None:
        if self.gpus < 0:
            raise ValueError(f"gpus must be 0 or more: {self.gpus}")
        if self.cpus != AUTO and self.cpus < 0:
            raise ValueError(f"cpus must be `auto` or 0 or more: {self.cpus}")
