"""What hosts and users meet: a leader's work while this coordinator leads, else the word that it does not."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from topod.adapters.curve_peers import Connection
from topod.adapters.peers import Peer, RemotePeer
from topod.coordinator.election import Lead
from topod.coordinator.hosts import Line
from topod.coordinator.mailbox import Mailbox
from topod.errors import MemoryAwayError, NotLeaderError
from topod.protocol import link
from topod.protocol import replies as rp
from topod.protocol import requests as rq

BEGIN_SECONDS: Final = 5.0


class Term(Protocol):
    """One leadership, from its beginning to its end."""

    mailbox: Mailbox

    def hear(self, connection: Connection, message: link.AnyFromHost) -> None:
        """Take in what a host says."""
        ...

    def gone(self, connection: Connection) -> None:
        """Take note that a host's connection ended."""
        ...

    async def answer(self, request: rq.AnyRequest, peer: Peer | RemotePeer | None) -> rp.AnyReply:
        """Return the reply to a request. Raises `TopodError`."""
        ...


class Front:
    """Stands between the ports and the leaderships that come and go. Used from the event loop only."""

    def __init__(
        self,
        lead: Lead,
        line: Callable[[], Line],
        *,
        welcome: Callable[[str], rp.Welcome],
        trouble: Callable[[], str],
        configured: Callable[[rq.AnyRequest, Peer | RemotePeer | None], Awaitable[rp.AnyReply]],
    ) -> None:
        """`welcome` says on this machine who answers, and why it does not lead; `trouble`: see `Election`.

        `configured` answers, to who may know, about the configuration, whoever leads.
        """
        self._lead = lead
        self._line = line
        self._welcome = welcome
        self._trouble = trouble
        self._configured = configured
        self._term: Term | None = None
        self._opened = asyncio.Event()
        self._heard_at = float("-inf")
        self._waiting: dict[str, Connection] = {}
        """Hosts that spoke while no leadership was open, and may still be there."""

    def unheard(self) -> float:
        """Return for how long no host was heard (seconds); to begin to lead counts as hearing one."""
        return time.monotonic() - self._heard_at

    def open(self, term: Term) -> None:
        """Begin to pass everything on to a leadership, and have those hosts speak who wait for one."""
        self._term = term
        self._heard_at = time.monotonic()
        self._opened.set()
        waiting, self._waiting = self._waiting, {}
        for connection in waiting.values():
            self.send_to(connection, link.Who())

    def close(self) -> None:
        """Pass nothing on any more."""
        self._term = None
        self._opened.clear()

    @property
    def leading(self) -> Mailbox | None:
        """The owner of the fleet's state while this coordinator leads."""
        term = self._present()
        return None if term is None else term.mailbox

    # --- what the ports bring -------------------------------------------------------------------------------

    def hear(self, connection: Connection, message: link.AnyFromHost) -> None:
        """Take in what a host says."""
        self._heard_at = time.monotonic()
        if (term := self._present()) is not None:
            term.hear(connection, message)
            return
        self._waiting[connection.name] = connection
        if not self._lead.leads():
            self._line().send_to(connection, link.NotLeader(leader=self._lead.leader))

    @property
    def counts(self) -> Mapping[str, int]:
        """What the port counts."""
        return self._line().counts

    def led_by(self, leader: str) -> None:
        """Tell the hosts that wait here that another one leads now."""
        for connection in self._waiting.values():
            self._line().send_to(connection, link.NotLeader(leader=leader))

    def gone(self, connection: Connection) -> None:
        """Take note that a host's connection ended."""
        if self._waiting.get(connection.name) is connection:
            del self._waiting[connection.name]
        if (term := self._present()) is not None:
            term.gone(connection)

    async def answer(self, request: rq.AnyRequest, peer: Peer | RemotePeer | None) -> rp.AnyReply:
        """Return the reply to a request. Raises `TopodError`."""
        if isinstance(request, rq.GetConfig):
            return await self._configured(request, peer)
        if self._lead.leads():
            # What it begins with takes a moment.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEGIN_SECONDS):
                    await self._opened.wait()
        if (term := self._present()) is not None:
            return await term.answer(request, peer)
        away = self._away()
        if isinstance(request, rq.Hello) and not isinstance(peer, RemotePeer):
            return self._welcome(away.message)
        raise away

    def _away(self) -> NotLeaderError:
        """Return why nothing is done here. Who led last is not named where that cannot be known."""
        trouble = self._trouble()
        if trouble:
            return MemoryAwayError(f"no coordinator can lead the fleet: {trouble}", hint=_MEMORY_HINT)
        leader = self._lead.leader or "nobody"
        return NotLeaderError(f"this coordinator stands by: {leader} leads the fleet just now", hint=_HINT)

    # --- what the leader sends ------------------------------------------------------------------------------

    def send_to(self, connection: Connection, message: link.AnyToHost) -> bool:
        """Send to a host what a leader says; False: it did not get it, or this one does not lead any more."""
        return self._lead.leads() and self._line().send_to(connection, message)

    def _present(self) -> Term | None:
        return self._term if self._lead.leads() else None


_HINT: Final = (
    "name all coordinators: topoctl --coordinator tcp://A:PORT,tcp://B:PORT asks the one that leads"
)
_MEMORY_HINT: Final = (
    "jobs go on, and topoctl on each host works; see that most members of etcd are up and in reach:"
    " etcdctl endpoint health"
)
