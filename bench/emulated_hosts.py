"""Some hundred hosts in a process of a bench: `python -m bench.emulated_hosts FOLDER FIRST COUNT [SECONDS]`.

Each has the real host's side of the link (`FleetLink`, `CurveDealer`, `Lease`), its own key and connection,
and the real life cycle of jobs. Emulated are the machine, the runtime, which is done with everything at once
and runs a job for as long as its label `seconds` says, and the database, which is the process's memory.
With SECONDS each host changes as often by itself: jobs of its users come and go, another GPU is drained.
Prints `ready` and ends when its input does.
"""

import asyncio
import itertools
import logging
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zmq.asyncio

from topod.adapters.curve_dealer import CurveDealer
from topod.daemon.fleet_link import FleetLink, HostSide
from topod.daemon.fleet_orders import Judge
from topod.daemon.lease import Lease, LeaseWatch
from topod.discovery.library import load_library_host
from topod.errors import UsageError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.deadlines import next_deadline
from topod.lifecycle.machine import step_all
from topod.lifecycle.states import HostState, Mark, MarkKind
from topod.model.container import Signal
from topod.model.job import JobId, JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.curve import KeyPair
from topod.protocol.remote import Coordinator
from topod.protocol.replies import AnyReply
from topod.protocol.requests import AnyRequest
from topod.shell.health import Health

KINDS = ("dgx1", "dgx-a100", "hgx-h100")
SECONDS_LABEL = "seconds"


class Site(msgspec.Struct, frozen=True):
    """What all load processes are told, in a file."""

    endpoint: str
    key: str
    """The coordinator's, public."""
    hosts: list[tuple[str, str, str]]
    """Name, public and private key of each."""
    leases: str
    """The folder of their leases: in memory, as /run is on a host."""


@dataclass(slots=True)
class WallClock:
    def now(self) -> float:
        return time.time()


class Memory:
    """What a database would hold."""

    def __init__(self) -> None:
        self._facts: dict[str, str] = {}

    def facts(self) -> dict[str, str]:
        return dict(self._facts)

    def note_facts(self, facts: dict[str, str]) -> None:
        self._facts |= facts


class EmulatedHost:
    """The state of one host: events in, the runtime's answers after them. A `daemon.fleet_link.Core`."""

    recovered = True

    def __init__(self, tables: TopologyTables) -> None:
        self.state = HostState()
        self._tables = tables
        self._events: list[ev.Event] = []
        self._advanced = asyncio.Event()
        self._running: dict[str, asyncio.TimerHandle] = {}
        self._tick: asyncio.TimerHandle | None = None

    async def post(self, event: ev.Event) -> None:
        self._put(event)

    async def until(self, done: Callable[[HostState], bool], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not done(self.state):
                    await self._advanced.wait()
        except TimeoutError:
            pass

    def _put(self, event: ev.Event) -> None:
        if not self._events:
            asyncio.get_running_loop().call_soon(self._step)
        self._events.append(event)

    def _step(self) -> None:
        now = time.time()
        events, self._events = self._events, []
        outcome, _ = step_all(self._tables, self.state, events, now)
        if outcome.state is not self.state:
            self.state = outcome.state
            self._advanced.set()
            self._advanced = asyncio.Event()
        for effect in outcome.effects:
            answer = self._do(effect, now)
            if answer is not None:
                self._put(answer)
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        due = next_deadline(self.state, now)
        if due is not None:
            wait = max(0.02, due - now)
            self._tick = asyncio.get_running_loop().call_later(wait, self._put, ev.Tick())

    def _do(self, effect: fx.Effect, now: float) -> ev.Event | None:  # noqa: C901, PLR0911 - one case an effect
        match effect:
            case fx.PullImage(job=job):
                return ev.ImageReady(job=job)
            case fx.Create(job=job, attempt=attempt):
                return ev.Created(job=job, attempt=attempt, handle=f"c-{job}-{attempt}")
            case fx.CheckDevices(job=job, attempt=attempt):
                return ev.DevicesFree(job=job, attempt=attempt)
            case fx.Launch(job=job, attempt=attempt, handle=handle):
                seconds = float(self.state.jobs[job].spec.labels.get(SECONDS_LABEL, "5"))
                self._running[handle] = asyncio.get_running_loop().call_later(
                    seconds, self._exit, job, attempt, handle, 0
                )
                return ev.Started(job=job, attempt=attempt, at=now)
            case fx.Withdraw(job=job, attempt=attempt, handle=handle):
                if handle in self._running:
                    return ev.Started(job=job, attempt=attempt, at=now)
                return ev.StartFailed(job=job, attempt=attempt, error="stopped before it ran", final=False)
            case fx.RunHook(job=job, attempt=attempt):
                return ev.HookDone(job=job, attempt=attempt, ok=True)
            case fx.Freeze(job=job, attempt=attempt):
                return ev.Frozen(job=job, attempt=attempt, ok=False, text="no checkpoints here")
            case fx.Deliver(job=job, attempt=attempt, handle=handle, signal=signal):
                if handle in self._running:
                    self._running[handle].cancel()
                    code = 137 if signal is Signal.KILL else 143
                    asyncio.get_running_loop().call_soon(self._exit, job, attempt, handle, code)
                return ev.Delivered(job=job, attempt=attempt, signal=signal)
            case fx.Collect(job=job, attempt=attempt):
                return ev.Collected(job=job, attempt=attempt)
            case fx.RemoveStray():
                return None

    def _exit(self, job: JobId, attempt: int, handle: str, code: int) -> None:
        if self._running.pop(handle, None) is not None:
            self._put(ev.Exited(job=job, attempt=attempt, exit_code=code))


async def no_answer(_: AnyRequest) -> AnyReply:
    raise UsageError("an emulated host answers no questions")


async def be_busy(host: EmulatedHost, gpus: list[str], number: int, every: float) -> None:
    """Drain one GPU after the other; each fourth time submit a job as a user of the host does."""
    rng = random.Random(number)
    await asyncio.sleep(rng.uniform(0.0, every))
    mark = Mark(kind=MarkKind.DRAINED, reason="fan", since=time.time())
    for turn in itertools.count():
        await host.post(ev.GpuResumed(uuid=gpus[turn % len(gpus) - 1]))
        await host.post(ev.GpuMarked(uuid=gpus[turn % len(gpus)], mark=mark))
        if turn % 4 == 0:
            request = ResourceRequest(gpus=rng.choice((1, 1, 2, 4)), priority=rng.choice((100, 500, 1000)))
            labels = {SECONDS_LABEL: f"{rng.uniform(8, 16) * every:.2f}"}
            spec = JobSpec(name="own", command=("emulated",), request=request, labels=labels)
            await host.post(ev.Submitted(spec=spec))
        await asyncio.sleep(every)


def make_link(
    site: Site, number: int, host: EmulatedHost, tables: TopologyTables, context: "zmq.asyncio.Context"
) -> tuple[FleetLink, LeaseWatch]:
    name, public, secret = site.hosts[number]
    side = HostSide(
        mailbox=host,
        tables=tables,
        clock=WallClock(),
        health=Health(),
        memory=Memory(),
        answer=no_answer,
        judge=Judge(tables=tables, runtime="process"),
        name=name,
        labels={"rack": f"r{number // 32}"},
    )
    lease = Lease(Path(site.leases) / f"{name}.lease", "bench")
    keys = KeyPair(public=public, secret=secret)
    # From an address of its own, as hosts are: the coordinator bounds who is not let in yet by address.
    source = f"127.77.{number >> 8}.{number & 255}"
    endpoint = site.endpoint.replace("tcp://", f"tcp://{source}:0;")
    wire = CurveDealer((Coordinator(endpoint=endpoint, key=site.key),), keys, context=context)
    return FleetLink(side, wire, lease), LeaseWatch(lease, host.post)


async def serve(folder: Path, first: int, count: int, every: float = 0.0) -> None:
    site = msgspec.json.decode((folder / "site.json").read_bytes(), type=Site)
    tables = [TopologyTables(load_library_host(kind).topology) for kind in KINDS]
    context = zmq.asyncio.Context(1)
    context.set(zmq.MAX_SOCKETS, 4 * count + 64)
    kept: list[object] = []
    for number in range(first, first + count):
        kind = tables[number % len(tables)]
        host = EmulatedHost(kind)
        link, watch = make_link(site, number, host, kind, context)
        link.start()
        watch.start()
        kept.append(link)
        if every:
            kept.append(
                asyncio.create_task(be_busy(host, [gpu.uuid for gpu in kind.topology.gpus], number, every))
            )
        await asyncio.sleep(0)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    # Nothing is to be kept: a thousand connections that are closed one by one take their time.
    os._exit(0)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float((*sys.argv, "0")[4])))
