"""A blocking line to the members of an etcd cluster: one of them at a time, the next where that one fails.

The messages are aetcd's, the connection is grpc's own: it knows TLS, deadlines, and threads.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from aetcd import rpc

from topod.errors import DataError, StoreError

TRY_SECONDS: Final = 1.0
"""For so long one member may take to answer; after a fruitless round twice as long, and so on."""
LONGEST_TRY_SECONDS: Final = 4.0
PATIENCE_SECONDS: Final = 5.0
"""After so long nobody answers: for what can as well be asked later."""
PAUSE_SECONDS: Final = 0.05
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_AGAIN: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)
"""Another member may know better; what was asked for may have been done all the same.

That is also so of what is refused at the second try."""

Ask = Callable[["Member", float], Any]
"""Asks one member, within so many seconds."""


class UnansweredError(StoreError):
    """No member answered in time: what was asked for may have been done, or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The files by which both sides know each other."""

    ca_file: Path | None = None
    """Who vouches for the members; None: those that grpc knows."""
    cert_file: Path | None = None
    key_file: Path | None = None


class Member:
    """The services of one member."""

    def __init__(self, endpoint: str, credentials: Any) -> None:
        target = endpoint.partition("://")[2] or endpoint
        self._channel = (
            grpc.insecure_channel(target, _OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, _OPTIONS)
        )
        self.kv: Final = rpc.KVStub(self._channel)
        self.lease: Final = rpc.LeaseStub(self._channel)

    def close(self) -> None:
        """Hang up."""
        self._channel.close()


class EtcdClient:
    """Asks the members in turn. Any thread may ask."""

    def __init__(self, endpoints: Sequence[str], tls: Tls | None = None) -> None:
        """Connect when first asked. Raises `DataError` for a file that cannot be read."""
        self.endpoints: Final = tuple(endpoints)
        credentials = None if tls is None else _credentials(tls)
        self._members = [Member(endpoint, credentials) for endpoint in self.endpoints]
        self._at = 0
        self._closed = threading.Event()

    def close(self) -> None:
        """Hang up; who still waits for an answer gets `StoreError`."""
        self._closed.set()
        for member in self._members:
            member.close()

    def call(self, ask: Ask, *, goes_on: Callable[[], bool] | None = None) -> Any:
        """Return a member's answer; asked again and again while `goes_on`, by default for some seconds.

        Raises `UnansweredError` when nobody answers, `StoreError` for what etcd refuses.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        tries, told = 0, "this line is closed"
        while not self._closed.is_set():
            if not (goes_on() if goes_on is not None else time.monotonic() < end) and tries:
                break
            at = self._at
            rounds = tries // len(self._members)
            try:
                return ask(self._members[at], min(LONGEST_TRY_SECONDS, TRY_SECONDS * (1 << min(rounds, 8))))
            except grpc.RpcError as error:
                told = f"{self.endpoints[at]}: {error.details() or error.code()}"
                if error.code() not in _AGAIN and not tries:
                    raise StoreError(f"etcd refused at {told}", hint=_hint(error)) from None
            except ValueError as error:  # the channel was closed meanwhile
                told = str(error)
            # Not past a member that another thread has turned to meanwhile.
            if self._at == at:
                self._at = (at + 1) % len(self._members)
            tries += 1
            if tries % len(self._members) == 0:
                self._closed.wait(PAUSE_SECONDS)
        raise UnansweredError(
            f"etcd does not answer; {told}", hint="are most of its members up and in reach?"
        )

    def txn(
        self,
        compare: Sequence[Any],
        success: Sequence[Any],
        failure: Sequence[Any] = (),
        *,
        goes_on: Callable[[], bool] | None = None,
    ) -> Any:
        """Return the response of one transaction. Raises as `call`."""
        request = rpc.TxnRequest(compare=compare, success=success, failure=failure)
        return self.call(lambda member, seconds: member.kv.Txn(request, timeout=seconds), goes_on=goes_on)

    def range(self, request: Any) -> Any:
        """Return the response of one read. Raises as `call`."""
        return self.call(lambda member, seconds: member.kv.Range(request, timeout=seconds))


def _hint(error: Any) -> str | None:
    match error.code():
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return "where its database is full: compact, defragment, and disarm the alarm with etcdctl"
        case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED:
            return "see cert_file and key_file in [store], and the roles in etcd"
        case _:
            return None


def _credentials(tls: Tls) -> Any:
    def read(path: Path | None) -> bytes | None:
        try:
            return None if path is None else path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", source=str(path)) from None

    return grpc.ssl_channel_credentials(read(tls.ca_file), read(tls.key_file), read(tls.cert_file))
