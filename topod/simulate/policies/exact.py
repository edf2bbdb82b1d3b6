"""topod: the product's planner on each host, and its decision over all of them."""

from collections.abc import Sequence
from dataclasses import replace

from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.fleet.pick.cost import STEP
from topod.fleet.pick.fleet import Fleet
from topod.fleet.pick.groups import change, rank
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Holder, Occupancy
from topod.model.plan import Plan
from topod.model.request import Affinity, Policy, ResourceRequest
from topod.preemption.search import plan
from topod.simulate.machines import Machine
from topod.simulate.policies.base import Placement

FEW: int = 3
"""So many hosts are asked one by one."""
_LINK_BITS = 32

Key = tuple[object, ...]
Found = tuple[Key, int, int]
"""What decides between hosts; the GPUs and CPUs there."""


class Exact:
    """The exact decision. With `best_effort` every job takes the best affinity there is."""

    def __init__(self, *, best_effort: bool = False) -> None:
        self.name = "topod-best-effort" if best_effort else "topod"
        self._best_effort = best_effort
        self._fleet = Fleet()
        self._put: dict[int, tuple[object, ...]] = {}
        self._known: dict[tuple[TopologyTables, int, int, ResourceRequest], Found | None] = {}
        self._requests: dict[ResourceRequest, ResourceRequest] = {}

    def place(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return the place of least cost on what is free."""
        del now
        asked = self._asked(request)
        best: tuple[Key, Machine, Found] | None = None
        for machine in machines:
            if machine.free_gpus.bit_count() < asked.gpus:
                continue
            found = self._on_free(machine.tables, machine.free_gpus, machine.free_cpus, asked)
            if found is not None:
                key = (*found[0], machine.name)
                if best is None or key < best[0]:
                    best = key, machine, found
        if best is None:
            return None
        _, machine, (_, gpus, cpus) = best
        return Placement(machine=machine, gpus=gpus, cpus=cpus)

    def preempt(self, request: ResourceRequest, machines: Sequence[Machine], now: float) -> Placement | None:
        """Return the place of least cost with the victims that it needs."""
        asked = self._asked(request)
        if len(machines) > FEW:
            return self._over_all(asked, machines, now)
        best: tuple[Key, Placement] | None = None
        for machine in machines:
            here = plan(machine.tables, machine.occupancy(now), asked)
            if isinstance(here, Plan):
                placement = _placement(machine, here)
                freed = sum(machine.runs[victim].gpus for victim in placement.victims)
                key = (
                    *_key(machine.tables, machine.free_gpus, machine.free_cpus, here, asked, freed=freed),
                    machine.name,
                )
                if best is None or key < best[0]:
                    best = key, placement
        return None if best is None else best[1]

    def _asked(self, request: ResourceRequest) -> ResourceRequest:
        if not self._best_effort:
            return request
        if request not in self._requests:
            self._requests[request] = replace(request, policy=Policy.BEST_EFFORT)
        return self._requests[request]

    def look(self, machines: Sequence[Machine], now: float) -> None:
        """Put into the fleet what has changed."""
        for machine in machines:
            shown = (machine.version, *(run.unsaved_since(now) for run in machine.runs.values()))
            if self._put.get(machine.number) != shown:
                self._fleet.put(_snapshot(machine, now), machine.tables)
                self._put[machine.number] = shown

    def _over_all(
        self, request: ResourceRequest, machines: Sequence[Machine], now: float
    ) -> Placement | None:
        chosen = self._fleet.preempt(request, now)
        if chosen is None:
            return None
        machine = next(machine for machine in machines if machine.name == chosen.host)
        return _placement(machine, chosen.plan)

    def _on_free(
        self, tables: TopologyTables, gpus: int, cpus: int, request: ResourceRequest
    ) -> Found | None:
        """Return what the planner takes of what is free, in terms that compare over hosts (`fleet_key`)."""
        key = (tables, gpus, cpus, request)
        if key in self._known:
            return self._known[key]
        taken = Holder(
            job="-",
            priority=0,
            gpus=tables.all_gpus & ~gpus,
            cpus=CpuSet(tables.cpus & ~cpus),
            evictable=False,
        )
        here = plan(tables, Occupancy(holders=(taken,)), request)
        found = None
        if isinstance(here, Plan):
            chosen = sum(1 << i for i in here.gpus)
            found = _key(tables, gpus, cpus, here, request), chosen, here.cpus.mask
        self._known[key] = found
        return found


def _key(
    tables: TopologyTables,
    free_gpus: int,
    free_cpus: int,
    here: Plan,
    request: ResourceRequest,
    *,
    freed: int = 0,
) -> Key:
    """Return what a plan costs, as `fleet.pick.cost.fleet_key` compares hosts, up to their names."""
    cost, gpus = here.cost, sum(1 << i for i in here.gpus)
    links: Key = (-(cost.weakest_link << _LINK_BITS | cost.link_sum),)
    left = rank(change(tables, free_gpus, (free_gpus | freed) & ~gpus) if gpus else ((), (), ()))
    links_first = request.gpus > 1 and request.affinity is not Affinity.ANY
    return (
        cost.victims,
        cost.affinity_steps * STEP + cost.cpu_affinity_steps,
        cost.stranded_gpus,
        cost.work_lost,
        *(links + left if links_first else left + links),
        free_gpus.bit_count(),
        free_cpus.bit_count(),
    )


def _placement(machine: Machine, here: Plan) -> Placement:
    return Placement(
        machine=machine,
        gpus=sum(1 << i for i in here.gpus),
        cpus=here.cpus.mask,
        victims=tuple(int(victim) for victim in here.victims),
    )


def _snapshot(machine: Machine, now: float) -> HostSnapshot:
    return HostSnapshot(
        host=machine.name,
        generation=machine.version,
        holders=tuple(
            HeldBy(
                job=str(ident),
                priority=run.job.request.priority,
                gpus=run.gpus,
                cpus=CpuSet(run.cpus),
                evictable_from=0.0 if run.job.preemptible else None,
                protection="" if run.job.preemptible else "not preemptible",
                work_since=run.unsaved_since(now),
                work_gpus=run.gpus.bit_count(),
            )
            for ident, run in machine.runs.items()
        ),
    )
