"""The documented scenario of the paper: hosts of 8 RTX 4090, 2 sockets, 8 NUMA nodes; 5,000 preemptions.

The mix of instances is not published, so several are run. In each, batch jobs keep the fleet full and
services of high priority come and go. What is compared is asked in the same states: those of a fleet that the
blind baseline drives, and those of one that topod drives.
"""

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.evidence.compare import Answer, Compared, EnoughError
from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables
from topod.model.request import Affinity, CpuAffinity, Policy, ResourceRequest
from topod.simulate.engine import Day, Terms
from topod.simulate.generate import Batch, generate
from topod.simulate.machines import Machine
from topod.simulate.measures import Measures
from topod.simulate.policies.base import Policy as Chooser
from topod.simulate.policies.exact import Exact
from topod.simulate.policies.kube import Kube
from topod.simulate.policies.paper import FlexTopo, Reprieve
from topod.simulate.policies.published import Published

HOST: Final = "rtx4090x8"
CORES_EACH: Final = 7
"""Of a GPU: the paper's example server has pods of 7 and 14 cores for 1 and 2 cards."""
ONLINE: Final = 1000
SECONDS: Final = 400 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Instances: numbers of GPUs with how often each comes, and the priorities of batch jobs."""

    name: str
    online: dict[int, float]
    batch: dict[int, float]
    levels: tuple[int, ...] = (100,)


MIXES: Final = (
    Mix(name="1-card batch; services of 2", online={2: 1}, batch={1: 1}),
    Mix(name="1 and 2 cards; services of 1, 2, 4", online={1: 2, 2: 2, 4: 1}, batch={1: 2, 2: 1}),
    Mix(name="1, 2, 4 cards; services of 4", online={4: 1}, batch={1: 3, 2: 2, 4: 1}),
    Mix(name="2 cards; services of 2 and 4", online={2: 1, 4: 1}, batch={2: 1}),
    Mix(
        name="three levels of batch; 1, 2, 4",
        online={2: 2, 4: 1},
        batch={1: 3, 2: 2, 4: 1},
        levels=(60, 70, 80),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What came of one mix, driven by one policy."""

    mix: str
    driver: str
    cases: Sequence[dict[str, Answer]]

    def answers(self, name: str) -> list[Answer]:
        """Return what one policy said."""
        return [case[name] for case in self.cases]

    def share(self, name: str, what: Callable[[Answer], bool]) -> float:
        """Return of how many preemptions something holds."""
        return sum(what(one) for one in self.answers(name)) / len(self.cases)

    def mean(self, name: str, what: Callable[[Answer], float]) -> float:
        """Return a mean over the preemptions that one policy found."""
        return statistics.mean(what(one) for one in self.answers(name) if one.found)

    def milliseconds(self, name: str) -> float:
        """Return the median of the search."""
        return statistics.median(one.seconds for one in self.answers(name)) * 1000


def request(gpus: int, priority: int) -> ResourceRequest:
    """Return what an instance asks for: cards and cores of one socket, guaranteed, as FlexTopo does."""
    return ResourceRequest(
        gpus=gpus,
        affinity=Affinity.SOCKET,
        policy=Policy.GUARANTEED,
        cpus=CORES_EACH * gpus,
        cpu_affinity=CpuAffinity.SOCKET,
        priority=priority,
    )


def parts(mix: Mix, hosts: int) -> Iterator[Batch]:
    """Yield the parts of a workload that keeps so many hosts full."""
    gpus = hosts * 8
    for level in mix.levels:
        each = sum(size * weight for size, weight in mix.batch.items()) / sum(mix.batch.values())
        yield Batch(
            name=f"batch-{level}",
            requests=tuple(request(size, level) for size in mix.batch),
            weights=tuple(mix.batch.values()),
            # Two hours of work each; a third more of it than the fleet can do.
            per_hour=1.3 * gpus / each / 2.3 / len(mix.levels),
            median=7200.0,
            most=14400.0,
        )
    each = sum(size * weight for size, weight in mix.online.items()) / sum(mix.online.values())
    yield Batch(
        name="online",
        requests=tuple(request(size, ONLINE) for size in mix.online),
        weights=tuple(mix.online.values()),
        per_hour=0.4 * gpus / each,
        median=3000.0,
        most=7200.0,
        preemptible=False,
    )


def run(mix: Mix, driver: Chooser, *, hosts: int, preemptions: int, published: bool) -> Row:
    """Live through a mix until so many preemptions were seen; ask everybody in each of these states."""
    tables = TopologyTables(load_library_host(HOST).topology)
    machines = [Machine(number=at, name=f"gpu-{at:03}", tables=tables) for at in range(hosts)]
    others: list[Chooser] = [Exact(), FlexTopo(), FlexTopo(exhaustive=True), Reprieve()]
    others += [Published(), Published(exhaustive=True)] if published else [Kube()]
    asked = [one for one in others if one.name != driver.name]
    compared = Compared(driver, asked, preemptions, times=3 if published else 1)
    measures = Measures(gpus=hosts * 8, seconds=SECONDS)
    jobs = generate(SECONDS, [], list(parts(mix, hosts)), seed=1)
    with contextlib.suppress(EnoughError):
        Day(machines, compared, Terms(until=SECONDS, stop_seconds=30.0), measures).live(jobs)
    return Row(mix=mix.name, driver=driver.name, cases=compared.cases)


def check(row: Row) -> tuple[int, int]:
    """Return in how many cases topod was cheaper than one of the others, and in how many it idled more.

    Raises `AssertionError` where what was promised does not hold in a single preemption.
    """
    cheaper = more_idled = 0
    for number, case in enumerate(row.cases):
        exact = case["topod"]
        where = f"{row.mix}, preemption {number}"
        assert exact.satisfied or not exact.found, f"{where}: topod chose what was not asked for"
        for name, other in case.items():
            if name == "topod" or not other.satisfied:
                continue
            assert exact.found, f"{where}: {name} satisfies what topod refused"
            assert exact.price <= other.price, f"{where}: {name} is cheaper: {other.price}, not {exact.price}"
            cheaper += exact.price < other.price
            more_idled += exact.idled > other.idled
    return cheaper, more_idled
