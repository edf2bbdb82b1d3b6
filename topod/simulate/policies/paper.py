"""The algorithms of the paper (FlexTopo, arXiv 2411.11560) and its blind baseline.

After the description of the authors' own scheduler: `reprieve` removes all of lower priority and puts back
one after the other while the job still fits; `imp` looks at sets of victims of growing size and takes, of the
first size that works, the set whose members lie closest together; `exhaustive` looks at all sizes.
Feasibility is that of FlexTopo's filter: enough free cores on one NUMA node, else on one socket. GPUs are
counted. The host then gives out what is free as well as it can (`BestOfFree`), which is kinder to these
algorithms than what is known of them.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

from topod.model.request import Policy, ResourceRequest
from topod.simulate.jobs import Run
from topod.simulate.machines import Machine, cpu_count
from topod.simulate.policies.base import Placement, Uncached
from topod.simulate.policies.counting import BestOfFree, fits, fullest, given

SAME_NUMA, SAME_SOCKET, ACROSS = 15, 12, 7
"""The score T of a set of victims."""
MAX_VICTIMS = 16
"""On one host: the exhaustive search looks at 2 to this power sets."""


class Reprieve(Uncached):
    """The baseline of the paper: blind to topology."""

    name = "reprieve"

    def __init__(self) -> None:
        self._devices = BestOfFree()

    def place(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return the fullest host where it fits by numbers."""
        del now
        return fullest(machines, request, self._devices)

    def preempt(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return the best candidate: lowest highest priority, least sum, fewest, youngest."""
        del now
        best: tuple[tuple[float, ...], Machine, list[Run]] | None = None
        for machine in machines:
            victims = reprieved(machine, request)
            if victims is None:
                continue
            levels = [run.job.request.priority for run in victims]
            top = max(levels)
            started = min(run.placed for run in victims if run.job.request.priority == top)
            key = (top, sum(levels), len(levels), -started, machine.number)
            if best is None or key < best[0]:
                best = key, machine, victims
        return None if best is None else given(best[1], request, best[2], self._devices)


def reprieved(machine: Machine, request: ResourceRequest) -> list[Run] | None:
    """Return who is left when all others were put back; None: nobody has to go, or it does not help."""
    lower = machine.lower(request.priority)
    if not lower or not fits(machine, request, lower):
        return None
    victims = list(lower)
    for run in sorted(lower, key=lambda run: (-run.job.request.priority, run.placed, run.job.ident)):
        victims.remove(run)
        if not fits(machine, request, victims):
            victims.append(run)
    return victims


class FlexTopo(Uncached):
    """The paper's own search: with IMP, or exhaustive."""

    def __init__(self, *, exhaustive: bool = False) -> None:
        self.name = "exhaustive" if exhaustive else "imp"
        self._exhaustive = exhaustive
        self._devices = BestOfFree()
        self.looked = 0
        """How many sets of victims were tried: the cost of the search."""

    def place(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return the fullest host where it fits and passes the filter."""
        del now
        there = [machine for machine in machines if passes(machine, request, ())]
        return fullest(there, request, self._devices)

    def preempt(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return the candidate with the highest score; of equals the first found."""
        del now
        best: tuple[int, Machine, Sequence[Run]] | None = None
        for machine in machines:
            for victims in self._candidates(machine, request):
                score = spread_score(machine, victims)
                if best is None or score > best[0]:
                    best = score, machine, victims
        return None if best is None else given(best[1], request, best[2], self._devices)

    def _candidates(self, machine: Machine, request: ResourceRequest) -> Iterator[Sequence[Run]]:
        lower = machine.lower(request.priority)
        if not lower or not passes(machine, request, lower):
            return
        for size in range(1, min(len(lower), MAX_VICTIMS) + 1):
            any_found = False
            for victims in combinations(lower, size):
                self.looked += 1
                if passes(machine, request, victims):
                    any_found = True
                    yield victims
            if any_found and not self._exhaustive:
                return


def passes(machine: Machine, request: ResourceRequest, victims: Sequence[Run]) -> bool:
    """Return what the filters say: GPUs and cores by number, and with `guaranteed` cores by place."""
    if not fits(machine, request, victims):
        return False
    if request.policy is not Policy.GUARANTEED:
        return True
    free = machine.free_cpus
    for run in victims:
        free |= run.cpus
    wanted = cpu_count(machine.tables, request)
    topology = machine.tables.topology
    areas = [node.cpus.mask for node in topology.numa_nodes] or [machine.tables.cpus]
    if any((free & area).bit_count() >= wanted for area in areas):
        return True
    return any((free & socket).bit_count() >= wanted for socket in sockets(machine))


def sockets(machine: Machine) -> list[int]:
    """Return the CPUs of each socket as masks."""
    found = [socket.cpus.mask for socket in machine.tables.topology.sockets]
    return found or [machine.tables.cpus]


def spread_score(machine: Machine, victims: Sequence[Run]) -> int:
    """Return T: how close together the victims' cores lie. Who holds none counts by nothing."""
    cpus = 0
    for run in victims:
        cpus |= run.cpus
    nodes = sum(bool(cpus & node.cpus.mask) for node in machine.tables.topology.numa_nodes)
    across = sum(bool(cpus & socket) for socket in sockets(machine))
    return SAME_NUMA - 3 * (nodes > 1) - 5 * (across > 1)
