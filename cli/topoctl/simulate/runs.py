"""Days under several policies and seeds, each in a process of its own as far as there are processors."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Final

from topoctl.simulate.figures import figures
from topod.errors import UsageError
from topod.flextopo.tables import TopologyTables
from topod.model.occupancy import Occupancy
from topod.model.plan import Plan
from topod.preemption.search import plan
from topod.simulate.engine import Day, Terms
from topod.simulate.generate import Batch, Online, generate
from topod.simulate.jobs import SimJob
from topod.simulate.machines import Machine
from topod.simulate.measures import Measures
from topod.simulate.policies.base import Policy
from topod.simulate.policies.exact import Exact
from topod.simulate.policies.kube import Kube
from topod.simulate.policies.nomad import Nomad
from topod.simulate.policies.paper import FlexTopo, Reprieve
from topod.simulate.policies.slurm import Slurm
from topod.simulate.worth import Speeds, Worth

POLICIES: Final[dict[str, Callable[[int], Policy]]] = {
    "topod": lambda _: Exact(),
    "topod-best-effort": lambda _: Exact(best_effort=True),
    "imp": lambda _: FlexTopo(),
    "exhaustive": lambda _: FlexTopo(exhaustive=True),
    "reprieve": lambda _: Reprieve(),
    "slurm": lambda _: Slurm(),
    "slurm-plain": lambda _: Slurm(bind=False),
    "kube": Kube,
    "nomad": Nomad,
}
Hosts = Sequence[tuple[str, TopologyTables]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What is simulated. The jobs are given, or made from parts with the seed of a run."""

    hosts: Hosts
    seconds: float
    stop_seconds: float
    worth: Worth
    jobs: tuple[SimJob, ...] | None = None
    online: tuple[Online, ...] = ()
    batch: tuple[Batch, ...] = ()

    def jobs_of(self, seed: int) -> Sequence[SimJob]:
        """Return the jobs of one run."""
        if self.jobs is not None:
            return [job for job in self.jobs if job.submit < self.seconds]
        return generate(self.seconds, self.online, self.batch, seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One day under one policy."""

    policy: str
    seed: int
    jobs: int
    events: int
    took: float
    """Seconds of the real clock."""
    figures: dict[str, float | None]
    measures: Measures


def live(plot: Plot, policy: str, seed: int) -> Result:
    """Live through one day."""
    machines = [Machine(number=at, name=name, tables=tables) for at, (name, tables) in enumerate(plot.hosts)]
    gpus = sum(machine.tables.count for machine in machines)
    measures = Measures(gpus=gpus, seconds=plot.seconds, speeds=Speeds(plot.worth))
    jobs = plot.jobs_of(seed)
    terms = Terms(until=plot.seconds, stop_seconds=plot.stop_seconds)
    day = Day(machines, POLICIES[policy](seed), terms, measures, timer=time.process_time)
    began = time.perf_counter()
    measures.unplaced(day.live(jobs))
    took = time.perf_counter() - began
    measures.events = day.events
    return Result(
        policy=policy,
        seed=seed,
        jobs=len(jobs),
        events=day.events,
        took=took,
        figures=figures(measures),
        measures=measures,
    )


def live_all(plot: Plot, policies: Sequence[str], seeds: Sequence[int], workers: int) -> Iterator[Result]:
    """Yield the days as they are done."""
    days = [(policy, seed) for seed in seeds for policy in policies]
    if workers == 1 or len(days) == 1:
        for policy, seed in days:
            yield live(plot, policy, seed)
        return
    # Forked, so that the tables are built once; the pool is made before any thread is.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_know, initargs=(plot,)) as pool:
        futures: list[Future[Result]] = [pool.submit(_live, policy, seed) for policy, seed in days]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_plot: list[Plot] = []


def _know(plot: Plot) -> None:
    _plot[:] = [plot]


def _live(policy: str, seed: int) -> Result:
    return live(_plot[0], policy, seed)


def check_possible(plot: Plot, asked: Sequence[tuple[str, object]]) -> None:
    """Raise `UsageError` for a part whose jobs no host of the fleet could ever run."""
    from topod.model.request import ResourceRequest

    kinds = list(dict.fromkeys(tables for _, tables in plot.hosts))
    for part, request in asked:
        assert isinstance(request, ResourceRequest)
        if not any(isinstance(plan(tables, Occupancy(), request), Plan) for tables in kinds):
            raise UsageError(
                f"{part}: no host of the fleet ever has {request.gpus} GPUs with affinity {request.affinity}",
                hint='ask for less, or policy = "best-effort"',
            )
