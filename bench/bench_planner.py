"""How long one planning decision takes: `python -m bench.bench_planner [--quick]`.

Tables are built beforehand (their time is printed too). States are random by seed: jobs of 1 to 4 GPUs, with
CPUs, some GPUs blocked, some jobs not preemptible. Every case is timed in three rounds (CPU time of this
process) and its quickest counts: the planner remembers nothing of an occupancy, so the others only show how
busy the machine was. The last lines say which goals are met and which row comes closest to each.
"""

import argparse
import gc
import math
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from operator import attrgetter
from typing import Literal

from tests.oracles import brute_force
from tests.oracles.random_hosts import CUBE_MESH, make_host
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.links import LinkClass
from topod.model.occupancy import Block, Holder, Occupancy
from topod.model.plan import Plan, Refusal
from topod.model.request import AUTO, Affinity, Policy, ResourceRequest
from topod.model.topology import Topology
from topod.preemption.search import plan

ROUNDS = 3
"""Far apart in time: a machine that is slow for some seconds spoils only one of them."""


@dataclass(frozen=True)
class Goal:
    """What was promised: the longest that a decision may take, in microseconds."""

    of: str
    median: float = math.inf
    p99: float = math.inf
    longest: float = math.inf


EIGHT = Goal(of="4 GPUs of 8", median=100, p99=500)
SIXTEEN = Goal(of="8 GPUs of 16", median=1000, p99=3000)
FULL = Goal(of="16 GPUs, all taken, 32 jobs with CPUs", longest=10_000)


def hosts() -> dict[str, Topology]:
    pairs8 = [(i, j) for i in range(8) for j in range(i + 1, 8)]
    pairs16 = [(i, j) for i in range(16) for j in range(i + 1, 16)]
    two = [i // 4 for i in range(8)]
    return {
        "NVSwitch 8 (HGX H100)": make_host(
            nodes=list(two), nvlinks=dict.fromkeys(pairs8, 18), cpus_per_node=96, group=16
        ),
        "hybrid mesh 8 (DGX-1)": make_host(nodes=list(two), nvlinks=CUBE_MESH, cpus_per_node=40, group=40),
        "PCIe 8, 8 nodes (4090)": make_host(
            nodes=list(range(8)), nvlinks={}, cpus_per_node=16, group=8, nodes_per_socket=4
        ),
        "PCIe switches 8 (L40S)": make_host(
            nodes=list(two),
            nvlinks={},
            pcie={p: LinkClass.PIX for p in pairs8 if p[0] // 2 == p[1] // 2},
            cpus_per_node=64,
            group=16,
        ),
        "NVSwitch 16 (DGX-2)": make_host(
            nodes=[i // 8 for i in range(16)], nvlinks=dict.fromkeys(pairs16, 6), cpus_per_node=48, group=48
        ),
        "PCIe 16, 4 nodes": make_host(
            nodes=[i // 4 for i in range(16)],
            nvlinks={},
            pcie={p: LinkClass.PIX for p in pairs16 if p[0] // 2 == p[1] // 2},
            cpus_per_node=32,
            group=8,
            nodes_per_socket=2,
        ),
        "mesh 16 (two DGX-1)": make_host(
            nodes=[i // 4 for i in range(16)],
            nvlinks={(a + o, b + o): n for (a, b), n in CUBE_MESH.items() for o in (0, 8)},
            cpus_per_node=40,
            group=40,
        ),
    }


def random_state(rng: random.Random, topology: Topology, *, cpu_jobs: int = 0) -> Occupancy:
    """Return a state with about nine GPUs in ten taken, each job with its share of CPUs near its GPUs."""
    order = list(range(len(topology.gpus)))
    if rng.random() < 0.5:
        rng.shuffle(order)
    free = {node.id: list(node.cpus) for node in topology.numa_nodes}
    holders: list[Holder] = []
    blocks: list[Block] = []
    while order and rng.random() < 0.95:
        gpus = [order.pop() for _ in range(min(len(order), rng.choice([1, 1, 1, 2, 2, 4])))]
        if rng.random() < 0.05:
            blocks.append(Block(reason="foreign: pid 4711", gpus=sum(1 << i for i in gpus)))
            continue
        cpus = []
        for i in gpus:
            pool = free[topology.gpus[i].numa_node or 0]
            cpus += [pool.pop() for _ in range(min(len(pool), 4))]
        holders.append(
            Holder(
                job=f"gpu-{len(holders)}",
                priority=rng.choice([100, 100, 100, 300, 500, 1000]),
                gpus=sum(1 << i for i in gpus),
                cpus=CpuSet.of(cpus),
                evictable=rng.random() < 0.95,
                work=rng.randrange(10**9),
            )
        )
    for number in range(cpu_jobs):
        pool = free[rng.choice(sorted(free))]
        cpus = [pool.pop() for _ in range(min(len(pool), rng.choice([2, 4, 8])))]
        holders.append(
            Holder(
                job=f"cpu-{number}", priority=rng.choice([100, 300, 500]), cpus=CpuSet.of(cpus), work=number
            )
        )
    return Occupancy(holders=tuple(holders), blocks=tuple(blocks))


def full_state(rng: random.Random, topology: Topology, *, gpu_jobs: int, uniform: bool) -> Occupancy:
    """Return a host without a free GPU or CPU and with 32 jobs that hold CPUs, `gpu_jobs` of them GPUs."""
    count = len(topology.gpus)
    free = {node.id: list(node.cpus) for node in topology.numa_nodes}
    holders = []
    sizes = [count // gpu_jobs] * gpu_jobs
    at = 0
    for number, size in enumerate(sizes):
        gpus = range(at, at + size)
        at += size
        cpus = []
        for i in gpus:
            pool = free[topology.gpus[i].numa_node or 0]
            cpus += [pool.pop() for _ in range(3 if uniform else rng.randint(1, 3))]
        holders.append((f"gpu-{number}", sum(1 << i for i in gpus), cpus))
    rest = 32 - gpu_jobs
    nodes = sorted(free)
    for number in range(rest):
        node = nodes[number % len(nodes)]
        mine = len(range(number, rest, len(nodes)))  # CPU jobs of this node that are still to come
        holders.append((f"cpu-{number}", 0, [free[node].pop() for _ in range(len(free[node]) // mine)]))
    return Occupancy(
        holders=tuple(
            Holder(
                job=job,
                priority=100 if uniform else rng.choice([100, 300, 500]),
                gpus=gpus,
                cpus=CpuSet.of(cpus),
                work=0 if uniform or not gpus else rng.randrange(10**9),
            )
            for job, gpus, cpus in holders
        )
    )


@dataclass
class Row:
    host: str
    what: str
    goal: Goal
    tables: TopologyTables
    cases: list[tuple[Occupancy, ResourceRequest]]
    brute_cases: int = 0
    times: list[float] = field(default_factory=list)
    feasible: int = 0
    brute: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.times) * 1e6

    @property
    def p99(self) -> float:
        cuts = sorted(self.times)
        return cuts[min(len(cuts) - 1, int(len(cuts) * 0.99))] * 1e6

    @property
    def longest(self) -> float:
        return max(self.times) * 1e6

    def show(self) -> str:
        ratio = f"{self.brute / statistics.mean(self.times):7.0f}x" if self.brute is not None else "       -"
        feasible = f"{self.feasible / len(self.times):.0%}"
        return (
            f"{self.host:24} {self.what:34} {self.median:9.0f} {self.p99:9.0f} "
            f"{self.longest:9.0f} {feasible:>9} {ratio}"
        )


def timed(tables: TopologyTables, state: Occupancy, request: ResourceRequest) -> tuple[float, Plan | Refusal]:
    start = time.process_time()
    found = plan(tables, state, request)
    return time.process_time() - start, found


def measure(row: Row) -> None:
    """Time every case once; of all rounds the quickest counts."""
    for state, request in row.cases[:20]:
        plan(row.tables, state, request)
    gc.collect()
    gc.disable()
    took, found = zip(*(timed(row.tables, state, request) for state, request in row.cases), strict=True)
    gc.enable()
    row.times = [min(pair) for pair in zip(row.times, took, strict=True)] if row.times else list(took)
    row.feasible = sum(isinstance(one, Plan) for one in found)


def measure_brute_force(row: Row) -> None:
    """Time the brute force on the first few cases."""
    if row.brute_cases:
        oracle = brute_force.Host(row.tables.topology)
        start = time.process_time()
        for state, request in row.cases[: row.brute_cases]:
            brute_force.best(oracle, state, request)
        row.brute = (time.process_time() - start) / row.brute_cases


def random_rows(name: str, tables: TopologyTables, count: int) -> Iterator[Row]:
    """Yield questions for half of a host's GPUs on states by chance, with and without CPUs."""
    gpus = tables.count // 2
    asks: tuple[tuple[Affinity, Policy, int | Literal["auto"]], ...] = (
        (Affinity.ANY, Policy.GUARANTEED, 0),
        (Affinity.NVLINK, Policy.BEST_EFFORT, 0),
        (Affinity.NUMA, Policy.GUARANTEED, 0),
        (Affinity.NVLINK, Policy.BEST_EFFORT, AUTO),
        (Affinity.ANY, Policy.GUARANTEED, 16),
    )
    for affinity, policy, cpus in asks:
        request = ResourceRequest(gpus=gpus, affinity=affinity, policy=policy, cpus=cpus, priority=1000)
        rng = random.Random(name)
        cases = [
            (random_state(rng, tables.topology, cpu_jobs=0 if cpus == 0 else 4), request)
            for _ in range(count)
        ]
        what = f"{gpus} of {tables.count} {affinity} {policy} cpus={cpus}"
        goal = EIGHT if tables.count == 8 else SIXTEEN
        brute = 5 if tables.count == 8 else 0
        yield Row(host=name, what=what, goal=goal, tables=tables, cases=cases, brute_cases=brute)


def full_rows(name: str, tables: TopologyTables, count: int) -> Iterator[Row]:
    """Yield questions on hosts without a free GPU or CPU."""
    rng = random.Random(name)
    asks: tuple[tuple[int, int | Literal["auto"]], ...] = (
        (8, 16), (8, AUTO), (4, 40), (1, 24), (0, 48), (8, 64),
    )  # fmt: skip
    for gpu_jobs, uniform, (gpus, cpus) in product((16, 8, 4), (True, False), asks):
        request = ResourceRequest(gpus=gpus, cpus=cpus, priority=1000)
        cases = [
            (full_state(rng, tables.topology, gpu_jobs=gpu_jobs, uniform=uniform), request)
            for _ in range(count)
        ]
        kind = "alike" if uniform else "mixed"
        what = f"full, {gpu_jobs}+{32 - gpu_jobs} {kind}, {gpus} GPUs {cpus} CPUs"
        yield Row(host=name, what=what, goal=FULL, tables=tables, cases=cases)


def summary(rows: Sequence[Row]) -> None:
    """Print for each promise the row that comes closest to it or breaks it."""
    print(f"\n{'goal':38} {'':7} {'at most':>9} {'worst us':>9} {'':8} worst row")
    for goal in (EIGHT, SIXTEEN, FULL):
        for figure, limit in (("median", goal.median), ("p99", goal.p99), ("longest", goal.longest)):
            if limit < math.inf:
                worst = max((row for row in rows if row.goal is goal), key=attrgetter(figure))
                value = getattr(worst, figure)
                met = "met" if value <= limit else "NOT MET"
                where = f"{worst.host}, {worst.what}"
                print(f"{goal.of:38} {figure:7} {limit:9.0f} {value:9.0f} {met:8} {where}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the cases, a third of the full hosts"
    )
    count, full_count = (100, 20) if parser.parse_args(arguments).quick else (1000, 60)
    rows: list[Row] = []
    for name, topology in hosts().items():
        start = time.process_time()
        tables = TopologyTables(topology)
        for affinity, policy in product(Affinity, Policy):
            tables.family(tables.count // 2, affinity, strict=policy is Policy.GUARANTEED)
        _ = tables.left
        print(f"{name:24} tables built in {(time.process_time() - start) * 1e3:6.1f} ms")
        rows += random_rows(name, tables, count)
        if tables.count == 16:
            rows += full_rows(name, tables, full_count)
    for number in range(1, ROUNDS + 1):
        print(f"round {number} of {ROUNDS}: {sum(len(row.cases) for row in rows)} decisions", flush=True)
        for row in rows:
            measure(row)
    print(
        f"\n{'host':24} {'request':34} {'median us':>9} {'p99 us':>9} {'max us':>9} {'feasible':>9}", end=""
    )
    print("  brute/plan")
    for row in rows:
        measure_brute_force(row)
        print(row.show())
    summary(rows)


if __name__ == "__main__":
    main()
