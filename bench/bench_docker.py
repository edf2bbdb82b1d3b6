"""What topod adds to the engine's own time in a preemption: `python -m bench.bench_docker [--quick]`.

All parts of a daemon but its socket, over a private Docker engine and an emulated 8-GPU host that two jobs
fill, which end at once on SIGTERM. A job of high priority asks for half of it. The engine's time is that of
its calls: create, from the SIGTERM until the engine tells that the victim's container died, and start. The
rest, until the first line of output has been read, is topod's own.
"""

import argparse
import asyncio
import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import docker

from bench.verdicts import Verdict, head, row
from tests.engine import PrivateEngine, missing_parts, private_engine
from topod.adapters.docker_runtime import DockerRuntime
from topod.adapters.sqlite_store import SqliteStore
from topod.daemon.assembly import Daemon, Ports
from topod.daemon.machine import memory_nodes, online_cpus
from topod.daemon.service import Identity
from topod.daemon.wiring import SystemClock
from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol import requests as rq

SHARE_MS = 30.0
HIGH, LOW = 1000, 100
VICTIM = ("sh", "-c", 'trap "exit 0" TERM; sleep 86400 & wait')
PREEMPTOR = ("sh", "-c", 'trap "exit 0" TERM; echo up; sleep 86400 & wait')


@dataclass
class Calls:
    """When which call to the engine began and ended, and when containers died: epoch seconds."""

    took: list[tuple[str, float, float]] = field(default_factory=list)
    died: list[float] = field(default_factory=list)


@contextmanager
def timed(calls: Calls) -> Iterator[None]:
    """Note the calls to the engine that the engine's time is made of."""
    names = ("create_container_from_config", "kill", "start")
    before = {name: getattr(docker.APIClient, name) for name in names}

    def noting(name: str, call: Any) -> Any:
        @wraps(call)
        def noted(*arguments: Any, **more: Any) -> Any:
            begun = time.time()
            result = call(*arguments, **more)
            calls.took.append((name, begun, time.time()))
            return result

        return noted

    for name, call in before.items():
        setattr(docker.APIClient, name, noting(name, call))
    try:
        yield
    finally:
        for name, call in before.items():
            setattr(docker.APIClient, name, call)


class Free:
    """Emulated GPUs are free the moment their container is gone."""

    def busy(self, uuids: tuple[str, ...]) -> dict[str, str]:
        del uuids
        return {}


def hear_deaths(engine: PrivateEngine, calls: Calls, ready: threading.Event) -> None:
    """Note when the engine saw containers die, for as long as it lives."""
    with closing(engine.client()) as client:
        ready.set()
        for event in client.events(decode=True, filters={"event": "die"}):
            calls.died.append(event["timeNano"] / 1e9)


def spec(image: str, gpus: int, priority: int, command: tuple[str, ...]) -> JobSpec:
    request = ResourceRequest(gpus=gpus, priority=priority)
    return JobSpec(name="bench", command=command, image=image, request=request, user="bench")


@contextmanager
def daemon(engine: PrivateEngine, folder: Path) -> Iterator[Daemon]:
    """Build a daemon over the engine, without its socket."""
    topology = load_library_host("dgx1").topology
    with closing(SqliteStore(folder / "state.db")) as store:
        runtime = DockerRuntime(
            state_id=store.instance,
            log_dir=folder / "logs",
            machine_cpus=online_cpus(),
            machine_nodes=memory_nodes(),
            base_url=engine.base_url,
            emulated=True,
        )
        ports = Ports(
            tables=TopologyTables(topology),
            runtime=runtime,
            probe=Free(),
            store=store,
            clock=SystemClock(),
        )
        identity = Identity(state_dir=str(folder), events_endpoint="", notes=(), started_at=time.time())
        yield Daemon(ports, store.load(), identity)
        runtime.close()


async def running(it: Daemon, *idents: int) -> None:
    for ident in idents:
        done = await it.service.wait_job(rq.WaitJob(job=ident, states=["running"], timeout=60.0))
        assert done.jobs[0].state == "running", done.jobs[0].reason


async def once(it: Daemon, image: str, calls: Calls, victims: Sequence[int]) -> tuple[float, float]:
    """Preempt one job; return the milliseconds until the first line, and those of the engine."""
    calls.took.clear()
    calls.died.clear()
    begun = time.time()
    done = await it.service.submit(rq.Submit(spec=spec(image, 4, HIGH, PREEMPTOR)))
    job = done.jobs[0].id
    piece = await it.service.logs.read(rq.ReadLog(job=job, wait=60.0))
    ended = time.time()
    assert piece.data == b"up\n"
    while not calls.died:  # told through another connection  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    took = {name: (first, last) for name, first, last in reversed(calls.took)}
    created = took["create_container_from_config"]
    engine = created[1] - created[0]
    engine += max(0.0, calls.died[0] - took["kill"][0])
    # The line may have come before the engine's answer to the start.
    engine += min(ended, took["start"][1]) - took["start"][0]
    await it.service.cancel(rq.Cancel(jobs=[job]))
    await running(it, *victims)
    await asyncio.sleep(0.5)
    return (ended - begun) * 1e3, engine * 1e3


async def play(it: Daemon, image: str, calls: Calls, rounds: int) -> list[tuple[float, float]]:
    it.start(publish=lambda _: None)
    victims = []
    for _ in range(2):
        done = await it.service.submit(rq.Submit(spec=spec(image, 4, LOW, VICTIM)))
        victims.append(done.jobs[0].id)
    await running(it, *victims)
    await once(it, image, calls, victims)
    times = [await once(it, image, calls, victims) for _ in range(rounds)]
    await it.service.cancel(rq.Cancel(jobs=victims))
    for victim in victims:
        await it.service.wait_job(rq.WaitJob(job=victim, timeout=60.0))
    await it.stop()
    return times


def main(arguments: Sequence[str] | None = None) -> list[Verdict]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the rounds")
    rounds = 5 if parser.parse_args(arguments).quick else 20
    if reason := missing_parts():
        print(f"\nno figures of preemptions with Docker: {reason}")
        return []
    logging.getLogger("topod").setLevel(logging.ERROR)
    calls, ready = Calls(), threading.Event()
    with private_engine() as engine, tempfile.TemporaryDirectory(prefix="topod-bench-") as folder:
        threading.Thread(target=hear_deaths, args=(engine, calls, ready), daemon=True).start()
        ready.wait()
        with timed(calls), daemon(engine, Path(folder)) as it:
            times = asyncio.run(play(it, engine.image, calls, rounds))
    own = [whole - engines for whole, engines in times]
    print("\n" + head(f"a preemption with Docker, milliseconds, {rounds} rounds"))
    print(row("from submit to first line", [whole for whole, _ in times]))
    print(row("the engine's create, stop and start", [engines for _, engines in times]))
    print(row("topod's own share", own))
    return [
        Verdict("preemption with Docker, topod's own share, median", statistics.median(own), SHARE_MS, "ms")
    ]


if __name__ == "__main__":
    for verdict in main():
        print(verdict.show())
