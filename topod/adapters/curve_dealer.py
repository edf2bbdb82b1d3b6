"""A host's line to the coordinators: one connection, to one of them at a time.

With several coordinators the next one is tried when one cannot be reached, refuses, or breaks off and
does not come back. Not all at once: reports would go to each of them in turn, and none would have the whole.
"""

import contextlib
import logging
import time
from collections.abc import Sequence
from math import inf
from typing import Final

import zmq
import zmq.asyncio

from topod.adapters.curve_limits import watch_over
from topod.protocol.curve import KeyPair
from topod.protocol.link_codec import MAX_TO_HOST_BYTES
from topod.protocol.remote import EVENTS, Coordinator, read_event, refusal, set_keys

PATIENCE_SECONDS: Final = 3.0
"""So long one coordinator may be out of reach before the next is tried."""
ABSENT_SECONDS: Final = 0.3
"""The same where nobody listens: another one may lead by now."""
AGAIN_SECONDS: Final = 2.0
"""After a refusal."""
UNSENT_MESSAGES: Final = 16
LOOK_MS: Final = 250
"""So often somebody looks whether it is time to turn to another one."""

log = logging.getLogger(__name__)


class CurveDealer:
    """A `topod.ports.Wire` with CURVE. Used from the event loop only; somebody must be waiting in `recv`."""

    def __init__(
        self,
        coordinators: Sequence[Coordinator],
        keys: KeyPair,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        again_seconds: float = AGAIN_SECONDS,
        context: zmq.asyncio.Context | None = None,
    ) -> None:
        """`coordinators`: at least one; connected when first used.

        Many in one process share a `context`, which `close` then leaves alone: each has threads of its own.
        """
        self._coordinators: Final = tuple(coordinators)
        self._keys = keys
        self._patience = patience_seconds
        self._again = again_seconds
        self._owns_context = context is None
        self._context = context or zmq.asyncio.Context()
        self._at = 0
        self._wire: zmq.asyncio.Socket | None = None
        self._watch: zmq.asyncio.Socket | None = None
        self._poller = zmq.asyncio.Poller()
        self._turn_at = 0.0
        """When to give this coordinator up, unless it is connected by then; 0: libzmq goes on trying."""
        self._moving = False
        self._hung_up = 0
        self._held: bytes | None = None
        self._told = ""
        """The last connection that the log was told of; the same one again is no news."""
        self.connected: bool = False
        self.trouble: str = ""
        """Why there is no connection, in words; empty: there is one, or nothing is known yet."""

    @property
    def endpoint(self) -> str:
        """Return the coordinator that is spoken to, or tried."""
        return self._coordinators[self._at].endpoint

    async def send(self, data: bytes) -> None:
        """Send one message; never waits. Without a connection the newest is kept for the next one."""
        if self._wire is None or not self.connected or self._moving:
            self._held = data
            return
        sent = self._wire.send(data, zmq.NOBLOCK)
        with contextlib.suppress(zmq.Again):
            await sent

    async def recv(self) -> bytes:
        """Return the next message of a coordinator, through all losses of the connection."""
        while True:
            wire, watch = self._opened()
            ready = dict(await self._poller.poll(LOOK_MS))
            if watch in ready:
                await self._happened(watch)
            elif wire in ready:
                with contextlib.suppress(zmq.Again):
                    return (await wire.recv_multipart(zmq.NOBLOCK))[-1]
            if self._turn_at and not self.connected and time.monotonic() >= self._turn_at:
                self._note(self.trouble or f"the coordinator at {self.endpoint} cannot be reached")
                self._moving = True
            if self._moving:
                self._drop()
                self._at = (self._at + 1) % len(self._coordinators)

    def move_on(self) -> None:
        """Turn to the next coordinator, within a second; with one only: connect to it anew."""
        self._moving = True

    def close(self) -> None:
        """Hang up; whoever waits in `recv` is to be cancelled before."""
        self._drop()
        if self._owns_context:
            self._context.destroy(linger=0)

    def _opened(self) -> tuple[zmq.asyncio.Socket, zmq.asyncio.Socket]:
        if self._wire is not None and self._watch is not None:
            return self._wire, self._watch
        coordinator = self._coordinators[self._at]
        wire = self._context.socket(zmq.DEALER)
        set_keys(wire, self._keys, coordinator)
        watch_over(wire)
        wire.set(zmq.MAXMSGSIZE, MAX_TO_HOST_BYTES + 4096)
        wire.set(zmq.SNDHWM, UNSENT_MESSAGES)
        # Unbounded, as on the coordinator's side (`CurveServer.bind`): it says no more than it is asked.
        wire.set(zmq.RCVHWM, 0)
        wire.set(zmq.RECONNECT_IVL, 200)
        wire.set(zmq.RECONNECT_IVL_MAX, 2000)
        watch = wire.get_monitor_socket(EVENTS)
        wire.connect(coordinator.endpoint)
        self._wire, self._watch = wire, watch
        self._hung_up = 0
        self._turn_at = 0.0 if len(self._coordinators) == 1 else time.monotonic() + self._patience
        self._poller.register(wire, zmq.POLLIN)
        self._poller.register(watch, zmq.POLLIN)
        return wire, watch

    def _drop(self) -> None:
        self.connected = False
        if self._wire is not None and self._watch is not None:
            self._poller.unregister(self._wire)
            self._poller.unregister(self._watch)
            self._wire.disable_monitor()
            self._watch.close(linger=0)
            self._wire.close(linger=0)
        self._wire = self._watch = None
        self._moving = False

    async def _happened(self, watch: zmq.asyncio.Socket) -> None:
        try:
            event, _ = read_event(await watch.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            return
        coordinator = self._coordinators[self._at]
        match event:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.connected = True
                news = bool(self.trouble) or self._told != coordinator.endpoint
                self.trouble, self._told = "", coordinator.endpoint
                self._hung_up = 0
                self._turn_at = 0.0
                if news:
                    log.info("fleet.connected", extra={"socket": coordinator.endpoint})
                held, self._held = self._held, None
                if held is not None:
                    await self.send(held)
            case zmq.EVENT_DISCONNECTED if self.connected:
                self.connected = False
                self._note(f"the connection to the coordinator at {coordinator.endpoint} broke off")
                self._turn_within(self._patience)
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                # libzmq does not try again after this; the administrator may add the key meanwhile.
                self._refused(coordinator)
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                # Once may be a coordinator that just ends.
                self._hung_up += 1
                if self._hung_up > 1 or event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                    self._refused(coordinator, event)
            case zmq.EVENT_CLOSED:
                self._note(f"the coordinator at {coordinator.endpoint} cannot be reached")
                self._turn_within(ABSENT_SECONDS)
            case _:
                pass

    def _turn_within(self, seconds: float) -> None:
        """Try the next coordinator after so long, if not before; where there are several."""
        if len(self._coordinators) > 1 and not self.connected:
            self._turn_at = min(self._turn_at or inf, time.monotonic() + seconds)

    def _refused(self, coordinator: Coordinator, event: int = zmq.EVENT_HANDSHAKE_FAILED_AUTH) -> None:
        self._note(refusal(event, coordinator, self._keys) or "")
        # Not later than before: libzmq tries again by itself, and each try ends here.
        self._turn_at = min(self._turn_at or inf, time.monotonic() + self._again)

    def _note(self, text: str) -> None:
        """Say what is wrong, once for each thing that is."""
        if text != self.trouble:
            self.trouble = text
            log.warning("fleet.unreachable", extra={"error": text})
