"""A host's side of the talk with its coordinator: it tells how it stands, takes orders, answers questions.

Rule: orders are acted on only if they are of this session, of no earlier leadership than was seen, and newer
than the last. They are confirmed by the report of what they led to, and by nothing else. Assignments are
taken only while the lease runs: from its end on their jobs may be given to others.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final, Protocol, assert_never

import msgspec

from topod import __version__
from topod.adapters.zmq_server import failure
from topod.daemon.fleet_orders import Judge, the_rest, to_judge
from topod.daemon.fleet_report import fleet_jobs, host_snapshot
from topod.daemon.lease import Lease, steady
from topod.discovery.document import dump_host
from topod.errors import StoreError, TopodError, UsageError
from topod.flextopo.tables import TopologyTables
from topod.lifecycle.events import Event
from topod.lifecycle.states import HostState
from topod.model.rules import NO_RULES, Rules
from topod.ports import Clock, Wire
from topod.protocol import link
from topod.protocol.codec import ProtocolError
from topod.protocol.link_codec import decode_to_host, encode_from_host
from topod.protocol.replies import AnyReply
from topod.protocol.requests import AnyRequest, DryRun, Submit
from topod.shell.clocks import compare_clocks
from topod.shell.health import Health
from topod.shell.logs import Key

HEARTBEAT_SECONDS: Final = 2.0
SHORTEST_SECONDS: Final = 0.2
"""Between two reports: what happens meanwhile shares one."""
SILENCE_SECONDS: Final = (10.0, 60.0)
"""After so long without orders another connection is tried: at first, and at most."""
REFUSED_SECONDS: Final = (1.0, 30.0)
"""Turned away, it comes back after half as long as that has gone on; at least, and at most."""
REFUSED_LOG_SECONDS: Final = 60.0
TURNS_AT_ONCE: Final = 2
TURN_SECONDS: Final = 1.5
"""Between two further turns: a leader that is not found is dead, and who stands by takes over soon."""
ASKS_MAX: Final = 64
EPOCH: Final = "fleet epoch"

log = logging.getLogger(__name__)


class Memory(Protocol):
    """What outlives topod beside the jobs; both methods may block and raise `StoreError`."""

    def facts(self) -> dict[str, str]:
        """Return what is remembered, by name."""
        ...

    def note_facts(self, facts: dict[str, str]) -> None:
        """Remember more; durable on return."""
        ...


class Core(Protocol):
    """What owns the state of the host; `daemon.mailbox.Mailbox` does."""

    state: HostState

    @property
    def recovered(self) -> bool:
        """Whether the runtime has been looked at since the start."""
        ...

    async def post(self, event: Event) -> None:
        """Have an event happen; never lost."""
        ...

    async def until(self, done: Callable[[HostState], bool], seconds: float) -> None:
        """Return when `done` holds of the state, or after that many seconds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSide:
    """What the link needs of the daemon around it."""

    mailbox: Core
    tables: TopologyTables
    clock: Clock
    health: Health
    memory: Memory
    answer: Callable[[AnyRequest], Awaitable[AnyReply]]
    judge: Judge
    rules: Callable[[], Rules] = lambda: NO_RULES
    name: str = ""
    """In the fleet; empty: as the topology says."""
    labels: Mapping[str, str] = field(default_factory=dict)
    address: Callable[[], str] = str
    """By which other hosts reach this one; may block. Empty: nobody knows."""

    @property
    def host(self) -> str:
        """The name by which the coordinator knows the host."""
        return self.name or self.tables.topology.name


@dataclass(slots=True)
class _Told:
    """The last report with contents."""

    state: HostState | None = None
    closed: str | None = None
    contents: object = None


@dataclass(slots=True)
class _Turns:
    """The search for a leader of whom coordinators that stand by tell."""

    leader: str
    made: int = 0
    last: float = 0.0


@dataclass(slots=True)
class _Refused:
    """How long the coordinator has turned this host away. All by the steady clock."""

    since: float = 0.0
    until: float = 0.0
    """Nothing is said before."""
    logged_at: float = -inf
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Orders came."""

    def again(self, now: float, reason: str) -> None:
        """Take note of another refusal."""
        self.since = self.since or now
        least, most = REFUSED_SECONDS
        if now >= self.until:
            self.until = now + min(most, max(least, (now - self.since) / 2))
        if now - self.logged_at >= REFUSED_LOG_SECONDS:
            self.logged_at = now
            log.warning("fleet.turned-away", extra={Key.ERROR: reason})


class FleetLink:
    """The talk with one coordinator after the other. Used from the event loop only."""

    def __init__(
        self,
        host: HostSide,
        wire: Wire,
        lease: Lease,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        now: Callable[[], float] = steady,
    ) -> None:
        """`now` is the steady clock of the lease."""
        self._host = host
        self._wire = wire
        self._lease = lease
        self._heartbeat = heartbeat_seconds
        self._now = now
        self._session = secrets.token_hex(8)
        self._seq = self._since = self._seen = 0
        self._orders = (0, 0)
        """Epoch and number of the last orders that were acted on."""
        self._told = _Told()
        self._turns = _Turns("")
        self._refused = _Refused()
        self._heard_at = now()
        self._patience = SILENCE_SECONDS[0]
        self._tasks: list[asyncio.Task[None]] = []
        self._answers: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to talk."""
        work = (self._listen, "fleet orders"), (self._talk, "fleet reports")
        self._tasks = [asyncio.create_task(_again_and_again(task), name=name) for task, name in work]

    async def stop(self) -> None:
        """Say no more; what was ordered is durable, or will be ordered again."""
        tasks = [*self._tasks, *self._answers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._wire.close()

    # --- what is said ---------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        await self._say(await self._hello())
        while True:
            await self._stay_away()
            await self._say(self._report())
            self._look_for_silence()
            await asyncio.sleep(min(SHORTEST_SECONDS, self._heartbeat))
            await self._host.mailbox.until(lambda state: state is not self._told.state, self._heartbeat)

    async def _stay_away(self) -> None:
        """Say nothing for a while where the coordinator turned this host away, and then begin anew."""
        if not self._refused.until:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._refused.until - self._now()):
                await self._refused.over.wait()
        if self._refused.until:
            self._refused.until = 0.0
            self._wire.move_on()

    async def _say(self, message: link.AnyFromHost) -> None:
        try:
            await self._wire.send(encode_from_host(message))
        except ProtocolError as error:
            log.warning("fleet.unsaid", extra={Key.EVENT: type(message).__name__, Key.ERROR: error.message})

    async def _hello(self) -> link.HostHello:
        host = self._host
        return link.HostHello(
            host=host.host,
            session=self._session,
            version=__version__,
            document=msgspec.json.decode(dump_host(host.tables.topology)),
            labels=dict(host.labels),
            runtime=host.judge.runtime,
            emulated=host.tables.topology.emulated,
            address=await asyncio.to_thread(host.address),
        )

    def _report(self) -> link.HostReport:
        """Return how the host stands; in full where that is news, or was not heard yet."""
        host, told = self._host, self._told
        state, closed, wall = host.mailbox.state, self._closed(), host.clock.now()
        self._seq += 1
        report = link.HostReport(
            session=self._session,
            seq=self._seq,
            sent=self._now(),
            since=self._since,
            epoch=self._orders[0],
            wall=wall,
            troubles=host.health.notes,
        )
        unheard = self._seen < self._since or not self._since
        if state is told.state and closed == told.closed and not unheard:
            return report
        snapshot = host_snapshot(host.tables, state, wall, host.rules(), labels=host.labels, closed=closed)
        snapshot, jobs = replace(snapshot, host=host.host), fleet_jobs(state)
        contents = replace(snapshot, generation=0), jobs
        self._told = _Told(state, closed, contents)
        if contents == told.contents and not unheard:
            return report
        self._since = self._seq
        fence = max([state.settled_fence, *(job.fence for job in jobs)])
        return msgspec.structs.replace(report, since=self._seq, snapshot=snapshot, jobs=[*jobs], fence=fence)

    def _closed(self) -> str | None:
        """Return why nothing new should come just now."""
        if not self._host.mailbox.recovered:
            return "topod has just started there and has not looked at its containers yet"
        for subject, words in (("store", "its state database"), ("runtime", "its container engine")):
            if self._host.health.has(subject):
                return f"{words} does not work there just now"
        return None

    # --- what is heard --------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while not self._orders[0]:
            with contextlib.suppress(StoreError):
                known = await asyncio.to_thread(self._host.memory.facts)
                self._orders = (int(known.get(EPOCH, "0")), 0)
                break
            await asyncio.sleep(self._heartbeat)
        while True:
            data = await self._wire.recv()
            try:
                await self._hear(decode_to_host(data))
            except TopodError as error:
                log.warning("fleet.unheard", extra={Key.ERROR: error.message})

    async def _hear(self, message: link.AnyToHost) -> None:
        match message:
            case link.Who():
                if not self._refused.until:  # who was turned away just now says nothing for a while
                    self._seen = 0
                    await self._say(await self._hello())
                    await self._say(self._report())
            case link.Orders():
                await self._obey(message)
            case link.HostAsk():
                self._begin_answer(message)
            case link.NotLeader():
                await self._look_elsewhere(message.leader)
            case link.TurnedAway():
                self._host.health.trouble("fleet", f"turned away by the coordinator: {message.reason}")
                self._heard_at, self._patience = self._now(), SILENCE_SECONDS[0]
                self._refused.again(self._now(), message.reason)
            case _:
                assert_never(message)

    async def _look_elsewhere(self, leader: str) -> None:
        """Turn to another coordinator where one leads; not over and over to one that may be dead."""
        self._seen = 0
        if leader != self._turns.leader:
            self._turns = _Turns(leader)
        turns, now = self._turns, self._now()
        if not leader or (turns.made >= TURNS_AT_ONCE and now < turns.last + TURN_SECONDS):
            return
        turns.made, turns.last = turns.made + 1, now
        self._wire.move_on()
        await self._say(self._report())

    async def _obey(self, orders: link.Orders) -> None:
        epoch, seq = self._orders
        if orders.session != self._session or (orders.epoch, orders.seq) <= (epoch, seq):
            return
        if orders.epoch > epoch:
            with contextlib.suppress(StoreError):
                await asyncio.to_thread(self._host.memory.note_facts, {EPOCH: str(orders.epoch)})
                epoch = orders.epoch
            if epoch != orders.epoch:
                return  # it says it again
        self._orders = (orders.epoch, orders.seq)
        self._turns = _Turns("")
        self._refused.over.set()
        self._refused = _Refused()
        self._heard_at, self._patience = self._now(), SILENCE_SECONDS[0]
        self._host.health.well("fleet")
        self._seen = orders.seen
        if orders.echo:
            compare_clocks(self._host.health, orders.wall, self._host.clock.now(), self._now() - orders.echo)
        if 0 < orders.echo <= self._now() and orders.lease_seconds > 0:
            self._lease.renew(orders.echo + orders.lease_seconds)
        await self._carry_out(orders)

    async def _carry_out(self, orders: link.Orders) -> None:
        """Post what is new: assignments first, and all of them or none."""
        mailbox = self._host.mailbox
        judged = await asyncio.to_thread(
            lambda: [self._host.judge.event(order) for order in to_judge(orders, mailbox.state)]
        )
        leased = self._lease.left(self._now()) > 0
        events: list[Event] = list(judged) if leased else []
        events += the_rest(orders, mailbox.state, whole=leased or not judged)
        for event in events:
            await mailbox.post(event)

    def _begin_answer(self, ask: link.HostAsk) -> None:
        task = asyncio.create_task(self._answer(ask), name=f"answer {ask.id}")
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, ask: link.HostAsk) -> None:
        try:
            if len(self._answers) > ASKS_MAX:
                raise UsageError(
                    f"{self._host.host} is busy with {ASKS_MAX} other questions of the coordinator"
                )
            reply = await self._host.answer(_in_the_name_of(ask.user, ask.request))
        except TopodError as error:
            reply = failure(error)
        await self._say(link.HostAnswer(id=ask.id, reply=reply))

    def _look_for_silence(self) -> None:
        """Say that the coordinator is not heard, and try another connection, less and less often."""
        silent = self._now() - self._heard_at
        if silent < self._patience:
            return
        why = f": {self._wire.trouble}" if self._wire.trouble else ""
        self._host.health.trouble("fleet", f"the coordinator is not heard{why}")
        self._patience = silent + min(SILENCE_SECONDS[1], silent)
        self._wire.move_on()


async def _again_and_again(work: Callable[[], Awaitable[None]]) -> None:
    """Begin anew what ended by a defect: a host that says nothing loses its jobs at the end of the lease."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("fleet.failed")
        await asyncio.sleep(HEARTBEAT_SECONDS)


def _in_the_name_of(user: str, request: AnyRequest) -> AnyRequest:
    """Return a request with the user whom the coordinator names; it has seen to who may ask what."""
    match request:
        case Submit() | DryRun():
            return msgspec.structs.replace(request, spec=replace(request.spec, user=user))
        case _ if "by" in request.__struct_fields__:
            return msgspec.structs.replace(request, by=user)
        case _:
            return request
