"""How long one decision over a fleet takes: `python -m bench.bench_fleet [--quick]`.

Hosts of 8 GPUs (every tenth of another kind) in random states: about nine GPUs in ten taken, each job with
its share of CPUs, jobs that hold CPUs only, some GPUs blocked, some hosts closed. Requests vary in GPUs,
affinity, policy and CPUs. Before each decision some hosts change, as they do when jobs start and end; that is
timed by itself. Figures are CPU time of this process. Each decision is made three times, each time with the
hosts changed that changed since the same was asked before, and its quickest counts; what is asked for the
first time is asked once. The last lines say which goals are met.
"""

import argparse
import gc
import itertools
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench.bench_planner import hosts as kinds_of_hosts
from bench.bench_planner import random_state
from bench.verdicts import Verdict, percentile
from topod.fleet.hosts import HeldBy, HostSnapshot, occupancy_at
from topod.fleet.pick.cost import Chosen
from topod.fleet.pick.fleet import Fleet
from topod.flextopo.tables import TopologyTables
from topod.model.occupancy import Occupancy
from topod.model.request import AUTO, Affinity, Policy, ResourceRequest
from topod.preemption.search import plan

NOW = 1_790_000_000.0
ROUNDS = 3
GOALS_MS = {1000: 10.0, 10_000: 80.0}
SIZES = (10, 100, 1000, 10_000, 100_000)
STATES = 2000
"""Different states of each kind; larger fleets have several hosts in one state."""
CHANGES = 5
"""Hosts that change between two decisions."""
MAIN = "NVSwitch 8 (HGX H100)"
OTHERS = ("hybrid mesh 8 (DGX-1)", "PCIe 8, 8 nodes (4090)", "PCIe switches 8 (L40S)")
SIXTEEN = ("NVSwitch 16 (DGX-2)",)
Shape = tuple[int, Affinity, Policy, int | Literal["auto"]]
ASKS: tuple[Shape, ...] = (
    (1, Affinity.ANY, Policy.GUARANTEED, 0),
    (1, Affinity.ANY, Policy.GUARANTEED, AUTO),
    (2, Affinity.NVLINK, Policy.BEST_EFFORT, AUTO),
    (2, Affinity.NUMA, Policy.GUARANTEED, 16),
    (4, Affinity.NUMA, Policy.GUARANTEED, 0),
    (4, Affinity.NVLINK, Policy.BEST_EFFORT, AUTO),
    (4, Affinity.ANY, Policy.GUARANTEED, 32),
    (8, Affinity.NVLINK, Policy.GUARANTEED, AUTO),
    (8, Affinity.ANY, Policy.BEST_EFFORT, 64),
    (0, Affinity.ANY, Policy.GUARANTEED, 24),
)


def snapshot_of(rng: random.Random, host: str, state: Occupancy, generation: int) -> HostSnapshot:
    return HostSnapshot(
        host=host,
        generation=generation,
        holders=tuple(
            HeldBy(
                job=f"{host}-{holder.job}",
                priority=holder.priority,
                gpus=holder.gpus,
                cpus=holder.cpus,
                evictable_from=NOW - rng.randrange(-60, 3600) if holder.evictable else None,
                work_since=NOW - rng.randrange(1, 10**6),
                work_gpus=holder.gpus.bit_count(),
            )
            for holder in state.holders
        ),
        blocks=state.blocks,
        closed="cordoned" if rng.random() < 0.02 else None,
        labels={"zone": rng.choice("abc")},
    )


class Builder:
    """Makes hosts and their changes from a stock of random states."""

    def __init__(self, names: Sequence[str]) -> None:
        self.rng = random.Random("fleet")
        topologies = kinds_of_hosts()
        self.tables = [TopologyTables(topologies[name]) for name in names]
        self.states: list[list[Occupancy]] = [[] for _ in names]

    def kind(self, number: int) -> int:
        return 0 if number % 10 or len(self.tables) == 1 else 1 + number // 10 % (len(self.tables) - 1)

    def snapshot(self, number: int, generation: int, *, full: bool) -> HostSnapshot:
        """Return a host's next state; on a `full` fleet no GPU is free."""
        kind = self.kind(number)
        stock, topology = self.states[kind], self.tables[kind].topology
        while True:
            if len(stock) < STATES:
                state = random_state(self.rng, topology, cpu_jobs=3)
                stock.append(state)
            else:
                state = self.rng.choice(stock)
            taken = 0
            for holder in state.holders:
                taken |= holder.gpus
            for block in state.blocks:
                taken |= block.gpus
            if not full or taken == self.tables[kind].all_gpus:
                return snapshot_of(self.rng, f"host-{number:06}", state, generation)


@dataclass
class Row:
    size: int
    what: str
    times: list[float] = field(default_factory=list)
    puts: list[float] = field(default_factory=list)
    chosen: int = 0
    victims: int = 0

    def show(self) -> str:
        milli = [took * 1e3 for took in self.times]
        put = statistics.median(self.puts) * 1e6 if self.puts else 0.0
        return (
            f"{self.size:8} {self.what:26} {statistics.median(milli):9.2f} {percentile(milli, 0.95):9.2f} "
            f"{max(milli):9.2f} {put:9.0f} {self.chosen / len(self.times):8.0%} "
            f"{self.victims / len(self.times):8.0%}"
        )


def timed(fleet: Fleet, request: ResourceRequest, *, spread: bool) -> tuple[float, Chosen | None]:
    start = time.process_time()
    found = fleet.decide(request, NOW, spread=spread)
    return time.process_time() - start, found if isinstance(found, Chosen) else None


def build(builder: Builder, size: int, *, full: bool) -> tuple[Fleet, float]:
    """Return a fleet and the time that it took to put in one host, its snapshot made beforehand."""
    fleet, took = Fleet(), 0.0
    for number in range(size):
        snapshot = builder.snapshot(number, 0, full=full)
        start = time.process_time()
        fleet.put(snapshot, builder.tables[builder.kind(number)])
        took += time.process_time() - start
    return fleet, took / size


def requests(priority: int) -> Iterator[tuple[ResourceRequest, bool]]:
    for number in itertools.count():
        gpus, affinity, policy, cpus = ASKS[number % len(ASKS)]
        spread = number // len(ASKS) % 2 == 1
        yield (
            ResourceRequest(gpus=gpus, affinity=affinity, policy=policy, cpus=cpus, priority=priority),
            spread,
        )


def measure(builder: Builder, fleet: Fleet, row: Row, decisions: int, *, full: bool) -> None:
    """Time decisions, each of them several times and each after some hosts changed.

    Each time, the same hosts have changed since this was asked before: the fleet remembers of the others.
    """
    asks = requests(1000)
    since: dict[tuple[ResourceRequest, bool], dict[str, HostSnapshot]] = {}
    for number, (request, spread) in enumerate(itertools.islice(asks, decisions)):
        changed = [
            builder.snapshot(builder.rng.randrange(row.size), number + 1, full=full) for _ in range(CHANGES)
        ]
        for snapshot in changed:
            start = time.process_time()
            fleet.put(snapshot, builder.tables[builder.kind(int(snapshot.host.removeprefix("host-")))])
            row.puts.append(time.process_time() - start)
            for news in since.values():
                news[snapshot.host] = snapshot
        gc.disable()
        rounds = [timed(fleet, request, spread=spread)]
        for _ in range(ROUNDS - 1 if (request, spread) in since else 0):
            for snapshot in since[request, spread].values():
                fleet.put(snapshot, builder.tables[builder.kind(int(snapshot.host.removeprefix("host-")))])
            rounds.append(timed(fleet, request, spread=spread))
        gc.enable()
        since[request, spread] = {}
        row.times.append(min(took for took, _ in rounds))
        found = rounds[0][1]
        row.chosen += found is not None
        row.victims += found is not None and bool(found.plan.victims)


def every_host(builder: Builder, fleet: Fleet, size: int) -> float:
    """Return the milliseconds that asking the planner of every host takes, on average over the requests."""
    start = time.process_time()
    for request, _ in itertools.islice(requests(1000), len(ASKS)):
        for number in range(size):
            occupancy = occupancy_at(fleet.snapshot(f"host-{number:06}"), NOW)
            plan(builder.tables[builder.kind(number)], occupancy, request)
    return (time.process_time() - start) * 1e3 / len(ASKS)


def resident() -> float:
    """Return the memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6


def main(arguments: Sequence[str] | None = None) -> list[Verdict]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 10,000 hosts, fewer decisions")
    quick = parser.parse_args(arguments).quick
    print(
        f"{'hosts':>8} {'fleet':26} {'median ms':>9} {'95 % ms':>9} {'max ms':>9} {'put us':>9} "
        f"{'chosen':>8} {'victims':>8}"
    )
    verdicts, notes = [], []
    eight, sixteen = Builder((MAIN, *OTHERS)), Builder(SIXTEEN)
    fleets = [(eight, size, full) for size in SIZES for full in (False, True) if size <= 10_000 or not full]
    fleets += [(sixteen, 1000, False), (sixteen, 1000, True)]
    for builder, size, full in fleets:
        if quick and (size > 10_000 or builder is sixteen):
            continue
        before = resident()
        fleet, put = build(builder, size, full=full)
        if builder is eight and not full:
            notes.append(f"{size:8} hosts: {resident() - before:8.1f} MB, {put * 1e6:6.0f} us to put each")
        row = Row(size, f"{builder.tables[0].count} GPUs{', all taken' if full else ''}")
        measure(builder, fleet, row, 100 if size <= 1000 and not quick else 40, full=full)
        print(row.show(), flush=True)
        if builder is eight and size in GOALS_MS:
            what = f"a decision over {size} hosts{', all taken' if full else ''}, median"
            verdicts.append(Verdict(what, statistics.median(row.times) * 1e3, GOALS_MS[size], "ms"))
        if size == 1000 and full and not quick:
            took = every_host(builder, fleet, size)
            notes.append(f"asking each of 1000 hosts of {row.what}: {took:.0f} ms a decision")
        del fleet
    print("\nmemory, snapshots included, and what a plain search takes")
    print("\n".join(notes))
    return verdicts


if __name__ == "__main__":
    for verdict in main():
        print(verdict.show())
