"""A coordinator's talk with hosts: who is let in, what is durable before it is said, whose clock counts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from topod.adapters.curve_peers import Connection
from topod.adapters.peers import RemotePeer
from topod.adapters.sqlite_fleet import SqliteFleet
from topod.coordinator.hosts import HostAwayError, HostRefusedError, Hosts
from topod.coordinator.mailbox import Mailbox
from topod.coordinator.picker import make_picker
from topod.coordinator.views import fairness_view
from topod.discovery.document import dump_host
from topod.discovery.library import load_library_host
from topod.errors import ConflictError, StoreError
from topod.fleet import events as ev
from topod.fleet.board import Board
from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.fleet.states import FleetRequest
from topod.fleet.terms import Terms
from topod.model.assignment import FleetJobReport
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.model.rules import NO_RULES, Quota, Rules, Scope
from topod.protocol import link
from topod.protocol.curve import Kind
from topod.protocol.link_codec import encode_to_host
from topod.protocol.replies import Done, Failure
from topod.protocol.requests import ReadLog
from topod.shell.health import Health

SECONDS = 20.0
DOCUMENT: dict[str, Any] = msgspec.json.decode(dump_host(load_library_host("dgx1").topology))
JOB = FleetRequest(spec=JobSpec(name="t", command=("x",), request=ResourceRequest(gpus=8)))


class Clock:
    at = 1000.0

    def now(self) -> float:
        return self.at


@dataclass
class Site:
    """A coordinator's parts over a wire that only remembers what is sent."""

    store: SqliteFleet
    mailbox: Mailbox
    clock: Clock
    sent: list[tuple[str, link.AnyToHost]] = field(default_factory=list)
    hosts: Hosts = field(init=False)
    reading: bool = True
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hosts = Hosts(self.mailbox, lambda: self, clock=self.clock, terms=Terms(lease_seconds=30.0))

    def send_to(self, connection: Connection, message: link.AnyToHost) -> bool:
        encode_to_host(message)
        self.sent.append((connection.name, message))
        return self.reading

    async def told(self, kind: type[link.ToHost], number: int = 1) -> Any:
        """Return the message of a kind that came as the `number`th."""
        async with asyncio.timeout(SECONDS):
            while len(found := [message for _, message in self.sent if isinstance(message, kind)]) < number:  # noqa: ASYNC110 - the wire tells nobody
                await asyncio.sleep(0.005)
        return found[number - 1]

    async def joins(self, session: str = "s", name: str = "a", **report: Any) -> link.Orders:
        """Have a host say hello and report, and return the orders that answer the report."""
        self.sent.clear()
        line = connection(name)
        self.hosts.hear(line, hello(session, name))
        self.hosts.hear(line, reported(session, name, **report))
        orders: link.Orders = await self.told(link.Orders)
        return orders


@asynccontextmanager
async def site(folder: Path, rules: Rules = NO_RULES) -> AsyncIterator[Site]:
    clock = Clock()
    store = SqliteFleet(folder / "fleet.db")
    mailbox = Mailbox(
        store.load(), store, Board(make_picker(spread=False)), clock=clock, health=Health(), rules=rules
    )
    made = Site(store, mailbox, clock)
    await mailbox.lead(tell=made.hosts.tell, publish=lambda _: None)
    try:
        yield made
    finally:
        await made.hosts.stop()
        await mailbox.stop()
        store.close()


def connection(name: str = "a") -> Connection:
    return Connection(who=RemotePeer(kind=Kind.HOST, name=name), key=name, routing=name.encode(), fd=-1)


def hello(session: str = "s", name: str = "a") -> link.HostHello:
    return link.HostHello(host=name, session=session, version="1", document=DOCUMENT)


def reported(session: str = "s", name: str = "a", seq: int = 1, **more: Any) -> link.HostReport:
    fields: dict[str, Any] = {
        "snapshot": HostSnapshot(host="machine", generation=1),
        "jobs": [],
        "since": seq,
    }
    return link.HostReport(session=session, seq=seq, sent=100.0 + seq, **{**fields, **more})


def test_a_session_that_nobody_knows_is_asked_who_it_is(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as made:
            made.hosts.hear(connection(), reported())
            assert made.sent == [("a", link.Who())]

    asyncio.run(story())


def test_a_report_is_answered_with_its_own_moment_and_a_lease(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as made:
            orders = await made.joins()
            assert (orders.session, orders.epoch, orders.echo, orders.lease_seconds) == ("s", 1, 101.0, 30.0)
            assert orders.seen == 1
            assert made.mailbox.view.hosts["a"].snapshot == HostSnapshot(host="a", generation=1)

    asyncio.run(story())


def test_orders_too_long_for_one_message_come_one_after_the_other(tmp_path: Path) -> None:
    large = replace(JOB.spec, request=ResourceRequest(gpus=1), env={"A": "x" * 3_600_000})

    async def story() -> None:
        async with site(tmp_path) as made:
            over = FleetJobReport(job=900, fence=900, local=7, state="succeeded")
            await made.joins(jobs=[over])
            for _ in range(6):
                await made.mailbox.ask(ev.Submitted(request=FleetRequest(spec=large)))
            first = made.sent[-1][1]
            assert isinstance(first, link.Orders)
            assert [order.tag.job for order in first.assign] == [1, 2, 3, 4]
            assert first.settled == []
            taken = [FleetJobReport(job=n, fence=n, local=n, state="running") for n in range(1, 5)]
            made.sent.clear()
            made.hosts.hear(connection(), reported(seq=2, jobs=[*taken, over]))
            rest = await made.told(link.Orders)
            assert [order.tag.job for order in rest.assign] == [5, 6]
            assert [one.fence for one in rest.settled] == [900]

    asyncio.run(story())


def test_of_a_host_s_reports_that_wait_the_newest_is_looked_at(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as made:
            await made.joins()
            snapshots = [
                HostSnapshot(host="machine", generation=n, holders=(HeldBy(job=str(n), priority=1),))
                for n in range(2, 50)
            ]
            for seq, snapshot in enumerate(snapshots, 2):
                made.hosts.hear(connection(), reported(seq=seq, snapshot=snapshot))
                made.hosts.hear(connection(), reported(seq=seq, snapshot=None, jobs=None, since=seq))
            made.sent.clear()
            assert (await made.told(link.Orders)).seen == 49
            assert made.mailbox.view.hosts["a"].snapshot == replace(snapshots[-1], host="a")

    asyncio.run(story())


def test_a_second_live_host_of_one_name_is_turned_away_until_the_first_is_gone(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as made:
            await made.joins()
            cloned = replace(connection(), who=RemotePeer(kind=Kind.HOST, name="a", address="10.0.0.9"))
            made.hosts.hear(cloned, hello("twin"))
            assert "calls itself a" in (await made.told(link.TurnedAway)).reason
            made.clock.at += 7.0
            words = "another topod with this name at 10.0.0.9 was turned away 7 s ago"
            assert made.hosts.troubles("a") == [words]
            made.clock.at += 1000.0
            assert made.hosts.troubles("a") == []
            made.clock.at -= 1007.0
            first = made.hosts.session("a")
            assert first is not None
            made.hosts.gone(first.connection)
            await made.mailbox.until(lambda _: made.mailbox.view.hosts["a"].silent, 5.0)
            assert (await made.joins("twin")).session == "twin"

    asyncio.run(story())


def test_what_is_no_host_document_is_turned_away_in_words(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as made:
            made.hosts.hear(connection(), msgspec.structs.replace(hello(), document={"name": 7}))
            assert "not a host document" in (await made.told(link.TurnedAway)).reason
            made.hosts.hear(connection(), reported())
            assert await made.told(link.Who) == link.Who()

    asyncio.run(story())


def test_an_assignment_is_durable_before_the_host_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as made:
            await made.joins()
            known: list[object] = []
            send = made.send_to

            def look(line: Connection, message: link.AnyToHost) -> bool:
                if isinstance(message, link.Orders) and message.assign:
                    known.append(made.store.job(message.assign[0].tag.job))
                return send(line, message)

            made.send_to = look  # type: ignore[assignment, method-assign]  # to look at the moment of sending
            done = await made.mailbox.ask(ev.Submitted(request=JOB))
            assert done.job is not None
            assert known == [made.mailbox.state.jobs[done.job]]

    asyncio.run(story())


def test_a_report_that_could_not_be_stored_gives_no_lease_and_is_not_called_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with site(tmp_path) as made:
            await made.joins()
            done = await made.mailbox.ask(ev.Submitted(request=JOB))
            job = FleetJobReport(job=1, fence=1, local=4, state="running", started_at=1000.0)
            made.sent.clear()

            def full(*_: object, **__: object) -> None:
                raise StoreError("disk full")

            monkeypatch.setattr(made.store, "commit", full)
            made.hosts.hear(connection(), reported(seq=2, jobs=[job]))
            with pytest.raises(StoreError):
                await made.mailbox.ask(ev.CancelRequested(job=done.job or 0))  # type: ignore[arg-type]  # shorthand
            assert made.sent == []
            monkeypatch.undo()
            made.hosts.hear(connection(), reported(seq=3, jobs=[job]))
            orders = await made.told(link.Orders)
            assert (orders.echo, orders.seen) == (103.0, 3)

    asyncio.run(story())


def test_moments_that_a_host_tells_are_taken_by_our_clock(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as made:
            held = HeldBy(job="1", priority=5, gpus=1, evictable_from=400.0, work_since=390.0)
            snapshot = HostSnapshot(host="x", generation=1, holders=(held,))
            await made.joins(snapshot=snapshot, wall=500.0)
            seen = made.mailbox.view.hosts["a"].snapshot
            assert seen is not None
            assert seen.holders == (replace(held, evictable_from=900.0, work_since=890.0),)
            # Off by less than a second is the way of the message, not the clock.
            made.clock.at = 1000.7
            made.hosts.hear(connection(), reported(seq=2, snapshot=snapshot, wall=500.0))
            await made.told(link.Orders, 2)
            assert made.mailbox.view.hosts["a"].snapshot == seen

    asyncio.run(story())


def test_a_question_is_answered_by_the_host_it_was_put_to_and_by_no_other(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as made:
            await made.joins()
            await made.joins(name="b", session="t")
            made.sent.clear()
            answer = asyncio.create_task(made.hosts.ask("a", "alice", ReadLog(job=4)))
            ask = await made.told(link.HostAsk)
            assert (ask.user, ask.request) == ("alice", ReadLog(job=4))
            made.hosts.hear(connection("b"), link.HostAnswer(id=ask.id, reply=Done(text="false")))
            made.hosts.hear(connection("a"), link.HostAnswer(id=ask.id, reply=Done(text="true")))
            assert await answer == Done(text="true")

    asyncio.run(story())


def test_a_question_to_a_host_that_refuses_or_goes_away_ends_in_words(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as made:
            with pytest.raises(HostAwayError, match="a is not connected"):
                await made.hosts.ask("a", "alice", ReadLog(job=4))
            await made.joins()
            made.sent.clear()
            refused = asyncio.create_task(made.hosts.ask("a", "alice", ReadLog(job=4)))
            ask = await made.told(link.HostAsk)
            failure = Failure(code="not-found", text="no job 4", exit_status=4)
            made.hosts.hear(connection(), link.HostAnswer(id=ask.id, reply=failure))
            with pytest.raises(HostRefusedError, match="no job 4"):
                await refused
            left = asyncio.create_task(made.hosts.ask("a", "alice", ReadLog(job=4)))
            await made.told(link.HostAsk, 2)
            session = made.hosts.session("a")
            assert session is not None
            made.hosts.gone(session.connection)
            with pytest.raises(HostAwayError, match="broke off"):
                await left

    asyncio.run(story())


def test_a_quota_counts_what_a_user_has_on_all_hosts(tmp_path: Path) -> None:
    rules = replace(NO_RULES, quotas=(Quota(scope=Scope.USER, value="*", gpus=12),))

    async def story() -> None:
        async with site(tmp_path, rules) as made:
            await made.joins()
            await made.joins(name="b", session="t")
            spec = replace(JOB.spec, user="alice")
            with pytest.raises(ConflictError, match="the quota of user alice is 12 GPUs, 16 asked"):
                await made.mailbox.ask(ev.Submitted(request=replace(JOB, spec=spec, hosts=2)))
            await made.mailbox.ask(ev.Submitted(request=replace(JOB, spec=spec)))
            done = await made.mailbox.ask(ev.Submitted(request=replace(JOB, spec=spec)))
            jobs = sorted(done.state.jobs.values(), key=lambda job: job.id)
            assert [job.state.value for job in jobs] == ["assigned", "pending"]
            assert "the quota of user alice is 12 GPUs, 8 held" in jobs[1].reason
            (use,) = fairness_view(done.state, (), rules, "alice").quotas
            assert (use.value, use.gpus, use.limit) == ("alice", 8, 12)

    asyncio.run(story())
