"""What a host says to its coordinator, and what it does with what it hears: over messages lost, late and repeated."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pytest

from tests.fakes.world import spec
from tests.simulation.chance import Chance, World, WorldClock
from tests.simulation.disk import Disk
from tests.simulation.link import SimWire
from tests.simulation.loop import VirtualLoop
from topod.daemon.fleet_link import EPOCH, TURNS_AT_ONCE, FleetLink, HostSide
from topod.daemon.fleet_orders import Judge
from topod.daemon.lease import Lease, LeaseWatch
from topod.daemon.mailbox import Mailbox
from topod.discovery.library import load_library_host
from topod.errors import NotFoundError, StoreError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.states import HostState, Job, JobState
from topod.model.assignment import Assign, FleetTag, Place, Revoke, Settled
from topod.model.job import JobSpec, OnHostLost, Secret
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


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Return what plays a scene to its end on virtual time, with no faults."""

    def run(story: Story, state: HostState | None = None) -> Scene:
        world = World(Chance(1))
        world.chance.storm = False
        loop = VirtualLoop(world, lambda: None)
        scene = Scene(tmp_path, world, state)

        async def all_of_it() -> None:
            await scene.watch.begin()
            scene.mailbox.start(carry_out=lambda _: None, publish=lambda _: None)
            await scene.mailbox.post(ev.Recovered(containers=()))
            scene.watch.start()
            scene.link.start()
            await story(scene)
            await scene.link.stop()
            await scene.watch.stop()

        task = loop.create_task(all_of_it())
        loop.run_until_complete(task)
        loop.kill()
        assert not world.violations
        return scene

    return run


def test_a_host_looks_for_who_leads_and_not_over_and_over_for_who_is_dead(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.full)
        scene.wire.say(link.NotLeader())
        await asyncio.sleep(0.5)
        assert scene.wire.moved == 0
        for _ in range(5):
            scene.wire.say(link.NotLeader(leader="tcp://x:1"))
        await asyncio.sleep(0.5)
        assert scene.wire.moved == TURNS_AT_ONCE
        scene.wire.say(link.NotLeader(leader="tcp://y:1"))
        await asyncio.sleep(0.5)
        assert scene.wire.moved == TURNS_AT_ONCE + 1
        reports = len(scene.full)
        await scene.until(lambda: len(scene.full) > reports)

    play(story)


# --- what is said -------------------------------------------------------------------------------------------


def test_a_host_says_hello_and_reports(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.full)
        hello = scene.hellos[0]
        assert (hello.host, hello.labels, hello.runtime) == ("node-a", {"rack": "3"}, "docker")
        assert hello.document["gpus"]
        report = scene.full[-1]
        assert report.session == hello.session
        assert report.snapshot is not None
        assert (report.snapshot.host, report.snapshot.labels) == ("node-a", {"rack": "3"})
        assert report.jobs == []
        assert report.wall == pytest.approx(scene.world.wall, abs=1.0)

    play(story)


def test_contents_are_repeated_until_they_are_seen_and_then_hearts_beat(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await asyncio.sleep(10.0)
        assert len(scene.full) == len(scene.reports) > 3
        await scene.order()
        await asyncio.sleep(1.0)
        told = len(scene.full)
        await asyncio.sleep(20.0)
        await scene.order()
        await asyncio.sleep(20.0)
        assert len(scene.full) == told
        assert len(scene.reports) > told + 10
        assert {one.since for one in scene.reports[-5:]} == {scene.full[-1].seq}
        assert [one.seq for one in scene.reports] == sorted(one.seq for one in scene.reports)

    play(story)


def test_what_changes_is_told_at_once_and_much_of_it_together(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order()
        before = len(scene.full)
        for _ in range(50):
            await scene.mailbox.post(ev.Submitted(spec=spec("cpu", gpus=1, image=None)))
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
        assert 1 <= len(scene.full) - before <= 6

    play(story)


def test_a_coordinator_that_knows_nothing_is_told_all_again(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order()
        told, hellos = len(scene.full), len(scene.hellos)
        scene.wire.say(link.Who())
        await scene.until(lambda: len(scene.hellos) > hellos and len(scene.full) > told, 1.0)

    play(story)


def test_a_host_that_cannot_take_anything_new_is_closed(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.full and scene.full[-1].snapshot.closed is None)  # type: ignore[union-attr] # full
        scene.health.trouble("store", "the disk is full")
        await scene.until(lambda: scene.full[-1].snapshot.closed)  # type: ignore[union-attr] # full
        assert "store: the disk is full" in scene.reports[-1].troubles

    play(story)


# --- orders -------------------------------------------------------------------------------------------------


def test_an_assignment_is_taken_reported_and_forgotten_when_it_is_settled(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(assign=[assign()])
        await scene.until(lambda: scene.full[-1].jobs)
        job = scene.jobs[0]
        assert job.spec.container_user == "1000", "as the policy of the host has it"
        assert job.state is JobState.PENDING
        await scene.order(assign=[assign()])
        assert len(scene.jobs) == 1
        await scene.order(revoke=[Revoke(job=7, fence=1)])
        await scene.until(lambda: scene.full[-1].jobs and scene.full[-1].jobs[0].state == "cancelled")
        await scene.order(settled=[Settled(job=7, fence=1)])
        await scene.until(lambda: scene.full[-1].jobs == [])
        assert scene.mailbox.state.settled_fence == 1

    play(story)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (spec("t", gpus=1, image="i", container_user="root"), "not allowed by this host's policy: user root"),
        (spec("t", gpus=1, image="i", secrets=(Secret(name="key", source="/nowhere"),)), "secret key: "),
        (spec("t", gpus=1, image="no image"), "not the name of an image"),
        (spec("t", gpus=4, image="i"), "can never run this job"),
    ],
)
def test_what_submit_would_refuse_is_refused_with_its_reason(play: Play, bad: JobSpec, why: str) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(assign=[replace(assign(), spec=bad)])
        await scene.until(lambda: scene.full[-1].jobs)
        told = (scene.full[-1].jobs or [])[0]
        assert told.state == "refused"
        assert why in told.reason

    play(story)


def test_orders_of_another_session_an_earlier_leadership_or_that_come_late_are_ignored(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(seq=10)
        for old in ({"session": "other"}, {"epoch": 2, "seq": 99}, {"seq": 10}, {"seq": 9}):
            await scene.order(assign=[assign()], **({"seq": 50} | old))
            assert not scene.jobs, old
        await scene.order(assign=[assign()], seq=11)
        assert len(scene.jobs) == 1

    play(story)


def test_the_epoch_is_durable_before_it_is_acted_on(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(epoch=3)
        assert scene.facts.values[EPOCH] == "3"
        scene.facts.broken = True
        await scene.order(epoch=4, assign=[assign()])
        assert not scene.jobs
        scene.facts.broken = False
        await scene.order(epoch=4, assign=[assign()])
        assert len(scene.jobs) == 1
        assert scene.reports[-1].epoch == 4

    play(story)


def test_an_earlier_epoch_than_is_written_down_is_ignored_after_a_restart(play: Play) -> None:
    async def story(scene: Scene) -> None:
        scene.facts.values[EPOCH] = "5"
        await asyncio.sleep(0.1)
        await scene.order(epoch=4, assign=[assign()])
        assert not scene.jobs
        await scene.order(epoch=5, assign=[assign()])
        assert len(scene.jobs) == 1

    play(story)


def test_nothing_is_taken_without_a_lease_and_nothing_settled_beside_it(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(assign=[assign(fence=4, job=4)])
        await scene.order(revoke=[Revoke(job=4, fence=4, requeue=True)])
        await asyncio.sleep(LEASE + 1.0)
        done = [Settled(job=4, fence=4)]
        await scene.order(assign=[assign(fence=3)], settled=done, echo=0.0)
        assert [job.assignment.tag.fence for job in scene.jobs if job.assignment] == [4]
        await scene.order(assign=[assign(fence=3)], settled=done)
        assert [(job.assignment.tag.fence, job.assignment.taken) for job in scene.jobs if job.assignment] == [
            (3, True)
        ]

    play(story)


def test_the_priority_of_a_fleet_job_is_changed(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(assign=[assign()])
        await scene.order(priorities={7: 900, 8: 1})
        assert scene.jobs[0].priority == 900

    play(story)


# --- the lease ----------------------------------------------------------------------------------------------


def test_when_the_lease_ends_what_may_run_elsewhere_is_given_back(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.order(assign=[assign()])
        await asyncio.sleep(LEASE - 5.0)
        states = [scene.jobs[0].state]
        await asyncio.sleep(8.0)
        states.append(scene.jobs[0].state)
        assert states == [JobState.PENDING, JobState.RETURNED]

    play(story)


def test_the_lease_counts_from_when_the_report_was_sent_that_it_answers(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.reports)
        sent = scene.reports[-1].sent
        await asyncio.sleep(20.0)
        await scene.order(echo=sent)
        assert scene.lease.until == sent + LEASE
        await scene.order(echo=scene.now() + 1000.0)
        assert scene.lease.until == sent + LEASE, "no such report was sent yet"

    play(story)


def test_a_clock_that_differs_from_the_coordinators_is_told_until_it_agrees(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.reports)
        for ahead, told in ((7.5, ["clock: the clock is 7.5 s behind the coordinator's"]), (0.5, [])):
            await scene.order(wall=scene.world.wall + ahead, echo=scene.now())
            assert scene.health.notes == told
            known = scene.health.coordinator_ahead
            assert known is not None
            assert abs(known.seconds - ahead) <= known.within + 1e-6
        await scene.order(wall=scene.world.wall + 60.0, echo=scene.now() - 30.0)
        assert scene.health.notes == [], "an answer to a report of half a minute ago says nothing of clocks"

    play(story)


def test_a_topod_that_comes_back_knows_whether_the_lease_is_over(tmp_path: Path) -> None:
    file = tmp_path / "lease"
    Lease(file, "boot").renew(100.0)
    assert Lease(file, "boot").left(40.0) == 60.0
    assert Lease(file, "another boot").left(40.0) == 0.0
    assert Lease(file, "").left(40.0) == 0.0
    file.write_text("{")
    assert Lease(file, "boot").left(40.0) == 0.0
    assert Lease(tmp_path / "no folder" / "lease", "boot").left(40.0) == 0.0


def test_a_lease_that_cannot_be_written_down_still_holds(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "no folder" / "lease", "boot")
    lease.renew(100.0)
    assert lease.left(40.0) == 60.0


def test_after_a_restart_without_a_lease_nothing_of_the_fleet_is_begun(play: Play) -> None:
    first: list[HostState] = []

    async def before(scene: Scene) -> None:
        await scene.order(assign=[assign()])
        first.append(scene.mailbox.state)

    play(before).lease.path.unlink()

    async def after(scene: Scene) -> None:
        await asyncio.sleep(1.0)
        assert scene.jobs[0].state is JobState.RETURNED

    play(after, first[0])


# --- questions, and trouble ---------------------------------------------------------------------------------


def answers(scene: Scene) -> list[link.HostAnswer]:
    return [one for one in scene.heard if isinstance(one, link.HostAnswer)]


def test_a_question_is_answered_in_the_name_of_who_asked(play: Play) -> None:
    async def story(scene: Scene) -> None:
        asked = rq.Exec(job=1, command=["ls"], by="mallory")
        scene.wire.say(link.HostAsk(id="q1", user="alice", request=asked))
        scene.wire.say(link.HostAsk(id="q2", user="alice", request=rq.GetJob(job=12)))
        await scene.until(lambda: len(answers(scene)) == 2)
        replies = {one.id: one.reply for one in answers(scene)}
        assert replies["q1"] == rp.Done(text="done")
        assert isinstance(replies["q2"], rp.Failure)
        assert replies["q2"].text == "no job 12"
        assert [one.by for one in scene.asked if isinstance(one, rq.Exec)] == ["alice"]

    play(story)


def test_a_coordinator_that_is_silent_is_told_of_and_another_one_tried_less_and_less_often(
    play: Play,
) -> None:
    async def story(scene: Scene) -> None:
        await scene.order()
        scene.wire.trouble = "connection refused"
        await asyncio.sleep(400.0)
        assert scene.health.notes == ["fleet: the coordinator is not heard: connection refused"]
        assert 5 <= scene.wire.moved <= 10
        await scene.order()
        assert not scene.health.notes

    play(story)


def test_a_host_that_is_turned_away_says_why_and_comes_back_ever_less_often(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(scene: Scene) -> None:
        def turn_away(message: link.AnyFromHost) -> None:
            scene.heard.append(message)
            if refusing:
                scene.wire.say(link.TurnedAway(reason="its name is in use"))

        refusing, scene.wire._hear = True, turn_away
        await scene.until(lambda: scene.health.notes)
        await asyncio.sleep(300.0)
        assert scene.health.notes == ["fleet: turned away by the coordinator: its name is in use"]
        assert 10 <= scene.wire.moved <= 30
        assert len(scene.heard) <= 2 * scene.wire.moved + 4
        assert 4 <= [record.message for record in caplog.records].count("fleet.turned-away") <= 6
        refusing = False
        reports = len(scene.reports)
        await scene.until(lambda: len(scene.reports) > reports)
        await scene.order(assign=[assign()])
        assert (len(scene.jobs), scene.health.notes) == (1, [])

    play(story)


def test_what_is_no_message_is_passed_over(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.reports)
        for bad in (b"", b"{", b"[" * 100_000, b'{"kind": "orders"}'):
            scene.wire._inbox.put_nowait(bad)
        await scene.order(assign=[assign()])
        assert len(scene.jobs) == 1

    play(story)
