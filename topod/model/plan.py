"""The planner's answers: a plan with its cost, or a refusal with its reason."""

from dataclasses import dataclass

from topod.model.cpuset import CpuSet
from topod.model.request import Affinity, CpuAffinity


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a plan costs, in the order in which costs are compared.

    `weakest_link` and `link_sum` are pair scores (higher is better): SYS 10, NODE 20, PHB 30, PXB 40,
    PIX 50, NVLink 100 for each bonded link; both 0 for fewer than two GPUs.
    `left` is the sizes of the NVLink, PCIe and NUMA groups among the GPUs that stay free, largest first.
    For affinity `any` and for one GPU, `left` is compared before the links.
    """

    victims: tuple[tuple[int, int], ...] = ()
    """(priority, number of victims), highest priority first; only levels that have victims."""
    affinity_steps: int = 0
    cpu_affinity_steps: int = 0
    stranded_gpus: int = 0
    """GPUs that victims lose and nobody takes."""
    work_lost: int = 0
    """GPU-milliseconds."""
    weakest_link: int = 0
    link_sum: int = 0
    left: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = ((), (), ())
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """GPUs (by index), CPUs and victims (job names, in the order of the occupancy) of least cost."""

    gpus: tuple[int, ...]
    cpus: CpuSet
    victims: tuple[str, ...]
    affinity: Affinity
    """The level achieved: the first on the ladder, from the requested one down, that the GPUs satisfy."""
    cpu_affinity: CpuAffinity
    satisfied: bool
    """True when both requested levels are achieved."""
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why no plan exists now. `reason` is one sentence; `details` one line per domain or limit looked at."""

    reason: str
    details: tuple[str, ...] = ()
