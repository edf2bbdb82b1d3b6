"""topod under load and at rest: `python -m bench.bench_load [--quick]`.

A real topod on an emulated, full 8-GPU host: submits a second through the socket (each answer means: on
disk), `topoctl ps` as a whole process with 10,000 jobs waiting, one pass over that queue, and what the daemon
takes while nothing happens. `--quick` rests for a shorter time and repeats less; the loads are the same.
"""

import argparse
import gc
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice, product
from pathlib import Path
from typing import Literal

import psutil

from bench.verdicts import Verdict, head, row
from tests.integration.daemon_process import ROOT, Topod
from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.deadlines import next_deadline
from topod.lifecycle.machine import step
from topod.lifecycle.states import HostState, Job, JobState
from topod.model.job import JobId, JobSpec
from topod.model.request import AUTO, Affinity, Policy, ResourceRequest
from topod.protocol.client import Client
from topod.protocol.replies import Jobs
from topod.protocol.requests import Cancel, ListJobs, Submit, WaitJob

WAITING = 10_000
PASS_MS, PS_MS, SUBMITS, IDLE_PERCENT, RSS_MB = 50.0, 1000.0, 500.0, 1.0, 80.0
CLIENTS = (1, 4, 16)
HIGH, LOW = 1000, 100


def requests(distinct: int) -> list[ResourceRequest]:
    """Return so many different requests that a full host of higher priority refuses."""
    cpus: tuple[int | Literal["auto"], ...] = (0, AUTO, 4, 10)
    every = product((1, 2, 4), Affinity, Policy, cpus, range(LOW, LOW + 5))
    found = [
        ResourceRequest(gpus=gpus, affinity=affinity, policy=policy, cpus=cpus, priority=priority)
        for gpus, affinity, policy, cpus, priority in every
    ]
    return found[:: len(found) // distinct][:distinct]


def spec(request: ResourceRequest, name: str = "bench", *command: str) -> JobSpec:
    return JobSpec(name=name, command=command or ("sleep", "86400"), request=request, user="bench")


# --- the pass over the queue --------------------------------------------------------------------------------


def full_host(tables: TopologyTables, distinct: int) -> HostState:
    """Return a host held by jobs of high priority with 10,000 jobs waiting behind them."""
    state, now = HostState(), 1000.0
    for number in range(1, 5):
        job = JobId(number)
        for event in (
            ev.Submitted(spec=spec(ResourceRequest(gpus=2, priority=HIGH))),
            ev.Created(job=job, attempt=1, handle=f"{job}.1"),
            ev.DevicesFree(job=job, attempt=1),
            ev.Started(job=job, attempt=1, at=now),
        ):
            state = step(tables, state, event, now).state
    jobs = dict(state.jobs)
    # Each job has a request of its own, as those that came through the socket do.
    asks: Iterator[ResourceRequest] = (replace(one) for one in cycle(requests(distinct)))
    for number, request in enumerate(islice(asks, WAITING), 5):
        ident = JobId(number)
        jobs[ident] = Job(
            id=ident, spec=spec(request), submitted_at=now + number / 1000, image_ready=True, reason="queued"
        )
    return replace(state, jobs=jobs, next_job=JobId(WAITING + 5))


def passes(rounds: int) -> list[Verdict]:
    """Time whole steps of the core, the copy of the state and the pass over the queue included."""
    tables = TopologyTables(load_library_host("dgx1").topology)
    verdicts = []
    print("\n" + head(f"one step with {WAITING} jobs waiting, milliseconds"))
    for distinct in (1, 20, 500):
        state = step(tables, full_host(tables, distinct), ev.Tick(), 1999.0).state
        drained = replace(state, drain="?")
        while next_deadline(drained := step(tables, drained, ev.Tick(), 1999.5).state, 1999.5) == 1999.5:
            pass  # until every job says the new reason
        cases: dict[str, tuple[HostState, ev.Event]] = {
            "time passes": (state, ev.Tick()),
            "a submit": (state, ev.Submitted(spec=spec(ResourceRequest(gpus=1, priority=50)))),
            "a job ends, the next is placed": (state, ev.Exited(job=JobId(1), attempt=1, exit_code=0)),
            "every job gets another reason": (drained, ev.HostResumed()),
        }
        for what, (before, event) in cases.items():
            times = []
            for _ in range(rounds):
                gc.collect()
                begun = time.process_time()
                after = step(tables, before, event, 2000.0).state
                times.append((time.process_time() - begun) * 1e3)
                waiting = sum(job.state is JobState.PENDING for job in after.jobs.values())
                assert waiting >= WAITING - 4
            print(row(f"{distinct} different requests: {what}", times))
            name = f"pass, {distinct} different requests, {what}"
            verdicts.append(Verdict(name, statistics.median(times), PASS_MS, "ms"))
    return verdicts


# --- through the socket -------------------------------------------------------------------------------------


def one_client(socket: str, count: int, first: int, ready: "multiprocessing.synchronize.Barrier") -> None:
    """Submit one job after the other, each once the one before is durable."""
    asks = requests(20)
    with Client(Path(socket)) as client:
        client.ask(ListJobs())
        ready.wait()
        for number in range(first, first + count):
            client.ask(Submit(spec=spec(asks[number % len(asks)]), token=uuid.uuid4().hex), timeout=60.0)


def submits(topod: Topod, clients: int, count: int) -> float:
    """Return how many submits a second are answered, by so many clients at once."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(clients + 1)
    share = count // clients
    processes = [
        context.Process(target=one_client, args=(str(topod.socket), share, number * share, ready))
        for number in range(clients)
    ]
    for process in processes:
        process.start()
    ready.wait()
    begun = time.perf_counter()
    for process in processes:
        process.join()
    took = time.perf_counter() - begun
    assert all(process.exitcode == 0 for process in processes)
    return share * clients / took


def fill(topod: Topod) -> None:
    """Let jobs of high priority run on every GPU."""
    with Client(topod.socket) as client:
        for _ in range(4):
            reply = client.ask(Submit(spec=spec(ResourceRequest(gpus=2, priority=HIGH), "holder")))
            assert isinstance(reply, Jobs)
            client.ask(WaitJob(job=reply.jobs[0].id, states=["running"], timeout=20.0), timeout=30.0)


def waiting(topod: Topod) -> int:
    with Client(topod.socket) as client:
        reply = client.ask(ListJobs(), timeout=60.0)
    assert isinstance(reply, Jobs)
    return sum(job.state == "pending" for job in reply.jobs)


def whole_command(topod: Topod, rounds: int, *words: str) -> list[float]:
    """Return the wall milliseconds of a `topoctl` command, its start and its output included."""
    times = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "topoctl", "--socket", str(topod.socket), *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": "cli"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        times.append((time.perf_counter() - begun) * 1e3)
    return times[1:]


def loaded(topod: Topod, rounds: int) -> list[Verdict]:
    """Queue 10,000 jobs and measure how quickly they come in and are listed."""
    verdicts = []
    print(f"\n{'submits a second, answered when on disk':44} {'count':>9} {'a second':>9}")
    left = WAITING
    for clients in CLIENTS:
        count = left if clients == CLIENTS[-1] else 1600
        left -= count
        rate = submits(topod, clients, count)
        print(f"{clients:3} client{'s' if clients > 1 else ' '} {'':33} {count:9} {rate:9.0f}", flush=True)
        if clients > 1:
            verdicts.append(Verdict(f"submits, {clients} clients", rate, SUBMITS, "a s", at_least=True))
    print("\n" + head(f"with {waiting(topod)} jobs waiting, milliseconds"))
    for words in (("ps",), ("ps", "-o", "wide"), ("ps", "-o", "json")):
        times = whole_command(topod, rounds, *words)
        print(row("topoctl " + " ".join(words), times), flush=True)
        if words == ("ps",):
            verdicts.append(Verdict("topoctl ps, whole command", statistics.median(times), PS_MS, "ms"))
    return verdicts


def at_rest(topod: Topod, seconds: float, what: str) -> list[Verdict]:
    """Return what the daemon takes while nothing happens."""
    assert topod.process is not None
    process = psutil.Process(topod.process.pid)
    time.sleep(1.0)
    before, begun = process.cpu_times(), time.perf_counter()
    time.sleep(seconds)
    after, took = process.cpu_times(), time.perf_counter() - begun
    used = (after.user + after.system - before.user - before.system) / took * 100
    memory = process.memory_full_info()
    rss, pss = memory.rss / 1e6, memory.pss / 1e6
    print(f"{what:44} {used:6.2f}% of a core, {rss:.0f} MB resident (its own share {pss:.0f} MB)", flush=True)
    return [
        Verdict(f"at rest, {what}: processor", used, IDLE_PERCENT, "%"),
        Verdict(f"at rest, {what}: resident", rss, RSS_MB, "MB"),
    ]


def main(arguments: Sequence[str] | None = None) -> list[Verdict]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, shorter rests")
    quick = parser.parse_args(arguments).quick
    rest = 6.0 if quick else 30.0
    verdicts = passes(3 if quick else 9)
    print()
    with tempfile.TemporaryDirectory(prefix="topod-bench-") as folder:
        with Topod(Path(folder) / "a", log_level="info") as topod:
            topod.start()
            verdicts += at_rest(topod, rest, "no job")
            fill(topod)
            verdicts += at_rest(topod, rest, "4 jobs run")
        with Topod(Path(folder) / "b", log_level="info") as topod:
            topod.start()
            fill(topod)
            verdicts += loaded(topod, 3 if quick else 9)
            print()
            at_rest(topod, rest, f"{WAITING} jobs wait")
            # Ten thousand cancellations are of no interest: the holders end, the rest is forgotten.
            topod.ask(Cancel(jobs=[1, 2, 3, 4]))
            for job in (1, 2, 3, 4):
                topod.wait(job)
            topod.kill()
            (topod.state_dir / "state.db").unlink()
    return verdicts


if __name__ == "__main__":
    for verdict in main():
        print(verdict.show())
