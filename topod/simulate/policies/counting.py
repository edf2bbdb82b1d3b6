"""What schedulers that count GPUs and CPUs have in common: does it fit, and which devices it then gets.

A scheduler of that kind picks a host and victims by numbers; the devices are given out on the host
afterwards, by somebody who knows only what is free there. `Devices` is that somebody.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Holder, Occupancy
from topod.model.plan import Plan
from topod.model.request import CpuAffinity, Policy, ResourceRequest
from topod.preemption.search import plan
from topod.simulate.jobs import Run
from topod.simulate.machines import Machine, cpu_count, lowest
from topod.simulate.policies.base import Placement

Devices = Callable[[TopologyTables, int, int, ResourceRequest], tuple[int, int] | None]
"""From the free GPUs and CPUs (masks) to those that a job gets; None: it cannot be given any."""


def fits(machine: Machine, request: ResourceRequest, freed: Sequence[Run] = ()) -> bool:
    """Say whether there are enough GPUs and CPUs once these are gone."""
    gpus = machine.free_gpus.bit_count() + sum(run.gpus.bit_count() for run in freed)
    if gpus < request.gpus:
        return False
    cpus = machine.free_cpus.bit_count() + sum(run.cpus.bit_count() for run in freed)
    return cpus >= cpu_count(machine.tables, request)


def lowest_first(
    tables: TopologyTables, gpus: int, cpus: int, request: ResourceRequest
) -> tuple[int, int] | None:
    """Give out the GPUs and the CPUs with the lowest numbers."""
    wanted = cpu_count(tables, request)
    if gpus.bit_count() < request.gpus or cpus.bit_count() < wanted:
        return None
    return lowest(gpus, request.gpus), lowest(cpus, wanted)


class BestOfFree:
    """Gives out the best aligned GPUs and CPUs of what is free: kinder than any kubelet is."""

    def __init__(self) -> None:
        self._known: dict[tuple[TopologyTables, int, int, ResourceRequest], tuple[int, int] | None] = {}

    def __call__(
        self, tables: TopologyTables, gpus: int, cpus: int, request: ResourceRequest
    ) -> tuple[int, int] | None:
        """Return the exact best of what is free, by affinity; no affinity is insisted on."""
        key = (tables, gpus, cpus, request)
        if key not in self._known:
            taken = Holder(
                job="-",
                priority=0,
                gpus=tables.all_gpus & ~gpus,
                cpus=CpuSet(tables.cpus & ~cpus),
                evictable=False,
            )
            asked = replace(request, policy=Policy.BEST_EFFORT, cpus=cpu_count(tables, request))
            here = plan(tables, Occupancy(holders=(taken,)), asked)
            if not isinstance(here, Plan):
                here = plan(tables, Occupancy(holders=(taken,)), replace(asked, cpu_affinity=CpuAffinity.ANY))
            self._known[key] = (
                (sum(1 << i for i in here.gpus), here.cpus.mask) if isinstance(here, Plan) else None
            )
        return self._known[key]


def given(
    machine: Machine, request: ResourceRequest, victims: Sequence[Run], devices: Devices
) -> Placement | None:
    """Return what a job gets on a host once the victims are gone; None: the devices cannot be given out."""
    gpus, cpus = machine.free_gpus, machine.free_cpus
    for run in victims:
        gpus, cpus = gpus | run.gpus, cpus | run.cpus
    found = devices(machine.tables, gpus, cpus, request)
    if found is None:
        return None
    return Placement(
        machine=machine, gpus=found[0], cpus=found[1], victims=tuple(run.job.ident for run in victims)
    )


def fullest(
    machines: Sequence[Machine], request: ResourceRequest, devices: Devices, *, spread: bool = False
) -> Placement | None:
    """Place a job where it fits on the host with the fewest free GPUs, with `spread` the most."""
    sign = -1 if spread else 1
    there = sorted(
        (machine for machine in machines if fits(machine, request)),
        key=lambda machine: (sign * machine.free_gpus.bit_count(), machine.number),
    )
    for machine in there:
        placement = given(machine, request, (), devices)
        if placement is not None:
            return placement
    return None
