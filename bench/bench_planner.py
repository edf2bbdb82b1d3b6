"""How long one planning decision takes: `python -m bench.bench_planner [--quick]`.

Tables are built beforehand (their time is printed too). States are random by seed: jobs of 1 to 4 GPUs, with
CPUs, some GPUs blocked, some jobs not preemptible. A case is timed three times and its quickest counts: the
planner remembers nothing of an occupancy, so the others only show what else the machine was doing.
"""

import argparse
import gc
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.oracles import brute_force
from tests.oracles.random_hosts import CUBE_MESH, make_host
from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.links import LinkClass
from topod.model.occupancy import Block, Holder, Occupancy
from topod.model.plan import Plan
from topod.model.request import Affinity, Policy, ResourceRequest
from topod.model.topology import Topology
from topod.preemption.search import plan

REPEATS = 3


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
    times: list[float]
    feasible: int
    brute: float | None = None

    def show(self) -> str:
        cuts = sorted(self.times)
        p99 = cuts[min(len(cuts) - 1, int(len(cuts) * 0.99))]
        ratio = f"{self.brute / statistics.mean(self.times):7.0f}x" if self.brute is not None else "       -"
        feasible = f"{self.feasible / len(self.times):.0%}"
        return (
            f"{self.host:24} {self.what:34} {statistics.median(cuts) * 1e6:9.0f} {p99 * 1e6:9.0f} "
            f"{cuts[-1] * 1e6:9.0f} {feasible:>9} {ratio}"
        )


def measure(
    tables: TopologyTables,
    host: str,
    what: str,
    cases: list[tuple[Occupancy, ResourceRequest]],
    brute: int = 0,
) -> Row:
    for state, request in cases[:20]:
        plan(tables, state, request)
    times, feasible = [], 0
    gc.collect()
    gc.disable()
    for state, request in cases:
        took = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            plan(tables, state, request)
            took.append(time.perf_counter() - start)
        times.append(min(took))
        feasible += isinstance(plan(tables, state, request), Plan)
    gc.enable()
    row = Row(host=host, what=what, times=times, feasible=feasible)
    if brute:
        oracle = brute_force.Host(tables.topology)
        start = time.perf_counter()
        for state, request in cases[:brute]:
            brute_force.best(oracle, state, request)
        row.brute = (time.perf_counter() - start) / brute
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the cases")
    count = 100 if parser.parse_args(arguments).quick else 1000
    print(
        f"{'host':24} {'request':34} {'median us':>9} {'p99 us':>9} {'max us':>9} {'feasible':>9}  brute/plan"
    )
    for name, topology in hosts().items():
        start = time.perf_counter()
        tables = TopologyTables(topology)
        gpus = tables.count // 2
        for affinity in Affinity:
            for policy in Policy:
                tables.family(gpus, affinity, strict=policy is Policy.GUARANTEED)
        _ = tables.left
        print(f"{name:24} {'(building all tables)':34} {(time.perf_counter() - start) * 1e6:9.0f}")
        for affinity, policy, cpus in (
            (Affinity.ANY, Policy.GUARANTEED, 0),
            (Affinity.NVLINK, Policy.BEST_EFFORT, 0),
            (Affinity.NUMA, Policy.GUARANTEED, 0),
            (Affinity.NVLINK, Policy.BEST_EFFORT, None),
            (Affinity.ANY, Policy.GUARANTEED, 16),
        ):
            request = ResourceRequest(
                gpus=gpus,
                affinity=affinity,
                policy=policy,
                cpus="auto" if cpus is None else cpus,
                priority=1000,
            )
            rng = random.Random(name)
            cases = [
                (random_state(rng, topology, cpu_jobs=0 if cpus == 0 else 4), request) for _ in range(count)
            ]
            what = f"{gpus} of {tables.count} {affinity} {policy} cpus={request.cpus}"
            print(measure(tables, name, what, cases, brute=5 if tables.count == 8 else 0).show(), flush=True)
        if tables.count == 16:
            rng = random.Random(name)
            for gpu_jobs in (16, 8, 4):
                for uniform in (True, False):
                    asks = [(8, 16), (8, None), (4, 40), (1, 24), (0, 48), (8, 64)]
                    for ask, cpus in asks:
                        request = ResourceRequest(
                            gpus=ask, cpus="auto" if cpus is None else cpus, priority=1000
                        )
                        cases = [
                            (full_state(rng, topology, gpu_jobs=gpu_jobs, uniform=uniform), request)
                            for _ in range(max(count // 100, 5))
                        ]
                        kind = "alike" if uniform else "mixed"
                        what = f"full, {gpu_jobs}+{32 - gpu_jobs} {kind}, {ask} GPUs {request.cpus} CPUs"
                        print(measure(tables, name, what, cases).show(), flush=True)


if __name__ == "__main__":
    main()
