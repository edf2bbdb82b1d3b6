"""A model of kube-scheduler's default preemption (1.20 to 1.36 alike), with a kubelet that counts devices.

Source: kube-scheduler, `pkg/scheduler/framework/preemption`. Where no host fits: on each host all of lower
priority are taken away and, most important and oldest first, put back while the pod still fits. Hosts are
then compared by the highest victim, the number of victims (its sum adds 2^31 for each), the sum of priorities
and the start times. Devices come from the kubelet in the order of their numbers.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

from topod.model.request import ResourceRequest
from topod.simulate.jobs import Run
from topod.simulate.machines import Machine
from topod.simulate.policies.base import Placement, Uncached
from topod.simulate.policies.counting import fullest, given, lowest_first
from topod.simulate.policies.paper import reprieved

LEAST_CANDIDATES: Final = 100
CANDIDATES_SHARE: Final = 10
"""Of the hosts one in ten is looked at, and at least `LEAST_CANDIDATES`."""


class Kube(Uncached):
    """kube-scheduler. `seed` decides from which host on it looks."""

    name = "kube"

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed)  # noqa: S311 - a model of chance

    def place(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return the emptiest host where it fits (LeastAllocated)."""
        del now
        return fullest(machines, request, lowest_first, spread=True)

    def preempt(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return the best of the first hosts where stopping somebody helps."""
        del now
        most = max(len(machines) // CANDIDATES_SHARE, LEAST_CANDIDATES)
        offset = self._random.randrange(len(machines)) if machines else 0
        found: list[tuple[Machine, list[Run]]] = []
        for machine in (*machines[offset:], *machines[:offset]):
            victims = reprieved(machine, request)
            if victims is not None:
                found.append((machine, victims))
                if len(found) >= most:
                    break
        if not found:
            return None
        machine, victims = min(found, key=lambda one: _rank(one[1]))
        return given(machine, request, victims, lowest_first)


def _rank(victims: Sequence[Run]) -> tuple[float, ...]:
    levels = [run.job.request.priority for run in victims]
    top = max(levels)
    started = min(run.placed for run in victims if run.job.request.priority == top)
    return (top, sum(level + 2**31 for level in levels), len(victims), -started)
