"""The hosts of a simulated fleet: what is free on them and who holds the rest."""

from dataclasses import dataclass, field

from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Holder, Occupancy
from topod.model.request import AUTO, ResourceRequest
from topod.simulate.jobs import Run


@dataclass(slots=True, kw_only=True, eq=False)
class Machine:
    """One host."""

    number: int
    name: str
    tables: TopologyTables
    free_gpus: int = field(init=False)
    """As a mask, as `free_cpus`."""
    free_cpus: int = field(init=False)
    runs: dict[int, Run] = field(default_factory=dict)
    """By job, oldest first."""
    version: int = 0
    """Counts changes."""
    clear: list[float] = field(init=False)
    """By GPU: when the last one who was stopped there is gone."""

    def __post_init__(self) -> None:
        self.free_gpus, self.free_cpus = self.tables.all_gpus, self.tables.cpus
        self.clear = [0.0] * self.tables.count

    def take(self, run: Run) -> None:
        """Let a job have its GPUs and CPUs."""
        assert not run.gpus & ~self.free_gpus
        assert not run.cpus & ~self.free_cpus
        self.free_gpus &= ~run.gpus
        self.free_cpus &= ~run.cpus
        self.runs[run.job.ident] = run
        self.version += 1

    def leave(self, ident: int) -> Run:
        """Take them back."""
        run = self.runs.pop(ident)
        self.free_gpus |= run.gpus
        self.free_cpus |= run.cpus
        self.version += 1
        return run

    def lower(self, priority: int) -> list[Run]:
        """Return those who may be stopped for a job of that priority, oldest first."""
        return [run for run in self.runs.values() if may_stop(run, priority)]

    def clear_at(self, gpus: int, now: float) -> float:
        """Return when these GPUs are really free."""
        return max((at for gpu, at in enumerate(self.clear) if gpus >> gpu & 1), default=now)

    def occupancy(self, now: float) -> Occupancy:
        """Return who holds what, for the planner."""
        return Occupancy(
            holders=tuple(
                Holder(
                    job=str(ident),
                    priority=run.job.request.priority,
                    gpus=run.gpus,
                    cpus=CpuSet(run.cpus),
                    evictable=run.job.preemptible,
                    work=max(0, round((now - run.unsaved_since(now)) * 1000)) * run.gpus.bit_count(),
                )
                for ident, run in self.runs.items()
            )
        )


def may_stop(run: Run, priority: int) -> bool:
    """Say whether a job may be a victim of one of that priority."""
    return run.job.preemptible and run.job.request.priority < priority


def cpu_count(tables: TopologyTables, request: ResourceRequest) -> int:
    """Return for how many CPUs a scheduler that only counts asks; `auto`: a share for each GPU."""
    if request.cpus != AUTO:
        return request.cpus
    return request.gpus * tables.domains[0].share if tables.domains else 0


def bits(mask: int) -> list[int]:
    """Return the positions of the set bits, lowest first."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


def lowest(mask: int, count: int) -> int:
    """Return the mask of the `count` lowest set bits."""
    found = 0
    for _ in range(count):
        low = mask & -mask
        found |= low
        mask ^= low
    return found
