"""Builds the coordinator from its parts and runs it; the only place that knows all of them."""

import asyncio
import logging
import signal
import time
from contextlib import AsyncExitStack, closing
from functools import partial
from typing import Final

from topod import __version__
from topod.adapters.authorized import AuthorizedKeys
from topod.adapters.curve_keys import read_private
from topod.adapters.curve_server import CurveServer
from topod.adapters.ipc_files import check_path
from topod.adapters.sqlite_fleet import SqliteFleet
from topod.adapters.zmq_server import Server
from topod.coordinator.config import Settings
from topod.coordinator.hosts import Hosts
from topod.coordinator.mailbox import Mailbox
from topod.coordinator.picker import make_picker
from topod.coordinator.service import Identity, Service
from topod.fleet.board import Board
from topod.fleet.states import FleetState
from topod.fleet.terms import Terms
from topod.protocol.client import events_socket
from topod.protocol.curve import KeyPair
from topod.shell.access import Access
from topod.shell.config_file import rules_of
from topod.shell.gate import Gate
from topod.shell.health import Health
from topod.shell.lock import StateLock
from topod.shell.logs import Key

PORT: Final = "port"
LOOK_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


class LeadClock:
    """Epoch seconds as of its making, and then by a clock that nobody can set: leases are counted by it."""

    def __init__(self) -> None:
        self._offset = time.time() - _steady()

    def now(self) -> float:
        """Return epoch seconds."""
        return self._offset + _steady()


def _steady() -> float:
    """Return seconds since the machine booted, the time it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def run(settings: Settings) -> None:
    """Run the coordinator until SIGTERM or SIGINT. Jobs go on; everything decided is durable.

    Raises `TopodError` when it cannot start.
    """
    check_path(settings.socket)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with (
        StateLock(settings.state_dir, who="coordinator"),
        closing(SqliteFleet(settings.state_dir / "fleet.db")) as store,
    ):
        keys = read_private(settings.key_file)
        await _serve(settings, store, store.load(), keys=keys, stopped=stopped)
    log.info("coordinator.stopped")


async def _serve(
    settings: Settings, store: SqliteFleet, state: FleetState, *, keys: KeyPair, stopped: asyncio.Event
) -> None:
    """Start every part, wait for `stopped`, and stop the parts, those that bring work first."""
    clock, health, rules = LeadClock(), Health(), rules_of(settings.file)
    terms = Terms(lease_seconds=settings.lease_seconds)
    board = Board(make_picker(spread=settings.spread))
    mailbox = Mailbox(state, store, board, clock=clock, health=health, rules=rules, terms=terms)
    hosts = Hosts(mailbox, lambda: port, clock=clock, terms=terms)
    access = Access(settings.file.security)
    identity = Identity(
        state_dir=str(settings.state_dir),
        events_endpoint=f"ipc://{events_socket(settings.socket)}",
        endpoint=settings.listen,
        started_at=clock.now(),
    )
    service = Service(mailbox, store, hosts, clock=clock, health=health, identity=identity, rules=rules)
    gate = Gate(access, answer=service.answer, owner=service.owner)
    port = CurveServer(
        settings.listen,
        keys,
        AuthorizedKeys(settings.authorized_keys),
        on_host=hosts.hear,
        answer=gate.answer,
        on_gone=hosts.gone,
    )
    security = settings.file.security
    server = Server(
        settings.socket,
        gate.answer,
        group=security.socket_group,
        mode=int(security.socket_mode, 8),
        may_watch=None if access.open_to_view else access.may_view,
        on_trouble=partial(health.tell, "socket"),
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(mailbox.stop)
        stack.push_async_callback(hosts.stop)
        stack.callback(access.close)
        stack.push_async_callback(server.stop)
        stack.push_async_callback(port.stop)
        server.bind()
        port.bind()
        await mailbox.lead(tell=hosts.tell, publish=server.publish)
        port.start()
        server.start()
        stack.callback(asyncio.create_task(_watch(port, health), name="port watch").cancel)
        extra = {
            Key.VERSION: __version__,
            Key.HOST: port.endpoint,
            Key.SOCKET: str(settings.socket),
            Key.STATE_DIR: str(settings.state_dir),
            Key.JOBS: len(state.jobs),
        }
        log.info("coordinator.started", extra=extra)
        await stopped.wait()
        log.info("coordinator.stopping")


async def _watch(port: CurveServer, health: Health) -> None:
    """Keep on the board whether the file of keys is in force."""
    while True:
        health.tell(PORT, port.trouble)
        await asyncio.sleep(LOOK_SECONDS)
