"""What a scrape of the metrics costs: `python -m bench.bench_metrics [--quick]`.

An emulated 8-GPU host with thousands of jobs that wait. A client scrapes without pause, with nothing kept
between two answers, while the loop that owns the state notes how late it wakes: that is all that a scrape can
take from a decision. Beside it the same without scrapes.
"""

import argparse
import asyncio
import time
import urllib.request
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from bench.verdicts import percentile
from topod.adapters import metrics_port
from topod.adapters.metrics_port import MetricsPort
from topod.daemon.metrics import HostMetrics
from topod.daemon.witness import Witness
from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.jobtable import JobTable
from topod.lifecycle.states import HostState, Job
from topod.model.job import JobId, JobSpec
from topod.model.request import ResourceRequest
from topod.model.rules import NO_RULES
from topod.shell.health import Health

WAKE_SECONDS = 0.001


def host_with(jobs: int) -> HostState:
    """Return a host where so many jobs wait."""
    spec = JobSpec(name="b", command=("true",), request=ResourceRequest(gpus=1))
    waiting = {JobId(at): Job(id=JobId(at), spec=spec, submitted_at=0.0) for at in range(1, jobs + 1)}
    return HostState(generation=1, jobs=JobTable(waiting, NO_RULES))


def metrics_of(state: HostState) -> HostMetrics:
    """Return the metrics of a host in that state."""
    tables = TopologyTables(load_library_host("dgx1").topology)
    mailbox: Any = SimpleNamespace(state=state, recovered=True)
    clock: Any = SimpleNamespace(now=time.time)
    return HostMetrics(
        tables, mailbox, Witness(state), clock=clock, health=Health(), runtime="process", in_fleet=False
    )


async def lateness(seconds: float) -> list[float]:
    """Return how late (milliseconds) the loop woke, again and again."""
    loop, late = asyncio.get_running_loop(), []
    end = loop.time() + seconds
    while loop.time() < end:
        due = loop.time() + WAKE_SECONDS
        await asyncio.sleep(WAKE_SECONDS)
        late.append((loop.time() - due) * 1000)
    return late


def scrape_until(url: str, end: float, took: list[float]) -> None:
    """Scrape without pause."""
    while time.monotonic() < end:
        begun = time.monotonic()
        with urllib.request.urlopen(url, timeout=30) as reply:
            reply.read()
        took.append((time.monotonic() - begun) * 1000)


async def measure(jobs: int, seconds: float) -> tuple[list[float], list[float], list[float], int]:
    """Return lateness at rest, lateness under scrapes, what scrapes took, and the bytes of one."""
    metrics = metrics_of(host_with(jobs))
    port = MetricsPort(("127.0.0.1", 0), metrics.look, metrics.render)
    port.bind()
    port.start()
    try:
        rest = await lateness(seconds)
        took: list[float] = []
        end = time.monotonic() + seconds
        scraping = asyncio.create_task(asyncio.to_thread(scrape_until, port.url, end, took))
        busy = await lateness(seconds)
        await scraping
        return rest, busy, took, len(metrics.render(metrics.look()))
    finally:
        port.stop()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    seconds = 0.5 if parser.parse_args(arguments).quick else 3.0
    metrics_port.FRESH_SECONDS = 0.0  # type: ignore[misc]  # else an answer is given again for half a second
    print("\na scrape of the metrics, without pause: milliseconds, p50 / p99")
    print(f"{'jobs':>8} {'KB':>6} {'a scrape':>16} {'loop late, at rest':>20} {'under scrapes':>16}")
    for jobs in (0, 1000, 10_000):
        rest, busy, took, size = asyncio.run(measure(jobs, seconds))
        cells = [f"{percentile(one, 0.5):.1f} / {percentile(one, 0.99):.1f}" for one in (took, rest, busy)]
        print(f"{jobs:>8} {size / 1000:>6.0f} {cells[0]:>16} {cells[1]:>20} {cells[2]:>16}")


if __name__ == "__main__":
    main()
