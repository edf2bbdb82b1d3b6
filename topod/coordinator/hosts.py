"""The talk with the hosts: who is connected, what they report, what they are told, what they are asked.

Rule: a host is told nothing that is not durable, so it is told after each step, and with each report. Nothing
that is sent is remembered as sent: what a host has not confirmed is said again.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from topod.adapters.curve_peers import Connection
from topod.coordinator.kinds import Hardware
from topod.coordinator.mailbox import Mailbox
from topod.coordinator.portions import first_part
from topod.errors import DaemonUnavailableError, TopodError
from topod.fleet import events as ev
from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.fleet.orders import orders_for
from topod.fleet.outcome import FleetOutcome
from topod.fleet.terms import Terms
from topod.model.assignment import FleetJobReport
from topod.ports import Clock
from topod.protocol import link
from topod.protocol.codec import ProtocolError
from topod.protocol.replies import AnyReply, Failure
from topod.protocol.requests import AnyRequest
from topod.shell.logs import Key

CLOCKS_AGREE_SECONDS: Final = 1.0
"""A host's clock that is off by less is taken for ours; and one that is off is not measured anew for less."""
ASK_SECONDS: Final = 10.0
TWIN_LOG_SECONDS: Final = 60.0
TWIN_SECONDS: Final = 120.0
"""So long a topod that was turned away is told of: it comes again at least twice a minute."""

log = logging.getLogger(__name__)


class Line(Protocol):
    """The port on which hosts talk; `CurveServer` is one."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many connections there are, and how often what was refused."""
        ...

    def send_to(self, connection: Connection, message: link.AnyToHost) -> bool:
        """Send to a host; False: it did not get it."""
        ...


class HostAwayError(DaemonUnavailableError):
    """The host of a job cannot be asked just now."""


@dataclass(slots=True)
class Session:
    """One start of a host's topod, and the connection on which it was heard last."""

    hello: link.HostHello
    connection: Connection
    greeted: bool = False
    """The fleet knows it; until then its last report with contents waits."""
    waiting: link.HostReport | None = None
    sent: dict[int, float] = field(default_factory=dict)
    """When the reports that were not stepped yet were sent, by their number."""
    echo: float = 0.0
    offset: float = 0.0
    """What must be added to the moments that the host tells (seconds)."""


@dataclass(slots=True)
class _Twin:
    """A topod that came under the name of a host that is there."""

    address: str
    at: float
    """When it came last."""
    logged_at: float


class Hosts:
    """All hosts that talk to this coordinator. Used from the event loop only."""

    def __init__(self, mailbox: Mailbox, line: Callable[[], Line], *, clock: Clock, terms: Terms) -> None:
        self._mailbox = mailbox
        self._line = line
        self._clock = clock
        self._terms = terms
        self._hardware = Hardware()
        self._sessions: dict[str, Session] = {}
        self._twins: dict[str, _Twin] = {}
        self._questions: dict[str, tuple[str, asyncio.Future[AnyReply]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._orders = 0
        self._ordered: set[str] = set()
        """Hosts that were sent orders of this leadership."""

    def session(self, host: str) -> Session | None:
        """Return a host's present session; None: it has not been here since the start."""
        return self._sessions.get(host)

    def troubles(self, host: str) -> list[str]:
        """Return what is wrong with a host that it does not tell itself."""
        twin = self._twins.get(host)
        ago = 0.0 if twin is None else self._clock.now() - twin.at
        if twin is None or ago > TWIN_SECONDS:
            self._twins.pop(host, None)
            return []
        where = f" at {twin.address}" if twin.address else ""
        return [f"another topod with this name{where} was turned away {ago:.0f} s ago"]

    def is_emulated(self, host: str) -> bool:
        """Say whether a host is emulated, as far as it told."""
        session = self._sessions.get(host)
        return session is not None and session.hello.emulated

    @property
    def counts(self) -> Mapping[str, int]:
        """What the port counts."""
        return self._line().counts

    async def stop(self) -> None:
        """Greet nobody any more, and wait for no answer."""
        for host, future in self._questions.values():
            if not future.done():
                future.set_exception(HostAwayError(f"{host} was asked by a coordinator that leads no more"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what hosts say -------------------------------------------------------------------------------------

    def hear(self, connection: Connection, message: link.AnyFromHost) -> None:
        """Take in what the host of a connection says; the port has seen to it that it is that one."""
        match message:
            case link.HostHello():
                self._hello(connection, message)
            case link.HostReport():
                self._report(connection, message)
            case link.HostAnswer():
                host, future = self._questions.get(message.id, ("", None))
                if future is not None and host == connection.name and not future.done():
                    future.set_result(message.reply)

    def gone(self, connection: Connection) -> None:
        """Take note that a connection ended."""
        session = self._sessions.get(connection.name)
        if session is None or session.connection is not connection:
            return
        self._mailbox.post(ev.HostSilent(host=connection.name, session=session.hello.session))
        for host, future in self._questions.values():
            if host == connection.name and not future.done():
                future.set_exception(HostAwayError(f"the connection to {host} broke off"))

    def _hello(self, connection: Connection, hello: link.HostHello) -> None:
        away = self._mailbox.view.turned_away(hello.host, hello.session)
        if away is not None:
            self._note_twin(connection, away)
            self._turn_away(connection, away)
            return
        old = self._sessions.get(hello.host)
        session = Session(hello, connection)
        if old is not None and old.hello.session == hello.session:
            session.echo, session.offset = old.echo, old.offset
        self._sessions[hello.host] = session
        task = asyncio.create_task(self._greet(session), name=f"greet {hello.host}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _note_twin(self, connection: Connection, reason: str) -> None:
        """Remember who was turned away for a host that is there; one line of the log a minute."""
        now, before = self._clock.now(), self._twins.get(connection.name)
        logged_at = now if before is None or now - before.logged_at >= TWIN_LOG_SECONDS else before.logged_at
        self._twins[connection.name] = _Twin(connection.who.address, now, logged_at)
        if logged_at == now:
            extra = {Key.HOST: connection.name, "peer": connection.who.address, Key.ERROR: reason}
            log.warning("host.turned-away", extra=extra)

    async def _greet(self, session: Session) -> None:
        """Have the fleet know a session; whatever hinders it, the host is asked again when it reports."""
        hello = session.hello
        try:
            hardware, tables = await self._hardware.find(hello.document)
            seen = ev.HostSeen(
                host=hello.host,
                session=hello.session,
                tables=tables,
                hardware=hardware,
                labels=hello.labels,
                version=hello.version,
                address=hello.address,
            )
            await self._mailbox.ask(seen)
        except TopodError as error:
            log.warning("host.not_greeted", extra={Key.HOST: hello.host, Key.ERROR: error.message})
            self._turn_away(session.connection, error.message)
            if self._sessions.get(hello.host) is session:
                del self._sessions[hello.host]
            return
        if self._sessions.get(hello.host) is not session:
            return
        if not self._mailbox.view.knows(hello.host, hello.session):
            # Another one came first.
            del self._sessions[hello.host]
            return
        session.greeted = True
        report, session.waiting = session.waiting, None
        if report is None:
            self._tell(hello.host)
        else:
            self._report(session.connection, report)

    def _report(self, connection: Connection, report: link.HostReport) -> None:
        session = self._sessions.get(connection.name)
        if session is None or session.hello.session != report.session:
            self._send(connection, link.Who())
            return
        session.connection = connection
        if not session.greeted:
            if report.snapshot is not None or session.waiting is None:
                session.waiting = report
            return
        if not self._mailbox.view.knows(connection.name, report.session):
            del self._sessions[connection.name]
            self._send(connection, link.Who())
            return
        session.sent[report.seq] = report.sent
        if report.wall:
            off = self._clock.now() - report.wall
            if abs(off - session.offset) > CLOCKS_AGREE_SECONDS:
                session.offset = off if abs(off) > CLOCKS_AGREE_SECONDS else 0.0
        host, offset = connection.name, session.offset
        known = self._mailbox.state.epoch
        other = report.epoch > known or (report.epoch == known and host not in self._ordered)
        self._mailbox.post(
            ev.HostReported(
                host=host,
                session=report.session,
                seq=report.seq,
                snapshot=None if report.snapshot is None else our_time(report.snapshot, offset, host),
                jobs=None if report.jobs is None else tuple(_ours(job, offset) for job in report.jobs),
                troubles=tuple(report.troubles),
                epoch=report.epoch if other else 0,
                fence=report.fence if other else 0,
            )
        )

    # --- what hosts are told --------------------------------------------------------------------------------

    def tell(self, outcome: FleetOutcome, events: Sequence[ev.Event]) -> None:
        """Send what an outcome, durable now, has for the hosts; and answer those who reported."""
        reported = {event.host for event in events if isinstance(event, ev.HostReported)}
        for host in sorted({*outcome.orders, *reported}):
            self._tell(host)

    def _tell(self, host: str) -> None:
        session, seen = self._sessions.get(host), self._mailbox.view.hosts.get(host)
        if session is None or not session.greeted or seen is None or seen.session != session.hello.session:
            return
        for seq in sorted(session.sent):
            if seq <= seen.seq:
                session.echo = session.sent.pop(seq)
        orders = orders_for(self._mailbox.state, self._mailbox.view, host)
        self._orders += 1
        self._ordered.add(host)
        message = link.Orders(
            session=session.hello.session,
            epoch=self._mailbox.state.epoch,
            seq=self._orders,
            echo=session.echo,
            lease_seconds=self._terms.lease_seconds if session.echo else 0.0,
            seen=seen.seen,
            assign=list(orders.assign),
            revoke=list(orders.revoke),
            settled=list(orders.settled),
            priorities=dict(orders.priorities),
            wall=self._clock.now(),
        )
        try:
            self._line().send_to(session.connection, message)
        except ProtocolError:
            self._send(session.connection, first_part(message))

    def _turn_away(self, connection: Connection, reason: str) -> None:
        self._send(connection, link.TurnedAway(reason=reason))

    def _send(self, connection: Connection, message: link.AnyToHost) -> bool:
        try:
            return self._line().send_to(connection, message)
        except ProtocolError as error:
            extra = {Key.HOST: connection.name, Key.ERROR: error.message}
            log.warning("host.untold", extra=extra)
            return False

    # --- what hosts are asked -------------------------------------------------------------------------------

    async def ask(self, host: str, user: str, request: AnyRequest, seconds: float = ASK_SECONDS) -> AnyReply:
        """Return a host's answer to a user's request. Raises `HostAwayError` where none comes in time."""
        session = self._sessions.get(host)
        seen = self._mailbox.view.hosts.get(host)
        if session is None or seen is None or seen.silent:
            raise HostAwayError(f"{host} is not connected just now", hint="topoctl hosts")
        ident = uuid.uuid4().hex
        future: asyncio.Future[AnyReply] = asyncio.get_running_loop().create_future()
        self._questions[ident] = host, future
        try:
            if not self._send(session.connection, link.HostAsk(id=ident, user=user, request=request)):
                raise HostAwayError(f"{host} cannot be reached just now", hint="topoctl hosts")
            async with asyncio.timeout(seconds):
                reply = await future
        except TimeoutError:
            raise HostAwayError(f"{host} did not answer within {seconds:g} s", hint="topoctl hosts") from None
        finally:
            del self._questions[ident]
        if isinstance(reply, Failure):
            raise HostRefusedError(reply)
        return reply


class HostRefusedError(TopodError):
    """A host refused what it was asked; carries its words."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text, hint=failure.hint)
        self.code = failure.code
        self.exit_status = failure.exit_status


def our_time(snapshot: HostSnapshot, offset: float, host: str) -> HostSnapshot:
    """Return a snapshot under the host's name in the fleet, with its moments by our clock."""
    holders = tuple(_shifted(held, offset) for held in snapshot.holders) if offset else snapshot.holders
    return replace(snapshot, host=host, holders=holders)


def _shifted(held: HeldBy, offset: float) -> HeldBy:
    return replace(
        held,
        guarded_until=held.guarded_until + offset if held.guarded_until else 0.0,
        evictable_from=held.evictable_from + offset if held.evictable_from else held.evictable_from,
        work_since=None if held.work_since is None else held.work_since + offset,
    )


def _ours(report: FleetJobReport, offset: float) -> FleetJobReport:
    if not offset:
        return report
    return replace(
        report,
        started_at=None if report.started_at is None else report.started_at + offset,
        ended_at=None if report.ended_at is None else report.ended_at + offset,
    )
