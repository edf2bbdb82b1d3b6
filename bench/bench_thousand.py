"""A thousand hosts under one coordinator: `python -m bench.bench_thousand [--quick]`.

A real `topod-coordinator` (SQLite, CURVE, a file of authorised keys) and emulated hosts
(`bench.emulated_hosts`), each with a key and a TCP connection of its own. Measured are the coordinator's CPU
time and memory: at rest; while all hosts come back after it was killed; and while jobs are submitted, some a
second, placed, started by the hosts, run and ended, on a fleet with room and on one where each job needs
victims. `--quick` takes 100 hosts and seconds.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import zmq
import zmq.asyncio

from bench.big_fleet import BigFleet, Used
from bench.emulated_hosts import SECONDS_LABEL
from bench.verdicts import Verdict, percentile
from topod.model.job import JobSpec
from topod.model.request import AUTO, Affinity, Policy, ResourceRequest
from topod.protocol.client import events_socket
from topod.protocol.codec import (
    PROTOCOL_VERSION,
    RequestEnvelope,
    decode_event,
    decode_reply,
    encode,
)
from topod.protocol.replies import AnyReply, Jobs
from topod.protocol.requests import AnyRequest, Submit

REST_PERCENT, BACK_SECONDS, PLACEMENTS = 20.0, 5.0, 200.0
LOW, HIGH = 100, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    hosts: int
    rest_seconds: float
    load_seconds: float
    rate: float
    """Jobs submitted a second."""


FULL = Plan(hosts=1000, rest_seconds=30.0, load_seconds=20.0, rate=PLACEMENTS)
QUICK = Plan(hosts=100, rest_seconds=5.0, load_seconds=4.0, rate=100.0)


class Line:
    """Many requests at a time over one connection to the coordinator's socket, as many clients would."""

    def __init__(self, context: "zmq.asyncio.Context", path: Path) -> None:
        self._wire = context.socket(zmq.DEALER)
        self._wire.set(zmq.LINGER, 0)
        self._wire.connect(f"ipc://{path}")
        self._asked: dict[str, asyncio.Future[AnyReply]] = {}
        self._task = asyncio.create_task(self._hear())

    async def ask(self, request: AnyRequest) -> AnyReply:
        ident = uuid.uuid4().hex
        future: asyncio.Future[AnyReply] = asyncio.get_running_loop().create_future()
        self._asked[ident] = future
        await self._wire.send(encode(RequestEnvelope(v=PROTOCOL_VERSION, id=ident, body=request)))
        return await future

    async def _hear(self) -> None:
        while True:
            envelope = decode_reply((await self._wire.recv_multipart())[-1])
            self._asked.pop(envelope.id).set_result(envelope.body)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._wire.close()


@dataclass(slots=True)
class Story:
    """When what was told of each job (steady seconds)."""

    submitted: dict[int, float] = field(default_factory=dict)
    placed: dict[int, float] = field(default_factory=dict)
    running: dict[int, float] = field(default_factory=dict)
    over: dict[int, float] = field(default_factory=dict)
    stopped: int = 0
    """Assignments that ended for others."""

    async def listen(self, context: "zmq.asyncio.Context", path: Path) -> None:
        wire = context.socket(zmq.SUB)
        wire.set(zmq.LINGER, 0)
        wire.set(zmq.RCVHWM, 0)
        wire.set(zmq.SUBSCRIBE, b"job.")
        wire.connect(f"ipc://{events_socket(path)}")
        where = {"job.assigned": self.placed, "job.started": self.running, "job.succeeded": self.over}
        try:
            while True:
                event = decode_event((await wire.recv_multipart())[1])
                if event.name == "job.requeued":
                    self.stopped += 1
                elif event.job is not None and event.name in where:
                    now = time.perf_counter()
                    where[event.name].setdefault(event.job, now)
                    if event.name == "job.succeeded":  # so short that nobody was told that it runs
                        self.running.setdefault(event.job, now)
        finally:
            wire.close()


SHAPES = (
    (1, Affinity.ANY, Policy.GUARANTEED),
    (1, Affinity.ANY, Policy.GUARANTEED),
    (2, Affinity.NVLINK, Policy.BEST_EFFORT),
    (2, Affinity.NUMA, Policy.BEST_EFFORT),
    (4, Affinity.NVLINK, Policy.BEST_EFFORT),
    (4, Affinity.NUMA, Policy.BEST_EFFORT),
    (8, Affinity.NVLINK, Policy.BEST_EFFORT),
)


def specs(rng: random.Random, *, priority: int, seconds: tuple[float, float]) -> Iterator[JobSpec]:
    for number in itertools.count(1):
        gpus, affinity, policy = rng.choice(SHAPES)
        yield JobSpec(
            name=f"j{number}",
            command=("emulated",),
            request=ResourceRequest(
                gpus=gpus, affinity=affinity, policy=policy, cpus=AUTO, priority=priority
            ),
            labels={SECONDS_LABEL: f"{rng.uniform(*seconds):.2f}"},
            grace_seconds=5.0,
        )


async def submit_at(
    line: Line, story: Story, jobs: Iterator[JobSpec], rate: float, seconds: float
) -> tuple[list[float], list[int]]:
    """Submit so many a second, come what may; return the seconds to each answer, and the jobs."""
    answered: list[float] = []
    idents: list[int] = []

    async def one(spec: JobSpec) -> None:
        begun = time.perf_counter()
        reply = await line.ask(Submit(spec=spec, token=uuid.uuid4().hex))
        assert isinstance(reply, Jobs), reply
        story.submitted[reply.jobs[0].id] = begun
        idents.append(reply.jobs[0].id)
        answered.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        wait = begun + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(next(jobs))))
    await asyncio.gather(*tasks)
    return answered, idents


async def until_all(times: dict[int, float], idents: Sequence[int], seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while any(ident not in times for ident in idents):  # noqa: ASYNC110 - a bench may poll
                await asyncio.sleep(0.1)


def steadily(story: Story, idents: Sequence[int], begun: float, seconds: float) -> float:
    """Return how many a second were placed while jobs came, the first quarter of the time left out.

    Who lags behind places fewer than come; how late the last is placed says nothing of that.
    """
    since, until = begun + seconds / 4, begun + seconds
    return sum(since <= story.placed[ident] < until for ident in idents) / (until - since)


async def load(
    fleet: BigFleet, plan: Plan, what: str, *, seconds: tuple[float, float], full: bool
) -> list[Verdict]:
    """Submit `plan.rate` jobs a second and tell when each was placed and ran."""
    context = zmq.asyncio.Context()
    path = fleet.coordinator.socket
    line, story = Line(context, path), Story()
    listening = asyncio.create_task(story.listen(context, path))
    rng = random.Random(1)
    try:
        await asyncio.sleep(0.5)
        verdicts = [await fill(fleet, line, story)] if full else []
        before = story.stopped
        with Used(fleet.process) as used:
            jobs = specs(rng, priority=HIGH, seconds=seconds)
            answered, idents = await submit_at(line, story, jobs, plan.rate, plan.load_seconds)
            begun = min(story.submitted[ident] for ident in idents)
            await until_all(story.running, idents, 60.0)
        missing = [ident for ident in idents if ident not in story.running]
        assert not missing, f"{len(missing)} of {len(idents)} jobs do not run, the first is {missing[0]}"
        rate, per_cpu = steadily(story, idents, begun, plan.load_seconds), len(idents) / used.cpu
        victims = story.stopped - before
        load = os.getloadavg()[0]
        print(
            f"{what}: {len(idents)} jobs, {victims} victims, {rate:.0f} placed a second,\n"
            f"    {per_cpu:.0f} a second of CPU time of the coordinator, {used.percent:.0f}%; load {load:.1f}"
        )
        for name, times in (
            ("submit, on disk", answered),
            ("submit to placed", [story.placed[i] - story.submitted[i] for i in idents]),
            ("submit to running", [story.running[i] - story.submitted[i] for i in idents]),
        ):
            median, p99 = statistics.median(times) * 1e3, percentile(times, 0.99) * 1e3
            print(f"    {name:20} median {median:7.0f} ms, 99 of 100 {p99:7.0f} ms", flush=True)
        return [*verdicts, Verdict(f"{what}: placed a second", rate, plan.rate * 0.98, "a s", at_least=True)]
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await line.close()
        context.destroy(linger=0)


async def fill(fleet: BigFleet, line: Line, story: Story) -> Verdict:
    """Let jobs of low priority run on every GPU: placements, and little else."""
    request = ResourceRequest(gpus=2, cpus=AUTO, priority=LOW)
    spec = JobSpec(name="low", command=("emulated",), request=request, labels={SECONDS_LABEL: "3600"})
    tasks = [
        asyncio.create_task(line.ask(Submit(spec=spec, token=uuid.uuid4().hex)))
        for _ in range(4 * fleet.hosts)
    ]
    begun = time.perf_counter()
    replies = await asyncio.gather(*tasks)
    await until_all(story.running, [reply.jobs[0].id for reply in replies if isinstance(reply, Jobs)], 120.0)
    took = time.perf_counter() - begun
    print(f"{len(tasks)} jobs fill the fleet in {took:.1f} s: {len(tasks) / took:.0f} a second", flush=True)
    return Verdict(
        "placed a second, until the fleet is full", len(tasks) / took, PLACEMENTS, "a s", at_least=True
    )


def at_rest(fleet: BigFleet, plan: Plan, what: str, *, judged: bool) -> list[Verdict]:
    time.sleep(3.0)
    process = fleet.process
    with Used(process) as used:
        time.sleep(plan.rest_seconds)
    memory = process.memory_info().rss / 1e6
    print(f"{what}: {used.percent:.1f}% of a core, {memory:.0f} MB resident", flush=True)
    return [Verdict(f"{fleet.hosts} hosts, {what}", used.percent, REST_PERCENT, "%")] if judged else []


def come_back(fleet: BigFleet) -> list[Verdict]:
    """Kill the coordinator, start it again, and see how soon every host can take work."""
    fleet.coordinator.kill()
    time.sleep(1.0)
    fleet.coordinator.start()
    with Used(fleet.process) as used:
        took = fleet.until_ready()
    print(
        f"{fleet.hosts} hosts back {took:.1f} s after it answers, {used.cpu:.1f} s of its CPU time",
        flush=True,
    )
    return [Verdict(f"{fleet.hosts} hosts back after a restart", took, BACK_SECONDS, "s")]


def main(arguments: Sequence[str] | None = None) -> list[Verdict]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 hosts, for seconds")
    parser.add_argument("--hosts", type=int, help="so many hosts")
    given = parser.parse_args(arguments)
    plan = QUICK if given.quick else FULL
    if given.hosts:
        plan = replace(plan, hosts=given.hosts)
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"\n{plan.hosts} emulated hosts under one coordinator; load of this machine {loads}", flush=True)
    verdicts: list[Verdict] = []
    with (
        tempfile.TemporaryDirectory(prefix="topod-bench-") as folder,
        BigFleet(Path(folder), plan.hosts) as fleet,
    ):
        print(f"all hosts there after {fleet.until_ready():.1f} s", flush=True)
        verdicts += at_rest(fleet, plan, "at rest", judged=True)
        verdicts += come_back(fleet)
        verdicts += asyncio.run(load(fleet, plan, "with room", seconds=(2.0, 4.0), full=False))
        time.sleep(6.0)
        verdicts += asyncio.run(load(fleet, plan, "full fleet", seconds=(2.0, 4.0), full=True))
        verdicts += at_rest(fleet, plan, "at rest, a full fleet", judged=False)
    return verdicts


if __name__ == "__main__":
    for verdict in main():
        print(verdict.show())
