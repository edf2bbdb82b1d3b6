"""A model of Slurm's preemption (select/cons_tres, `_run_now`), with whole GPUs as gres.

Running jobs of lower priority are taken out of a copy of the cluster one at a time, lowest first and of these
the oldest, until the request fits somewhere. The one that made it fit goes to the head of the list, and all
begins again, `preempt_reorder_count` more times. Who was taken out in the last pass on the host that is used
is stopped, needed or not. Devices then come by socket, those with the lowest numbers first.

`slurm` asks for all GPUs on one socket where the job wants them together, with
`preempt_reorder_count=8,strict_order` and NUMA nodes as sockets: Slurm at its best. `slurm-plain` is Slurm as
it comes.
"""

from collections.abc import Callable, Sequence

from topod.flextopo.tables import TopologyTables
from topod.model.request import Affinity, Policy, ResourceRequest
from topod.simulate.jobs import Run
from topod.simulate.machines import Machine, cpu_count, lowest
from topod.simulate.policies.base import Placement, Uncached
from topod.simulate.policies.counting import Devices, fits, given, lowest_first

REORDER, STRICT_REORDER = 1, 8


class Slurm(Uncached):
    """Slurm; with `bind` GPUs that belong together are asked for on one socket."""

    def __init__(self, *, bind: bool = True) -> None:
        self.name = "slurm" if bind else "slurm-plain"
        self._bind = bind
        self._passes = (STRICT_REORDER if bind else REORDER) + 1

    def place(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return the fullest host where it fits (the order of cons_tres: fewest free first)."""
        del now
        order = sorted(machines, key=lambda machine: (machine.free_gpus.bit_count(), machine.number))
        for machine in order:
            if fits(machine, request):
                placement = given(machine, request, (), self._devices(request))
                if placement is not None:
                    return placement
        return None

    def preempt(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return where the passes end."""
        del now
        devices = self._devices(request)
        queue = sorted(
            ((machine, run) for machine in machines for run in machine.lower(request.priority)),
            key=lambda entry: (entry[1].job.request.priority, entry[1].placed, entry[1].job.ident),
        )
        found: Placement | None = None
        for _ in range(self._passes):
            done = _take_out(queue, request, devices)
            if done is None:
                break
            found, at = done
            last = queue.pop(at)
            queue.insert(0, last)
            if not self._bind:
                # Without strict_order those whose GPUs the place shares come next, by how many.
                queue[1:] = sorted(queue[1:], key=_by_overlap(found))
        return found

    def _devices(self, request: ResourceRequest) -> Devices:
        together = request.gpus > 1 and request.affinity is not Affinity.ANY
        return (
            _one_socket if self._bind and together and request.policy is Policy.GUARANTEED else lowest_first
        )


def _by_overlap(found: Placement) -> Callable[[tuple[Machine, Run]], int]:
    def key(entry: tuple[Machine, Run]) -> int:
        return 0 if entry[0] is found.machine else 1

    return key


def _take_out(
    queue: Sequence[tuple[Machine, Run]],
    request: ResourceRequest,
    devices: Devices,
) -> tuple[Placement, int] | None:
    """Return where the request fits first, and which entry made it fit."""
    out: dict[int, list[Run]] = {}
    for at, (machine, run) in enumerate(queue):
        gone = out.setdefault(machine.number, [])
        gone.append(run)
        if fits(machine, request, gone):
            placement = given(machine, request, gone, devices)
            if placement is not None:
                return placement, at
    return None


def _one_socket(
    tables: TopologyTables, gpus: int, cpus: int, request: ResourceRequest
) -> tuple[int, int] | None:
    """Give out GPUs of one socket; NUMA nodes count as sockets where the job wants to be on one."""
    wanted = cpu_count(tables, request)
    if cpus.bit_count() < wanted:
        return None
    for group in _groups(tables, request):
        here = gpus & group
        if here.bit_count() >= request.gpus:
            return lowest(here, request.gpus), lowest(cpus, wanted)
    return None


def _groups(tables: TopologyTables, request: ResourceRequest) -> list[int]:
    """Return the GPUs of each socket as Slurm sees sockets, as masks."""
    topology = tables.topology
    nodes: dict[int, int] = {}
    for gpu in topology.gpus:
        if gpu.numa_node is not None:
            nodes[gpu.numa_node] = nodes.get(gpu.numa_node, 0) | 1 << gpu.index
    as_nodes = sorted(nodes.values(), key=lambda mask: mask & -mask)
    if request.affinity is not Affinity.SOCKET and any(mask.bit_count() >= request.gpus for mask in as_nodes):
        return as_nodes
    cpus = {node.id: node.cpus.mask for node in topology.numa_nodes}
    sockets = [
        sum(mask for node, mask in nodes.items() if cpus.get(node, 0) & socket.cpus.mask)
        for socket in topology.sockets
    ]
    return sorted((mask for mask in sockets if mask), key=lambda mask: mask & -mask) or [tables.all_gpus]
