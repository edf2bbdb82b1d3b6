"""A model of Nomad's preemption for devices (`PreemptForDevice`, 1.1 and later alike).

Who may be stopped is at least 10 points lower. On a host, level by level from the lowest and in the order of
start, allocations are added until what they hold and what is free suffices; then, the largest holders first,
those are kept that suffice by themselves: what is free is forgotten. Hosts are compared by the sum of the
different priorities of the victims. Instances come at random.
"""

from collections.abc import Sequence
from math import ceil, log2
from random import Random
from typing import Final

from topod.flextopo.tables import TopologyTables
from topod.model.request import ResourceRequest
from topod.simulate.jobs import Run
from topod.simulate.machines import Machine, bits, cpu_count, lowest
from topod.simulate.policies.base import Placement, Uncached
from topod.simulate.policies.counting import fits, fullest, given

LEAST_GAP: Final = 10
LEAST_HOSTS: Final = 2


class Nomad(Uncached):
    """Nomad. `seed` decides in which order it looks at hosts, and which instances a job gets."""

    name = "nomad"

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed)  # noqa: S311 - a model of chance

    def place(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return the fullest host where it fits (bin packing)."""
        del now
        return fullest(machines, request, self._devices)

    def preempt(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return the host of the least sum of priorities among the few that are looked at."""
        del now
        few = max(LEAST_HOSTS, ceil(log2(len(machines)))) if machines else 0
        found: list[tuple[tuple[float, int], Machine, list[Run]]] = []
        for machine in self._random.sample(machines, len(machines)):
            victims = stopped(machine, request)
            if victims is not None:
                levels = {run.job.request.priority for run in victims}
                found.append(((max(levels) + sum(levels) / max(levels), machine.number), machine, victims))
                if len(found) >= few:
                    break
        if not found:
            return None
        _, machine, victims = min(found, key=lambda one: one[0])
        return given(machine, request, victims, self._devices)

    def _devices(
        self, tables: TopologyTables, gpus: int, cpus: int, request: ResourceRequest
    ) -> tuple[int, int] | None:
        wanted = cpu_count(tables, request)
        if gpus.bit_count() < request.gpus or cpus.bit_count() < wanted:
            return None
        return sum(1 << gpu for gpu in self._random.sample(bits(gpus), request.gpus)), lowest(cpus, wanted)


def stopped(machine: Machine, request: ResourceRequest) -> list[Run] | None:
    """Return the allocations that would be stopped on a host; None: it does not help."""
    lower = sorted(
        (run for run in machine.lower(request.priority - LEAST_GAP + 1) if run.gpus),
        key=lambda run: (run.job.request.priority, run.placed, run.job.ident),
    )
    free, held, taken = machine.free_gpus.bit_count(), 0, []
    for run in lower:
        if free + held >= request.gpus:
            break
        taken.append(run)
        held += run.gpus.bit_count()
    if free + held < request.gpus:
        return None
    kept: list[Run] = []
    count = 0
    for run in sorted(taken, key=lambda run: -run.gpus.bit_count()):
        if count >= request.gpus:
            break
        kept.append(run)
        count += run.gpus.bit_count()
    return kept if fits(machine, request, kept) else None
