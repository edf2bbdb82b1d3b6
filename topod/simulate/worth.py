"""What placement is worth: a small model from links and NUMA distance to speed. A model, not a measurement.

A job on several GPUs runs at the speed of its worst link, as a share of what NVLink would give; CPUs away
from its GPUs cost another share. What is told is the speed beside the best that the same host has for so many
GPUs.
"""

from dataclasses import dataclass, field

import numpy as np

from topod.flextopo.tables import PAIR_SCORES, TopologyTables
from topod.model.links import LinkClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """The parameters: shares of the speed over NVLink."""

    links: dict[LinkClass, float]
    remote_cpus: float
    """Of the speed with CPUs beside the GPUs."""


@dataclass(slots=True)
class Speeds:
    """The speed of placements by one set of parameters."""

    worth: Worth
    _best: dict[tuple[TopologyTables, int], float] = field(default_factory=dict)

    def kept(self, tables: TopologyTables, gpus: int, *, beside: bool) -> float:
        """Return which share of the best speed on that host GPUs (a mask) have; `beside`: so are its CPUs."""
        count = gpus.bit_count()
        speed = self._speed(tables, gpus) if count > 1 else 1.0
        key = tables, count
        if key not in self._best:
            masks = np.flatnonzero(tables.sizes == count).tolist() if count > 1 else []
            self._best[key] = max((self._speed(tables, mask) for mask in masks), default=1.0)
        return speed / self._best[key] * (1.0 if beside else self.worth.remote_cpus)

    def _speed(self, tables: TopologyTables, gpus: int) -> float:
        weakest, _ = tables.link_quality(gpus)
        classes = [kind for kind, score in PAIR_SCORES.items() if score == weakest]
        return self.worth.links[classes[0] if classes else LinkClass.NVLINK]
