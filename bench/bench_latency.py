"""How long a preemption takes: `python -m bench.bench_latency [--quick]`.

An emulated 8-GPU host is full of low-priority jobs that end at once on SIGTERM. A high-priority job asks for
half of it; measured is the time from the moment its submit is sent until its first line has been read through
the socket. Beside it: when the job itself wrote the line, and what topod's own events say of the steps.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.verdicts import Verdict, head, percentile, row
from tests.integration.daemon_process import Topod
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.client import Client
from topod.protocol.replies import Events, Jobs, LogChunk
from topod.protocol.requests import Cancel, ListJobs, ReadEvents, ReadLog, Submit, WaitJob

HIGH, LOW = 1000, 100
MEDIAN_MS, P95_MS = 50.0, 100.0
SETTLE_SECONDS = 0.7
"""Between rounds: bursts of starts are not what is measured."""
VICTIM = ("sleep", "86400")
PREEMPTOR = ("sh", "-c", "date +%s.%N; exec sleep 86400")


@dataclass
class Times:
    """Milliseconds since the submit was sent."""

    submitted: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=dict)


def spec(gpus: int, priority: int, command: tuple[str, ...]) -> JobSpec:
    request = ResourceRequest(gpus=gpus, priority=priority)
    return JobSpec(name="bench", command=command, request=request)


def fill(client: Client, victims: int) -> None:
    """Start jobs of one GPU each until `victims` of them run."""
    for _ in range(victims):
        submit(client, spec(8 // victims, LOW, VICTIM))
    all_run(client)


def submit(client: Client, job: JobSpec) -> int:
    reply = client.ask(Submit(spec=job))
    assert isinstance(reply, Jobs)
    return reply.jobs[0].id


def all_run(client: Client) -> None:
    """Return when every job of the host runs."""
    while True:
        reply = client.ask(ListJobs())
        assert isinstance(reply, Jobs)
        waiting = [job.id for job in reply.jobs if job.state != "running"]
        if not waiting:
            return
        for job in waiting:
            client.ask(WaitJob(job=job, states=["running"], timeout=20.0), timeout=30.0)


def once(client: Client, gpus: int, times: Times) -> None:
    """Preempt, read the first line, and give the GPUs back."""
    begun_at, begun = time.time(), time.perf_counter()
    job = submit(client, spec(gpus, HIGH, PREEMPTOR))
    times.submitted.append((time.perf_counter() - begun) * 1e3)
    while True:
        chunk = client.ask(ReadLog(job=job, wait=20.0), timeout=30.0)
        assert isinstance(chunk, LogChunk)
        if b"\n" in chunk.data:
            break
    times.read.append((time.perf_counter() - begun) * 1e3)
    times.written.append((float(chunk.data) - begun_at) * 1e3)
    story = client.ask(ReadEvents(since=0, limit=10_000, job=job))
    assert isinstance(story, Events)
    for event in story.events:
        times.steps.setdefault(event.name, []).append((event.at - begun_at) * 1e3)
    client.ask(Cancel(jobs=[job]))
    client.ask(WaitJob(job=job, timeout=20.0), timeout=30.0)
    all_run(client)
    time.sleep(SETTLE_SECONDS)


def measure(folder: Path, *, victims: int, gpus: int, rounds: int) -> Times:
    times = Times()
    with Topod(folder, log_level="info") as topod:
        topod.start()
        with Client(topod.socket) as client:
            fill(client, victims)
            for _ in range(2):
                once(client, gpus, Times())
            for _ in range(rounds):
                once(client, gpus, times)
    return times


def main(arguments: Sequence[str] | None = None) -> list[Verdict]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds")
    rounds = 10 if parser.parse_args(arguments).quick else 50
    verdicts = []
    for victims in (2, 8):
        with tempfile.TemporaryDirectory(prefix="topod-bench-") as folder:
            times = measure(Path(folder), victims=victims, gpus=4, rounds=rounds)
        print(f"\nprocess runtime, 8 GPUs held by {victims} jobs, half of them stopped; {rounds} rounds")
        print(head("milliseconds since the submit was sent"))
        print(row("submit answered", times.submitted))
        for name, values in times.steps.items():
            print(row(f"event {name}", values))
        print(row("first line written by the job", times.written))
        print(row("first line read by the client", times.read), flush=True)
        name = f"submit to first line, {victims // 2} victim{'s' if victims > 2 else ''}"
        verdicts += [
            Verdict(f"{name}, median", statistics.median(times.read), MEDIAN_MS, "ms"),
            Verdict(f"{name}, 95 of 100", percentile(times.read, 0.95), P95_MS, "ms"),
        ]
    return verdicts


if __name__ == "__main__":
    for verdict in main():
        print(verdict.show())
