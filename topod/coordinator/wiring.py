"""Builds the coordinator from its parts and runs it; the only place that knows all of them."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from topod import __version__
from topod.adapters.authorized import AuthorizedKeys
from topod.adapters.credentials import handed
from topod.adapters.curve_keys import read_private
from topod.adapters.curve_server import CurveServer
from topod.adapters.ipc_files import check_path
from topod.adapters.service_manager import ServiceManager
from topod.adapters.zmq_server import Server
from topod.coordinator.config import Settings
from topod.coordinator.counting import standing_line
from topod.coordinator.election import Alone, Election, Lead
from topod.coordinator.forgetting import forget_old
from topod.coordinator.front import Front
from topod.coordinator.memory import open_memory
from topod.coordinator.service import Identity, welcome
from topod.coordinator.storage import FleetStore
from topod.coordinator.term import Surroundings, Term
from topod.coordinator.witness import Witness
from topod.errors import NotFoundError, StoreError
from topod.fleet.terms import Terms
from topod.protocol import replies as rp
from topod.protocol import requests as rq
from topod.protocol.client import events_socket
from topod.protocol.curve import KeyPair, Kind
from topod.shell.access import Access
from topod.shell.config_file import ConfigFile, rules_of
from topod.shell.gate import Gate
from topod.shell.health import Health
from topod.shell.lock import StateLock
from topod.shell.logs import Key
from topod.shell.metrics.part import MetricsPart
from topod.shell.reloading import Reloader, supervised
from topod.shell.supervision import Pulse, Supervision

if TYPE_CHECKING:
    from topod.coordinator.metrics import FleetMetrics
    from topod.shell.metrics.instruments import Answer
    from topod.shell.metrics.part import Asking

PORT: Final = "port"
LOOK_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 1.0
"""After the end of a leadership: others first."""

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
    manager = ServiceManager.of(os.environ)
    check_path(settings.socket)
    stopped = asyncio.Event()
    # By default it would end a daemon that is not ready yet; the file is about to be read anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with (
        StateLock(settings.state_dir, who="coordinator"),
        open_memory(settings) as (lead, store),
    ):
        keys = read_private(handed(settings.key_file), Kind.COORDINATOR)
        await _serve(settings, lead, store, keys=keys, stopped=stopped, manager=manager)
    log.info("coordinator.stopped")


async def _serve(
    settings: Settings,
    lead: Lead,
    store: FleetStore,
    *,
    keys: KeyPair,
    stopped: asyncio.Event,
    manager: ServiceManager,
) -> None:
    """Start every part, lead whenever that is possible until `stopped`, and stop the parts."""
    health = Health()
    access = Access(settings.file.security)
    front = Front(
        lead,
        lambda: port,
        welcome=lambda text: welcome(identity, text, health),
        trouble=lambda: election.trouble,
        configured=_gate_of_config(settings, access),
    )
    witness = Witness()
    metrics = MetricsPart(settings.metrics, lambda: _told(witness, health, front))
    answer = metrics.counted(front.answer)
    known = AuthorizedKeys(settings.authorized_keys)
    port = CurveServer(settings.listen, keys, known, on_host=front.hear, answer=answer, on_gone=front.gone)
    server = _server(settings, access, health, answer)
    identity = _identity(settings, shared=not isinstance(lead, Alone))
    around = Surroundings(
        store=store,
        line=front,
        access=access,
        health=health,
        identity=identity,
        rules=rules_of(settings.file),
        terms=Terms(lease_seconds=settings.lease_seconds),
        spread=settings.spread,
        publish=server.publish,
        witness=witness,
    )
    seconds = float(settings.file.store.lease_seconds)
    election = Election(lead, health, lease_seconds=seconds, unheard=front.unheard)
    async with AsyncExitStack() as stack:
        stack.callback(access.close)
        stack.callback(election.close)
        server.bind()
        stack.push_async_callback(server.stop)
        port.bind()
        stack.push_async_callback(port.stop)
        stack.callback(metrics.stop)
        health.metrics_url = metrics.start()
        port.start()
        server.start()
        forgetting = forget_old(store.forget, settings.file.history.keep_days, LeadClock())
        for work in (_watch(port, health), forgetting):
            stack.callback(asyncio.create_task(work).cancel)
        await stack.enter_async_context(_supervised(manager, settings, front, election, around))
        log.info("coordinator.started", extra=_about(settings, port, health.metrics_url))
        await _until(stopped, _lead_in_turn(election, front, around))
        log.info("coordinator.stopping")


def _line(front: Front, election: Election) -> str:
    """Return how it stands, for people."""
    leading = front.leading
    if leading is not None:
        return standing_line(leading.state, leading.view)
    return f"cannot lead: {election.trouble}" if election.trouble else "stands by: another one leads"


def _pulse(front: Front) -> Pulse | None:
    return None if front.leading is None else front.leading.pulse


def _supervised(
    manager: ServiceManager, settings: Settings, front: Front, election: Election, around: Surroundings
) -> AbstractAsyncContextManager[None]:
    """Return that during which the service manager is told how it stands, and can ask for a reload."""

    def take(file: ConfigFile) -> None:
        around.rules = rules_of(file)
        if front.leading is not None:
            front.leading.obey(around.rules)

    health = around.health
    return supervised(
        Supervision(
            manager, line=partial(_line, front, election), health=health, pulse=lambda: _pulse(front)
        ),
        Reloader(settings.configured, take=take, health=health),
    )


def _server(settings: Settings, access: Access, health: Health, answer: "Answer[Asking]") -> Server:
    """Return the sockets on this machine."""
    security = settings.file.security
    return Server(
        settings.socket,
        answer,
        group=security.socket_group,
        mode=int(security.socket_mode, 8),
        may_watch=None if access.open_to_view else access.may_view,
        on_trouble=partial(health.tell, "socket"),
    )


def _told(witness: Witness, health: Health, front: Front) -> "FleetMetrics":
    from topod.coordinator.metrics import FleetMetrics  # noqa: PLC0415 - see MetricsPart

    return FleetMetrics(
        witness, clock=LeadClock(), health=health, port=lambda: front.counts, leading=lambda: front.leading
    )


async def _lead_in_turn(election: Election, front: Front, around: Surroundings) -> None:
    """Lead whenever nobody does. Raises `StoreError` where the only coordinator cannot, and never returns."""
    while True:
        await election.won(front.led_by)
        try:
            await _lead(election, front, around)
        except StoreError as error:
            if not around.identity.shared:
                raise
            around.health.trouble("store", error.message)
        finally:
            # Also when the coordinator is stopped: another one need not wait for the end of the lease.
            await asyncio.shield(election.resign())
        log.warning("coordinator.leads-no-more")
        await asyncio.sleep(PAUSE_SECONDS)


async def _lead(election: Election, front: Front, around: Surroundings) -> None:
    """Lead until the lead is lost. Raises `StoreError` where it cannot even begin."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(election.kept())
        state = await asyncio.to_thread(around.store.load)
        term = Term(around, state, LeadClock())
        stack.push_async_callback(term.end)
        await term.begin()
        front.open(term)
        stack.callback(front.close)
        extra = {Key.JOBS: len(state.jobs), Key.SEQ: term.mailbox.state.epoch}
        log.info("coordinator.leads", extra=extra)
        await election.lost()


async def _until(stopped: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Do the work until `stopped`, and bring it to its end then. Raises what it raises."""
    done, waits = asyncio.create_task(work, name="lead"), asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait((done, waits), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waits.cancel()
        done.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await done


def _gate_of_config(settings: Settings, access: Access) -> "Answer[Asking]":
    """Return what answers about the configuration, whoever leads."""

    async def told(_request: rq.AnyRequest) -> rp.AnyReply:
        return await settings.configured.told()

    async def nobodys(ident: int) -> tuple[str, str]:
        raise NotFoundError(f"no such job: {ident}")

    return Gate(access, answer=told, owner=nobodys).answer


def _identity(settings: Settings, *, shared: bool) -> Identity:
    return Identity(
        configured=settings.configured.told,
        state_dir=str(settings.state_dir),
        events_endpoint=f"ipc://{events_socket(settings.socket)}",
        endpoint=settings.listen,
        started_at=time.time(),
        shared=shared,
    )


def _about(settings: Settings, port: CurveServer, metrics: str) -> dict[str, object]:
    return {
        **({Key.METRICS: metrics} if metrics else {}),
        Key.VERSION: __version__,
        Key.HOST: port.endpoint,
        Key.SOCKET: str(settings.socket),
        Key.STATE_DIR: str(settings.state_dir),
    }


async def _watch(port: CurveServer, health: Health) -> None:
    """Keep on the board whether the file of keys is in force."""
    while True:
        health.tell(PORT, port.trouble)
        await asyncio.sleep(LOOK_SECONDS)
