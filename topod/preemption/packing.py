"""Cost keys 1 to 4 as one number, so that whole plans compare, add up and fill arrays as numbers do."""

from collections.abc import Sequence

import numpy as np

from topod.flextopo.affinity import IntTable
from topod.preemption.sets import GpuSets
from topod.preemption.victims import Candidate

_STEP_BITS = 5  # 6 levels of GPU affinity (3 bits), then 3 of CPU affinity (2 bits)
_FITS = 57  # bits of a cost in an int64, so that NEVER and sums of it over 16 regions fit too


class Packing:
    """Cost keys 1 to 4 in one number, key 1 highest: (weight, steps missed, stranded GPUs, work lost)."""

    __slots__ = ("_gpus", "_spoils", "_work", "dtype", "never", "prices")

    def __init__(self, candidates: Sequence[Candidate], spoils: int = 0) -> None:
        self._work = sum(c.holder.work for c in candidates).bit_length()
        lost = sum(c.gpus.bit_count() + c.holder.elsewhere for c in candidates)
        self._gpus = (lost + spoils.bit_count()).bit_length()
        self._spoils = spoils
        weight = sum(c.weight for c in candidates).bit_length()
        bits = weight + _STEP_BITS + self._gpus + self._work
        self.dtype = np.dtype(np.int64) if bits <= _FITS else np.dtype(object)
        self.never = 1 << max(_FITS + 1, bits + 1)
        """More than any cost."""
        self.prices = tuple(self._price(c) for c in candidates)
        """What each candidate adds as a further victim: all the GPUs it loses are stranded."""

    def _price(self, candidate: Candidate) -> int:
        high = candidate.weight << _STEP_BITS + self._gpus + self._work
        lost = candidate.gpus.bit_count() + candidate.holder.elsewhere
        return high + (lost << self._work) + candidate.holder.work

    def stranded(self, cost: int) -> int:
        """Return the stranded GPUs of a cost: those of this host at most."""
        return cost >> self._work & (1 << self._gpus) - 1

    def stranded_of(self, costs: IntTable) -> IntTable:
        """Return the stranded GPUs of each of these costs."""
        return (costs >> self._work & (1 << self._gpus) - 1).astype(np.int64)

    def steps(self, steps: int) -> int:
        """Return what missing CPU affinity by `steps` adds."""
        return steps << self._gpus + self._work

    def own(self, sets: GpuSets) -> IntTable:
        """Return the cost of each set without further victims, its CPU steps left out."""
        gpus, work = self._gpus, self._work
        cost = sets.sums([self.prices[i] for i, _ in sets.holders]).astype(self.dtype)
        taken = sum(c.gpus for _, c in sets.holders) | self._spoils
        cost += self._spoils.bit_count() << work
        cost -= sets.tables.sizes[sets.masks & taken].astype(self.dtype) << work
        cost += sets.family.steps[sets.rows].astype(self.dtype) << 2 + gpus + work
        return cost
