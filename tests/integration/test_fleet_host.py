"""A real topod that belongs to a fleet: over CURVE it reports, takes a job, comes back, and stops it in time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fleet_port import COORDINATOR, HOST
from tests.integration.daemon_process import Topod
from topod.adapters.authorized import AuthorizedKeys, Entry, authorize
from topod.adapters.curve_peers import Connection
from topod.adapters.curve_server import CurveServer
from topod.adapters.peers import RemotePeer
from topod.model.assignment import Assign, FleetTag, Place, Settled
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol import link
from topod.protocol.curve import PRIVATE, PUBLIC, Kind
from topod.protocol.replies import AnyReply, Done
from topod.protocol.requests import AnyRequest

SECONDS = 60.0
LEASE = 8.0
JOB = JobSpec(name="train", command=("sleep", "600"), request=ResourceRequest(gpus=2, cpus=0))


class Fleet:
    """A coordinator that gives one job, and a lease as long as it is `kind`."""

    def __init__(self, folder: Path) -> None:
        path = folder / "authorized_keys"
        authorize(path, Entry(public=HOST.public, kind=Kind.HOST, name="a"))
        self.server = CurveServer(
            "tcp://127.0.0.1:0", COORDINATOR, AuthorizedKeys(path), on_host=self.hear, answer=self.answer
        )
        self.kind = True
        self.assign: list[Assign] = []
        self.settled: list[Settled] = []
        self.seq = 0
        self.sessions: list[str] = []
        self.report: link.HostReport | None = None

    async def answer(self, request: AnyRequest, who: RemotePeer) -> AnyReply:
        return Done(text="")

    def hear(self, connection: Connection, message: link.AnyFromHost) -> None:
        self.seq += 1
        if isinstance(message, link.HostHello):
            self.sessions.append(message.session)
        if not isinstance(message, link.HostReport) or not self.kind:
            return
        if message.session not in self.sessions:
            self.server.send_to(connection, link.Who())
            return
        if message.snapshot is not None:
            self.report = message
        known = {(job.job, job.fence) for job in (self.report.jobs or [] if self.report else [])}
        orders = link.Orders(
            session=message.session,
            epoch=1,
            seq=self.seq,
            echo=message.sent,
            lease_seconds=LEASE,
            seen=message.since,
            assign=[one for one in self.assign if (one.tag.job, one.tag.fence) not in known],
            settled=self.settled,
        )
        self.server.send_to(connection, orders)

    def state(self) -> str:
        jobs = self.report.jobs if self.report else None
        return jobs[0].state if jobs else ""

    async def until(self, good: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while not good():  # noqa: ASYNC110 - libzmq tells nobody
                await asyncio.sleep(0.02)


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[tuple[Fleet, Topod]]:
    made = Fleet(folder)
    made.server.bind()
    made.server.start()
    key, config = folder / "host.key", folder / "topod.toml"
    key.write_text(f"{PRIVATE}{HOST.secret} host a\n")
    key.chmod(0o600)
    config.write_text(
        f'[fleet]\ncoordinator = "{made.server.endpoint}"\ncoordinator_key = "{PUBLIC}{COORDINATOR.public}"\n'
        f'key_file = "{key}"\nname = "a"\n'
    )
    topod = Topod(folder / "topod", environment={"TOPOD_CONFIG": str(config)})
    try:
        await asyncio.to_thread(topod.start)
        yield made, topod
    finally:
        await asyncio.to_thread(topod.close)
        await made.server.stop()


@pytest.fixture
def order() -> Assign:
    tag = FleetTag(job=70, fence=5, env={"TOPOD_HOSTS": "a"})
    return Assign(tag=tag, spec=JOB, place=Place(gpus=(0, 1)))


def test_a_host_takes_a_job_goes_on_with_it_after_a_crash_and_stops_it_without_a_lease(
    tmp_path: Path, order: Assign
) -> None:
    async def story() -> None:
        async with fleet(tmp_path) as (made, topod):
            made.assign = [order]
            await made.until(lambda: made.state() == "running")
            assert made.report is not None
            assert made.report.snapshot is not None
            assert [holder.job for holder in made.report.snapshot.holders] == ["1"]
            await asyncio.to_thread(topod.kill)
            await asyncio.to_thread(topod.start)
            await made.until(
                lambda: made.report and made.report.session == made.sessions[-1] != made.sessions[0]
            )
            await made.until(lambda: made.state() == "running")
            assert [job.starts for job in made.report.jobs or []] == [1]
            made.kind = False
            await made.until(lambda: topod.job(1).state == "returned")
            made.kind = True
            await made.until(lambda: made.state() == "returned")
            made.settled = [Settled(job=70, fence=5)]
            await made.until(lambda: made.report is not None and made.report.jobs == [])

    asyncio.run(story())


def test_a_topod_that_comes_back_after_the_lease_has_ended_does_not_go_on(
    tmp_path: Path, order: Assign
) -> None:
    async def story() -> None:
        async with fleet(tmp_path) as (made, topod):
            made.assign = [order]
            await made.until(lambda: made.state() == "running")
            made.kind = False
            await asyncio.to_thread(topod.kill)
            topod.socket.with_name(f"{topod.socket.name}.lease").unlink()
            await asyncio.to_thread(topod.start)
            await made.until(lambda: topod.job(1).state == "returned")

    asyncio.run(story())
