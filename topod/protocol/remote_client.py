"""A user's line to the coordinators: one request, one reply, and in words why there is none.

A key that is not known, a coordinator that is another one, and a place where nobody listens all look alike to
a socket: no answer. Its monitor tells them apart.
"""

import contextlib
import socket
import time
from typing import Final

import zmq

from topod.errors import DaemonUnavailableError, NotAllowedError, TopodError
from topod.protocol.codec import MAX_REPLY_BYTES
from topod.protocol.remote import EVENTS, Coordinator, Remote, read_event, refusal, set_keys

PROBE_SECONDS: Final = 1.0
HEARTBEAT_MS: Final = 2000
GONE_MS: Final = 6000
SEVERAL_HEARTBEAT_MS: Final = 1000
SEVERAL_GONE_MS: Final = 4000
"""Where another coordinator may lead meanwhile: sooner, and what is asked again loses little by it."""
SILENT_SECONDS: Final = 2.0
"""So long one of several may take for the handshake at first; from the third time on a second longer each."""
HINT: Final = "see --coordinator, TOPOD_COORDINATOR and client.toml"
UNKNOWN_HINT: Final = (
    "name another key with --key, or give the administrator this one's line: topoctl keys show FILE"
)
WRONG_HINT: Final = "compare --coordinator-key with `topoctl keys show` on the coordinator; else try again"


class UnreachableError(DaemonUnavailableError):
    """Nobody got the request: another coordinator may be asked."""


class SilentError(UnreachableError):
    """A place that takes connections and has not said anything: a coordinator that is stopped, or busy."""


class RemoteLine:
    """A connection to one coordinator at a time. Not thread-safe."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", remote: Remote) -> None:
        self._context = context
        self._remote = remote
        self._at = 0
        self._wire: zmq.Socket[bytes] | None = None
        self._watch: zmq.Socket[bytes] | None = None
        self._connected = False
        self._silences = 0

    @property
    def coordinator(self) -> Coordinator:
        """Return the coordinator that is asked."""
        return self._remote.coordinators[self._at]

    def exchange(self, data: bytes, timeout: float) -> bytes:
        """Send a request and return the bytes of its reply within `timeout` seconds.

        The next coordinator is tried as long as nobody got the request, and those again that did not even
        shake hands. Raises `DaemonUnavailableError` and `NotAllowedError`.
        """
        end = time.monotonic() + timeout
        told: list[TopodError] = []
        while True:
            try:
                return self._once(data, end, timeout)
            except UnreachableError as error:
                self.move_on()
                told.append(error)
                told = told[-len(self._remote.coordinators) :]
                done = len(told) == len(self._remote.coordinators)
                hopeless = done and not any(isinstance(one, SilentError) for one in told)
                if hopeless or time.monotonic() >= end:
                    text = "; ".join(dict.fromkeys(one.message for one in told))
                    raise UnreachableError(text, hint=told[0].hint) from None
            except (
                DaemonUnavailableError
            ):  # it has the request, and broke off or says nothing: the next may lead
                self.move_on()
                raise
            except BaseException:  # Ctrl-C: the next question must not wait for this one's answer
                self.drop()
                raise

    def move_on(self) -> None:
        """Turn to the next coordinator."""
        self.drop()
        self._at = (self._at + 1) % len(self._remote.coordinators)

    def drop(self) -> None:
        """Hang up; the next request connects anew."""
        if self._wire is not None and self._watch is not None:
            self._wire.disable_monitor()
            self._watch.close(linger=0)
            self._wire.close(linger=0)
        self._wire = self._watch = None
        self._connected = False

    def _once(self, data: bytes, end: float, timeout: float) -> bytes:
        wire, watch = self._opened()
        wire.send(data)
        several = len(self._remote.coordinators) > 1
        patience = SILENT_SECONDS + max(0, self._silences - 1)
        silent_at = min(end, time.monotonic() + patience) if several else end
        poller = zmq.Poller()
        poller.register(wire, zmq.POLLIN)
        poller.register(watch, zmq.POLLIN)
        hung_up = 0
        while True:
            left = (end if self._connected else silent_at) - time.monotonic()
            ready = dict(poller.poll(round(left * 1000))) if left > 0 else {}
            if wire in ready:
                return wire.recv()
            if watch not in ready:
                if left > 0:
                    continue
                raise self._silent(timeout, patience if several else timeout)
            hung_up += self._judge(read_event(watch.recv_multipart())[0], hung_up)

    def _judge(self, event: int, hung_up: int) -> int:
        """Take in an event; return 1 where the coordinator hung up in the handshake. Raises what it means."""
        here = self.coordinator
        text = refusal(event, here, self._remote.keys) or ""
        match event:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = True
                self._silences = 0
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise NotAllowedError(text, hint=UNKNOWN_HINT)
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                raise UnreachableError(text, hint=HINT)
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL if hung_up:
                raise UnreachableError(text, hint=WRONG_HINT)
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                return 1  # once may be a coordinator that just ends
            case zmq.EVENT_DISCONNECTED if self._connected:
                text = f"the coordinator at {here.endpoint} broke off before it answered"
                raise DaemonUnavailableError(text, hint="what was asked for may have been done: look first")
            case zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED if not self._connected and not hung_up:
                raise UnreachableError(_why_unreachable(here.endpoint), hint=HINT)
            case _:
                pass
        return 0

    def _silent(self, timeout: float, patience: float) -> DaemonUnavailableError:
        where = self.coordinator.endpoint
        if self._connected:
            return DaemonUnavailableError(f"the coordinator at {where} did not answer within {timeout:g} s")
        self._silences += 1
        text = f"the coordinator at {where} could not be reached within {min(timeout, patience):g} s"
        return SilentError(text, hint=HINT)

    def _opened(self) -> "tuple[zmq.Socket[bytes], zmq.Socket[bytes]]":
        if self._watch is not None:
            # It may have gone since the last request; this one would wait for its return.
            with contextlib.suppress(zmq.Again):
                while True:
                    event, _ = read_event(self._watch.recv_multipart(zmq.NOBLOCK))
                    if event == zmq.EVENT_DISCONNECTED:
                        self.drop()
                        break
        if self._wire is None or self._watch is None:
            wire = self._context.socket(zmq.REQ)
            set_keys(wire, self._remote.keys, self.coordinator)
            wire.set(zmq.MAXMSGSIZE, MAX_REPLY_BYTES + 4096)
            # A coordinator that is cut off is no better than one that is gone.
            several = len(self._remote.coordinators) > 1
            wire.set(zmq.HEARTBEAT_IVL, SEVERAL_HEARTBEAT_MS if several else HEARTBEAT_MS)
            wire.set(zmq.HEARTBEAT_TIMEOUT, SEVERAL_GONE_MS if several else GONE_MS)
            self._watch = wire.get_monitor_socket(EVENTS)
            wire.connect(self.coordinator.endpoint)
            self._wire = wire
        return self._wire, self._watch


def _why_unreachable(endpoint: str) -> str:
    """Return why there is no connection, in the words of the operating system."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    why = "no answer"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
    except OSError as error:
        why = error.strerror or str(error) or why
    return f"the coordinator at {endpoint} cannot be reached: {why}"
