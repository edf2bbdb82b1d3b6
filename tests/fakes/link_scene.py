"""A host and its coordinator's words, over a line on which messages are lost, late and repeated."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from tests.fakes.world import spec
from tests.simulation.chance import World, WorldClock
from tests.simulation.disk import Disk
from tests.simulation.link import SimWire
from topod.daemon.fleet_link import FleetLink, HostSide
from topod.daemon.fleet_orders import Judge
from topod.daemon.lease import Lease, LeaseWatch
from topod.daemon.mailbox import Mailbox
from topod.discovery.library import load_library_host
from topod.errors import NotFoundError, StoreError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.states import HostState, Job
from topod.model.assignment import Assign, FleetTag, Place
from topod.model.job import JobSpec, OnHostLost
from topod.ports import Wire
from topod.protocol import link
from topod.protocol import replies as rp
from topod.protocol import requests as rq
from topod.shell.health import Health
from topod.shell.vetting import PolicyError

TABLES = TopologyTables(load_library_host("one-gpu").topology)


LEASE = 30.0


def assign(fence: int = 1, job: int = 7, *, gpus: tuple[int, ...] = (0,), **changes: object) -> Assign:
    tag = FleetTag(job=job, fence=fence, on_host_lost=OnHostLost.REQUEUE)
    asked = spec("train", gpus=len(gpus), image="img:1", **changes)
    return Assign(tag=tag, spec=asked, place=Place(gpus=gpus))


@dataclass
class Facts:
    """What outlives topod."""

    values: dict[str, str] = field(default_factory=dict)
    broken: bool = False

    def facts(self) -> dict[str, str]:
        return dict(self.values)

    def note_facts(self, facts: dict[str, str]) -> None:
        if self.broken:
            raise StoreError("the disk is full")
        self.values |= facts


class Scene:
    """A mailbox with a link, on virtual time; the test is the coordinator."""

    def __init__(self, folder: Path, world: World, state: HostState | None = None) -> None:
        self.world = world
        self.disk = Disk(world)
        if state is not None:
            self.disk.content.state = state
        self.health = Health()
        self.mailbox = Mailbox(
            TABLES, self.disk.content.state, self.disk, clock=WorldClock(world), health=self.health
        )
        self.heard: list[link.AnyFromHost] = []
        self.wire = SimWire(world, self.heard.append)
        self.facts = Facts()
        self.asked: list[rq.AnyRequest] = []
        self.lease = Lease(folder / "lease", "boot")
        self.watch = LeaseWatch(self.lease, self.mailbox.post, self.now)
        judge = Judge(tables=TABLES, runtime="docker", vet=self.vet)
        side = HostSide(
            mailbox=self.mailbox,
            tables=TABLES,
            clock=WorldClock(world),
            health=self.health,
            memory=self.facts,
            answer=self.answer,
            judge=judge,
            name="node-a",
            labels={"rack": "3"},
        )
        checked: Wire = self.wire
        self.link = FleetLink(side, checked, self.lease, now=self.now)
        self.seq = 0

    def now(self) -> float:
        return 500.0 + self.world.now

    def vet(self, asked: JobSpec) -> JobSpec:
        if asked.container_user == "root":
            raise PolicyError("not allowed by this host's policy: user root")
        return replace(asked, container_user=asked.container_user or "1000")

    async def answer(self, request: rq.AnyRequest) -> rp.AnyReply:
        self.asked.append(request)
        if isinstance(request, rq.GetJob):
            raise NotFoundError("no job 12")
        return rp.Done(text="done")

    # --- as the coordinator ---------------------------------------------------------------------------------

    @property
    def reports(self) -> list[link.HostReport]:
        return [one for one in self.heard if isinstance(one, link.HostReport)]

    @property
    def hellos(self) -> list[link.HostHello]:
        return [one for one in self.heard if isinstance(one, link.HostHello)]

    @property
    def full(self) -> list[link.HostReport]:
        return [one for one in self.reports if one.snapshot is not None]

    @property
    def jobs(self) -> list[Job]:
        return [job for _, job in sorted(self.mailbox.state.jobs.items())]

    async def until(self, condition: Callable[[], object], seconds: float = 100.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - time is virtual here
                await asyncio.sleep(0.05)

    def orders(self, **changes: object) -> link.Orders:
        """Return orders that name the last report; `changes` win."""
        self.seq += 1
        last = self.reports[-1]
        values = {
            "session": last.session,
            "epoch": 3,
            "seq": self.seq,
            "echo": last.sent,
            "lease_seconds": LEASE,
            "seen": last.since,
        }
        return link.Orders(**(values | changes))  # type: ignore[arg-type] # a test builder

    async def order(self, **changes: object) -> None:
        await self.until(lambda: self.reports)
        self.wire.say(self.orders(**changes))
        await asyncio.sleep(1.0)


Story = Callable[[Scene], Awaitable[None]]


class Play(Protocol):
    def __call__(self, story: Story, state: HostState | None = None) -> Scene: ...
