"""A blocking client: one request, one reply, one deadline."""

import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

import zmq

from topod.errors import (
    DaemonUnavailableError,
    LeadLostError,
    MemoryAwayError,
    NotAllowedError,
    NotLeaderError,
    TopodError,
    UsageError,
)
from topod.protocol.codec import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    ProtocolError,
    RequestEnvelope,
    decode_event,
    decode_reply,
    encode,
)
from topod.protocol.remote import Remote
from topod.protocol.remote_client import RemoteLine, UnreachableError
from topod.protocol.replies import AnyReply, Events, Failure
from topod.protocol.requests import AnyRequest, AtHost, HostRequest, ReadEvents, Submit, changes_nothing
from topod.protocol.views import EventView

EVENTS_SECONDS = 1.0
ROUND_SECONDS = 0.3
"""Between two rounds of questions who leads."""
NOBODY_LEADS: Final = frozenset({NotLeaderError.code, MemoryAwayError.code})
NOBODY_HINT: Final = (
    "another one takes over some seconds after a leader is gone; `topoctl doctor` there says more"
)
SYSTEM_SOCKET = Path("/run/topod/topod.sock")
"""Where a topod of root listens."""
COORDINATOR_SOCKET: Final = "coordinator.sock"


def default_socket() -> Path:
    """Return where topod listens unless told otherwise: `TOPOD_SOCKET`, else by user.

    root: `/run/topod/topod.sock`; others: `$XDG_RUNTIME_DIR/topod/topod.sock`, else under `~/.topod`.
    """
    if os.environ.get("TOPOD_SOCKET"):
        return Path(os.environ["TOPOD_SOCKET"])
    if os.geteuid() == 0:
        return SYSTEM_SOCKET
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return (Path(runtime) / "topod" if runtime else Path.home() / ".topod") / "topod.sock"


def find_socket() -> Path:
    """Return where to look for a topod: `TOPOD_SOCKET`, else this user's own, else that of the host."""
    own = default_socket()
    if os.environ.get("TOPOD_SOCKET") or own.exists() or not SYSTEM_SOCKET.parent.is_dir():
        return own
    return SYSTEM_SOCKET


def is_coordinators(socket: Path) -> bool:
    """Say whether a coordinator listens at this path unless told otherwise, and no host's topod."""
    return socket.name == COORDINATOR_SOCKET


def events_socket(socket: Path) -> Path:
    """Return the socket of the event stream that belongs to a request socket."""
    return socket.with_name(socket.name + ".events")


class RemoteError(TopodError):
    """topod refused the request; carries the code and exit status that it gave."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text, hint=failure.hint)
        self.code = failure.code
        self.exit_status = failure.exit_status


class NobodyLeadsError(DaemonUnavailableError):
    """Whoever was asked did nothing, since it does not lead, or has lost the lead over it."""


def nobody_leads(told: Mapping[str, Failure], *, asked: int) -> NobodyLeadsError:
    """Return why nothing is done, by what each place answered; `asked`: how many coordinators were."""
    *_, last = told.values()
    away = [reply for reply in told.values() if reply.code == MemoryAwayError.code]
    if asked == 0 or len(away) == len(told):
        return NobodyLeadsError(last.text, hint=last.hint)
    words = "; ".join(f"{where} says: {reply.text}" for where, reply in told.items())
    text = f"no coordinator that answers leads the fleet just now; {words}"
    # Who named one only may have left out the leader.
    hint = (away or [last])[0].hint if away or asked == 1 else NOBODY_HINT
    return NobodyLeadsError(text, hint=hint)


class Client:
    """A connection to one topod by its socket, or to a fleet's coordinators. Not thread-safe."""

    def __init__(self, where: Path | Remote | None = None, *, host: str = "") -> None:
        """`where`: None takes the socket that `find_socket` finds. `host`: of a fleet, which one is asked."""
        self._host = host
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._remote = where if isinstance(where, Remote) else None
        self._line = RemoteLine(self._context, where) if isinstance(where, Remote) else None
        self._path = where if isinstance(where, Path) else None
        if where is None:
            self._path = find_socket()

    @property
    def path(self) -> Path:
        """Return the socket. Raises `UsageError` for a coordinator, which has none here."""
        if self._path is None:
            raise UsageError("a coordinator is asked, not a topod on this machine")
        return self._path

    @property
    def where(self) -> str:
        """Return who is asked, in words."""
        return self._line.coordinator.endpoint if self._line else str(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection."""
        self._context.destroy(linger=0)

    def ask(self, request: AnyRequest, timeout: float = 10.0) -> AnyReply:
        """Send one request, on to the host if one is named, and return its reply within `timeout` seconds.

        Of several coordinators the one that leads is looked for, also while another one takes over. Where the
        connection breaks off, what changes nothing and a submit with a token are asked again, also of a
        single coordinator that is being restarted; what else may have been done is not.

        Raises `DaemonUnavailableError` when nobody answers, `NotAllowedError` where the socket may not be
        opened or the key is not known, `RemoteError` when topod refuses, `UsageError` for text that no
        message can hold.
        """
        if self._host:
            request = self._at_host(request)
        # A submit asked twice leads to the same job.
        repeatable = changes_nothing(request) or (isinstance(request, Submit) and bool(request.token))
        end = time.monotonic() + timeout
        broke_off: DaemonUnavailableError | None = None
        while True:
            late = self._remote is None or time.monotonic() >= end - ROUND_SECONDS
            try:
                return self._ask_around(request, timeout, repeatable=repeatable)
            except UnreachableError as error:
                if late or broke_off is None:
                    raise (broke_off or error) from None
            except NobodyLeadsError:
                if late or len(self._remote.coordinators if self._remote else ()) < 2:
                    raise
            except DaemonUnavailableError as error:
                if late or not repeatable:
                    raise
                broke_off = error
            time.sleep(ROUND_SECONDS)

    def _ask_around(self, request: AnyRequest, timeout: float, *, repeatable: bool) -> AnyReply:
        """Return the reply of the coordinator that leads. Raises `NobodyLeadsError` where none does."""
        others = len(self._remote.coordinators) - 1 if self._remote else 0
        told: dict[str, Failure] = {}
        while True:
            reply = self._ask(request, timeout)
            if not isinstance(reply, Failure):
                return reply
            if reply.code not in NOBODY_LEADS and not (repeatable and reply.code == LeadLostError.code):
                raise RemoteError(reply)
            told[self.where] = reply
            if self._line is not None:
                self._line.move_on()
            if others <= 0:
                raise nobody_leads(told, asked=len(self._remote.coordinators) if self._remote else 0)
            others -= 1

    def _at_host(self, request: AnyRequest) -> AnyRequest:
        if not isinstance(request, HostRequest):
            raise UsageError(
                "--host asks one host of a fleet: topo, drain, resume, rebalance, ps, show, wait, history,"
                " events, quota; this is asked of the fleet",
                hint="the same command without --host",
            )
        return AtHost(host=self._host, request=request)

    def _ask(self, request: AnyRequest, timeout: float) -> AnyReply:
        ident = uuid.uuid4().hex
        try:
            data = encode(RequestEnvelope(v=PROTOCOL_VERSION, id=ident, body=request))
        except UnicodeEncodeError as error:
            raise UsageError(f"topod reads UTF-8 text only: {error.object!r}") from None
        reply = self._line.exchange(data, timeout) if self._line else self._exchange(data, timeout)
        envelope = decode_reply(reply)
        if envelope.id != ident:
            raise ProtocolError(f"a reply to another request came on {self.where}")
        return envelope.body

    def _exchange(self, data: bytes, timeout: float) -> bytes:
        wire = self._connect()
        try:
            wire.send(data)
            answered = wire.poll(int(timeout * 1000))
            reply = wire.recv() if answered else b""
        except BaseException:  # Ctrl-C: the next question must not wait for this one's answer
            self._drop(wire)
            raise
        if not answered:
            self._drop(wire)
            raise DaemonUnavailableError(
                f"{_who(self.path)} did not answer within {timeout:g} s on {self.path}", hint=_hint(self.path)
            )
        return reply

    def events(self) -> Iterator[EventView | None]:
        """Yield events as they happen, for ever; None about every second without one.

        The subscription is in force when the first value is yielded. A coordinator has no stream: it is
        asked about every second.
        """
        if self._line is not None or self._host:
            yield from self._events_asked_for()
            return
        self._check()
        wire = self._context.socket(zmq.SUB)
        wire.set(zmq.LINGER, 0)
        wire.set(zmq.SUBSCRIBE, b"")
        wire.connect(f"ipc://{events_socket(self.path)}")
        while True:
            if wire.poll(1000):
                _, data = wire.recv_multipart()
                yield decode_event(data)
            else:
                yield None

    def _events_asked_for(self) -> Iterator[EventView | None]:
        newest = self.ask(ReadEvents(since=-1, limit=1))
        last = max((event.seq for event in newest.events), default=0) if isinstance(newest, Events) else 0
        yield None
        while True:
            found = self.ask(ReadEvents(since=last))
            for event in found.events if isinstance(found, Events) else []:
                last = event.seq
                yield event
            yield None
            time.sleep(EVENTS_SECONDS)

    def _drop(self, wire: "zmq.Socket[bytes]") -> None:
        wire.close(linger=0)
        self._socket = None

    def _connect(self) -> "zmq.Socket[bytes]":
        if self._socket is None:
            self._check()
            self._socket = self._context.socket(zmq.REQ)
            self._socket.set(zmq.LINGER, 0)
            self._socket.set(zmq.MAXMSGSIZE, 16 * MAX_MESSAGE_BYTES)
            self._socket.connect(f"ipc://{self.path}")
        return self._socket

    def _check(self) -> None:
        try:
            present = self.path.is_socket()
        except PermissionError:
            raise _not_let_in(self.path) from None
        if not present:
            raise DaemonUnavailableError(
                f"no {_who(self.path)} listens at {self.path}", hint=_hint(self.path)
            )
        # Gone meanwhile, it is not there, and not forbidden: topod is being restarted.
        if not os.access(self.path, os.R_OK | os.W_OK) and os.path.lexists(self.path):
            raise _not_let_in(self.path)
        # ZeroMQ would wait for somebody to come; a file that a killed topod left behind is told at once.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self.path))
            except BlockingIOError:
                pass  # it listens and is busy
            except ConnectionRefusedError:
                text = f"no {_who(self.path)} listens at {self.path} any more"
                raise DaemonUnavailableError(text, hint=_hint(self.path)) from None
            except OSError as error:
                text = f"{_who(self.path)} cannot be reached at {self.path}: {error.strerror or error}"
                raise DaemonUnavailableError(text, hint=_hint(self.path)) from None


def _not_let_in(path: Path) -> NotAllowedError:
    """Return the error for a socket that this user may not open; names the group that may."""
    import grp  # noqa: PLC0415 - only to say what is wrong

    hint = "ask an administrator of the host"
    for place in (path, path.parent):
        try:
            found = place.stat()
            hint = f"members of group {grp.getgrgid(found.st_gid).gr_name} may; see `id`"
            break
        except (OSError, KeyError):
            continue
    return NotAllowedError(f"no permission to reach topod at {path}", hint=hint)


def _who(path: Path) -> str:
    return "topod-coordinator" if is_coordinators(path) else "topod"


def _hint(path: Path) -> str:
    return f"start one with `{_who(path)}`, or name its socket with --socket or TOPOD_SOCKET"
