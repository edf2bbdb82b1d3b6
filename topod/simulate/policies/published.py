"""The paper's search step by step as its authors' code does it: what `paper.FlexTopo` chooses, at its price.

Each set of victims gets a fresh copy of the host: its pods, and the graph of its cores with who uses them.
The victims are taken out core by core, and all filters run again: GPUs and cores by number, then FlexTopo's
walk from the sockets down to the cores. Only for measuring what that costs; `paper.FlexTopo` does it on bit
masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from topod.model.request import Policy, ResourceRequest
from topod.simulate.jobs import Run
from topod.simulate.machines import Machine, bits, cpu_count
from topod.simulate.policies.base import Placement, Uncached
from topod.simulate.policies.counting import BestOfFree, fullest, given
from topod.simulate.policies.paper import MAX_VICTIMS, passes, spread_score


@dataclass(slots=True)
class Node:
    """A host as the scheduler's cache has it."""

    gpus: int
    """How many there are."""
    pods: dict[int, tuple[int, list[int]]]
    """By job: how many GPUs, and its cores."""
    cores: dict[int, dict[str, str]]
    """The attributes of each core's vertex: `status`, `usedBy`."""
    edges: dict[str, list[str]]
    """What contains what: `socket-0` its NUMA nodes, these their cores."""

    def copy(self) -> "Node":
        """Return a copy of its own, with the attributes of every core."""
        cores = {core: dict(attributes) for core, attributes in self.cores.items()}
        return Node(gpus=self.gpus, pods=dict(self.pods), cores=cores, edges=self.edges)

    def remove(self, ident: int) -> None:
        """Take a pod out, core by core."""
        _, cores = self.pods.pop(ident)
        for core in cores:
            self.cores[core]["status"], self.cores[core]["usedBy"] = "free", ""


class Published(Uncached):
    """IMP, or the exhaustive search, as published."""

    def __init__(self, *, exhaustive: bool = False) -> None:
        self.name = "exhaustive, as published" if exhaustive else "imp, as published"
        self._exhaustive = exhaustive
        self._devices = BestOfFree()

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
            wanted = cpu_count(machine.tables, request)
            lower, node = machine.lower(request.priority), _node(machine)
            if not lower or not _feasible(node, lower, request, wanted):
                continue
            for size in range(1, min(len(lower), MAX_VICTIMS) + 1):
                found = [
                    victims
                    for victims in combinations(lower, size)
                    if _feasible(node, victims, request, wanted)
                ]
                for victims in found:
                    score = spread_score(machine, victims)
                    if best is None or score > best[0]:
                        best = score, machine, victims
                if found and not self._exhaustive:
                    break
        return None if best is None else given(best[1], request, best[2], self._devices)


def _node(machine: Machine) -> Node:
    topology = machine.tables.topology
    cores = {cpu: {"status": "free", "usedBy": ""} for cpu in bits(machine.tables.cpus)}
    pods = {}
    for ident, run in machine.runs.items():
        mine = bits(run.cpus)
        pods[ident] = run.gpus.bit_count(), mine
        for core in mine:
            cores[core] = {"status": "used", "usedBy": str(ident)}
    edges: dict[str, list[str]] = {}
    for node in topology.numa_nodes:
        edges[f"numa-{node.id}"] = [str(cpu) for cpu in bits(node.cpus.mask)]
    for socket in topology.sockets:
        edges[f"socket-{socket.id}"] = [
            f"numa-{node.id}" for node in topology.numa_nodes if node.cpus.mask & socket.cpus.mask
        ]
    return Node(gpus=machine.tables.count, pods=pods, cores=cores, edges=edges)


def _feasible(node: Node, victims: Sequence[Run], request: ResourceRequest, wanted: int) -> bool:
    """Run all filters on a fresh copy without the victims."""
    node = node.copy()
    for run in victims:
        node.remove(run.job.ident)
    if node.gpus - sum(gpus for gpus, _ in node.pods.values()) < request.gpus:
        return False
    if sum(core["status"] == "free" for core in node.cores.values()) < wanted:
        return False
    if request.policy is not Policy.GUARANTEED:
        return True
    numa = {
        name: sum(node.cores[int(core)]["status"] == "free" for core in inside)
        for name, inside in node.edges.items()
        if name.startswith("numa")
    }
    if any(free >= wanted for free in numa.values()):
        return True
    return any(
        sum(numa[inner] for inner in inside) >= wanted
        for name, inside in node.edges.items()
        if name.startswith("socket")
    )
