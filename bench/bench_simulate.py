"""How long `topoctl simulate` takes for a million events: `python -m bench.bench_simulate [--quick]`.

An event is a job that comes, begins, ends or is stopped. Services that follow the day run over more batch
jobs than there is room for, so that every peak preempts and the queue is never empty. topod's own planner
decides for a million events on fleets of growing size, then each other policy for a tenth of that. Wall clock
of one process.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.verdicts import Verdict
from topoctl.simulate.files import read_worth
from topoctl.simulate.runs import POLICIES, Plot, live
from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables
from topod.model.request import AUTO, PRIORITIES, Affinity, Policy, ResourceRequest
from topod.simulate.generate import Batch, Online

WORTH = Path(__file__).parents[1] / "cli" / "topoctl" / "simulate" / "worth.toml"
SECONDS_MAX = 120.0
MILLION = 1_000_000
FLEETS = (12, 41, 100)
JOBS_EACH_HOUR = 9.0
"""Batch jobs an hour and host: a little more than fits."""
EVENTS_EACH_JOB = 2.86


def plot(hosts: int, events: int) -> Plot:
    """Return a fleet of two kinds of hosts of 8 GPUs, and about so many events."""
    kinds = [
        TopologyTables(load_library_host(name).topology) for name in ("hgx-h100", "rtx4090x8", "rtx4090x8")
    ]
    fleet = tuple((f"host-{at:03}", kinds[at % len(kinds)]) for at in range(hosts))
    high = ResourceRequest(gpus=2, affinity=Affinity.SOCKET, cpus=AUTO, priority=PRIORITIES["high"])
    low = replace(high, policy=Policy.BEST_EFFORT, priority=PRIORITIES["low"])
    online = Online(name="chat", request=high, fewest=hosts // 3, most=hosts * 2)
    batch = Batch(
        name="tune",
        requests=tuple(replace(low, gpus=gpus) for gpus in (1, 2, 4)),
        weights=(6.0, 3.0, 1.0),
        per_hour=JOBS_EACH_HOUR * hosts,
        median=900.0,
        most=7200.0,
        checkpoint=1800.0,
    )
    return Plot(
        hosts=fleet,
        seconds=3600.0 * events / (EVENTS_EACH_JOB * JOBS_EACH_HOUR * hosts),
        stop_seconds=10.0,
        worth=read_worth(WORTH),
        online=(online,),
        batch=(batch,),
    )


def measure(policy: str, hosts: int, events: int) -> float:
    """Live through about so many events; return the seconds that a million of them take."""
    result = live(plot(hosts, events), policy, seed=1)
    each = result.took / result.events
    told = f"{result.events:9,} events {result.took:7.1f} s {each * 1e6:7.1f} us each"
    print(f"{policy:18} {hosts:4} hosts {told}", flush=True)
    return each * MILLION


def main(arguments: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, and return what is promised of a million events."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the events")
    quick = parser.parse_args(arguments).quick
    events = MILLION // 100 if quick else MILLION
    print("\na million events of topoctl simulate")
    verdicts = [
        Verdict(
            f"a million simulated events, {hosts} hosts", measure("topod", hosts, events), SECONDS_MAX, "s"
        )
        for hosts in FLEETS
    ]
    for policy in POLICIES:
        if policy != "topod":
            measure(policy, FLEETS[0], events // 10)
    return verdicts


if __name__ == "__main__":
    for verdict in main():
        print(verdict.show())
