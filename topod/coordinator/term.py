"""One leadership of a coordinator: all that it knows only as long as it leads."""

from collections.abc import Callable
from dataclasses import dataclass

from topod.adapters.curve_peers import Connection
from topod.adapters.peers import Peer, RemotePeer
from topod.coordinator.hosts import Hosts, Line
from topod.coordinator.mailbox import Mailbox
from topod.coordinator.picker import make_picker
from topod.coordinator.service import Identity, Service
from topod.coordinator.storage import FleetStore
from topod.coordinator.witness import Witness
from topod.fleet.board import Board
from topod.fleet.states import FleetState
from topod.fleet.terms import Terms
from topod.model.rules import Rules
from topod.ports import Clock
from topod.protocol import link
from topod.protocol import replies as rp
from topod.protocol import requests as rq
from topod.protocol.views import EventView
from topod.shell.access import Access
from topod.shell.gate import Gate
from topod.shell.health import Health


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What outlives leaderships."""

    store: FleetStore
    line: Line
    access: Access
    health: Health
    identity: Identity
    rules: Rules
    """With which the next leadership begins."""
    terms: Terms
    spread: bool
    publish: Callable[[EventView], None]
    witness: Witness


class Term:
    """A leadership. Used from the event loop only."""

    def __init__(self, around: Surroundings, state: FleetState, clock: Clock) -> None:
        """`clock` must never jump: leases are counted by it."""
        self._around = around
        self.mailbox = Mailbox(
            state,
            around.store,
            Board(make_picker(spread=around.spread)),
            clock=clock,
            health=around.health,
            rules=around.rules,
            terms=around.terms,
        )
        self._hosts = Hosts(self.mailbox, lambda: around.line, clock=clock, terms=around.terms)
        self._service = Service(
            self.mailbox,
            around.store,
            self._hosts,
            clock=clock,
            health=around.health,
            identity=around.identity,
        )
        self._gate = Gate(around.access, answer=self._service.answer, owner=self._service.owner)

    async def begin(self) -> None:
        """Lead, durably. Raises `StoreError`."""
        await self.mailbox.lead(
            tell=self._hosts.tell, publish=self._publish, witness=self._around.witness.saw
        )

    def _publish(self, event: EventView) -> None:
        self._service.following.note(event)
        self._around.publish(event)

    async def end(self) -> None:
        """Finish the commit in progress, and answer everybody who waits."""
        await self._hosts.stop()
        await self.mailbox.stop()

    def hear(self, connection: Connection, message: link.AnyFromHost) -> None:
        """Take in what a host says."""
        self._hosts.hear(connection, message)

    def gone(self, connection: Connection) -> None:
        """Take note that a host's connection ended."""
        self._hosts.gone(connection)

    async def answer(self, request: rq.AnyRequest, peer: Peer | RemotePeer | None) -> rp.AnyReply:
        """Return the reply to a request. Raises `TopodError`."""
        return await self._gate.answer(request, peer)
