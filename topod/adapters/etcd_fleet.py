"""What the coordinators of a fleet remember together, in etcd; one of them writes, the leader.

Rule: one outcome of the fleet's core happens with one transaction, whose conditions are that the writer leads
and that the last outcome is the one it knows. What does not fit into one is staged before, piece by piece;
the transaction then says that the pieces count, and whoever comes next, the same leader or another, puts
them where they belong before anything else.

A transaction whose answer is lost is asked for again: its mark in the head tells whether it happened. A
leader that cannot find out in time leads no more.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec
from aetcd import rpc

from topod.adapters.etcd_client import EtcdClient, UnansweredError
from topod.adapters.etcd_layout import (
    EVENTS_TOGETHER,
    HIGHEST,
    Head,
    Keys,
    Write,
    after,
    number_in,
    numbered,
    pieces,
    writes_of,
)
from topod.adapters.etcd_lead import EtcdLead
from topod.adapters.etcd_reader import EtcdReader, decoded, heads
from topod.errors import LeadLostError, StoreError
from topod.fleet.outcome import FleetOutcome
from topod.fleet.states import FleetJobId, FleetState
from topod.protocol.views import EventView

COMMIT_SECONDS: Final = 10.0
"""A leader that cannot make an outcome durable for so long lets another one try."""
TIDY_EVERY: Final = 64
"""Outcomes between two looks for what is too old."""
JOBS_KEPT: Final = 50_000
"""Of those that ended; about, and their stories with them."""
TIDY_TOGETHER: Final = 24
EVENTS_KEPT: Final = 200_000
LOOK: Final = "what was asked for may have been done: look first"
NOT_LEADING: Final = "this coordinator does not lead any more"
_parts = msgspec.msgpack.Decoder(list[Write])


class EtcdFleet(EtcdReader):
    """The memory of one fleet, as its leader sees it. Any thread may read; writers wait for each other."""

    def __init__(
        self,
        client: EtcdClient,
        lead: EtcdLead,
        prefix: str,
        *,
        jobs_kept: int = JOBS_KEPT,
        events_kept: int = EVENTS_KEPT,
    ) -> None:
        super().__init__(client, Keys(prefix=prefix))
        self._lead = lead
        self._jobs_kept = jobs_kept
        self._events_kept = events_kept
        self._lock = threading.Lock()
        self._head: tuple[Head, int] | None = None
        """As it was read or written last, with its revision."""

    def load(self) -> FleetState:
        """Return the state as it was last committed; only jobs that have not ended."""
        with self._lock:
            self._head = None
            head, _ = self._known_head()
            return self.state(head)

    def commit(
        self,
        base: FleetState,
        outcome: FleetOutcome,
        *,
        now: float,
        tokens: Mapping[str, FleetJobId] = MappingProxyType({}),
    ) -> tuple[EventView, ...]:
        """Make one outcome durable, all or nothing, and return its notices as numbered events.

        Raises `LeadLostError` where it may have happened or not: then this coordinator leads no more.
        """
        with self._lock:
            head, revision = self._known_head()
            if head.generation != base.generation:
                raise _gone(base.generation)
            events = numbered(outcome, head.events, now)
            parts = pieces(writes_of(self.keys, outcome, events, tokens))
            state = outcome.state
            coming = Head(
                generation=state.generation,
                next_job=state.next_job,
                next_fence=state.next_fence,
                epoch=state.epoch,
                events=head.events + len(events),
                mark=secrets.token_hex(8),
                staged=len(parts) if len(parts) > 1 else 0,
            )
            if coming.staged:
                for number, part in enumerate(parts):
                    # Conditional on what the piece itself is: nobody writes meanwhile.
                    piece = Write(key=self.keys.at("staged", number), value=msgspec.msgpack.encode(part))
                    self._write([piece], revision, fresh=part)
                self._decide([], revision, coming)
                self._settle()
            else:
                self._decide(parts[0], revision, coming)
            if coming.generation % TIDY_EVERY == 0:
                self._tidy(coming)
            return events

    def forget(self, before: float, limit: int) -> int:
        """Return 0: the oldest go with what is written, by number and not by age."""
        del before, limit
        return 0

    def check(self, *, thorough: bool) -> None:
        """Raise `StoreError` where nothing can be made durable now; where `thorough`, by trying it."""
        if not self._lead.leads():
            raise LeadLostError(NOT_LEADING, hint=LOOK)
        if not thorough:
            self.read_head()
            return
        with self._lock:
            _, revision = self._known_head()
            self._write([Write(key=self.keys.at("check"), value=b"")], revision)

    def _known_head(self) -> tuple[Head, int]:
        """Return the head and its revision, with nothing staged any more."""
        if self._head is None:
            self._head = self.read_head()
        if self._head[0].staged:
            self._settle()
        return self._head

    def _settle(self) -> None:
        """Put the pieces of the last outcome where they belong; safe to do again."""
        assert self._head is not None
        head, revision = self._head
        staged = [self.keys.at("staged", number) for number in range(head.staged)]
        for number, value in enumerate(self.values(staged)):
            if value is None:
                raise StoreError(f"etcd holds a damaged fleet: piece {number} of an outcome is missing")
            self._write(decoded(_parts, value, f"piece {number}"), revision)
        done = msgspec.structs.replace(head, staged=0, mark=secrets.token_hex(8))
        self._decide([], revision, done)
        self._send([_deletion(self.keys.under("staged"))])

    def _decide(self, writes: Sequence[Write], revision: int, coming: Head) -> None:
        """Have an outcome happen: from then on `coming` is the head."""
        head = Write(key=self.keys.at("head"), value=msgspec.json.encode(coming))
        self._head = coming, self._write([*writes, head], revision, fresh=writes, mark=coming.mark)

    def _write(
        self, writes: Sequence[Write], revision: int, *, fresh: Sequence[Write] = (), mark: str = ""
    ) -> int:
        """Write all or nothing where the head is of that revision; return the revision that comes of it."""
        head = self.keys.at("head")
        conditions = [
            rpc.Compare(key=head, target=rpc.Compare.MOD, result=rpc.Compare.EQUAL, mod_revision=revision),
            *(
                rpc.Compare(
                    key=one.key, target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, create_revision=0
                )
                for one in fresh
                if one.fresh
            ),
        ]
        done = self._send([_operation(one) for one in writes], conditions)
        if done.succeeded:
            return int(done.header.revision)
        known, self._head = self._head[0].generation if self._head else 0, None
        found = done.responses[0].response_range.kvs
        if mark and found and decoded(heads, found[0].value, "head").mark == mark:
            self._head = decoded(heads, found[0].value, "head"), found[0].mod_revision
            return int(found[0].mod_revision)
        if not self._lead.holds(done.responses[1].response_range.kvs):
            self._lead.drop()
            raise LeadLostError("another coordinator leads by now", hint=LOOK)
        if (found[0].mod_revision if found else 0) == revision:
            raise StoreError("a submit with the same token is stored already", hint="ask again")
        raise _gone(known)

    def _send(self, operations: Sequence[Any], conditions: Sequence[Any] = ()) -> Any:
        """Have a transaction of the leader done; where that cannot be known, it leads no more."""
        end = time.monotonic() + COMMIT_SECONDS
        look = [
            rpc.RequestOp(request_range=rpc.RangeRequest(key=self.keys.at("head"))),
            rpc.RequestOp(request_range=rpc.RangeRequest(key=self._lead.key)),
        ]
        if not self._lead.leads():
            raise LeadLostError(NOT_LEADING, hint=LOOK)
        try:
            return self._client.txn(
                [self._lead.condition, *conditions],
                operations,
                look,
                goes_on=lambda: self._lead.leads() and time.monotonic() < end,
            )
        except UnansweredError as error:
            self._lead.drop()
            raise LeadLostError(f"{error.message}; this coordinator leads no more", hint=LOOK) from None

    def _tidy(self, head: Head) -> None:
        """Forget the oldest, a piece at a time; what cannot be done now is done at the next look."""
        with contextlib.suppress(StoreError):
            events = self.keys.under("events")
            # An entry goes when its last event may go.
            first = max(0, head.events - self._events_kept - EVENTS_TOGETHER)
            self._send([_deletion(events, self.keys.at("events", first))])
            while (oldest := self.oldest_ended(TIDY_TOGETHER, self._jobs_kept)) and self._lead.leads():
                idents = [HIGHEST - number_in(key) for key in oldest]
                tokens = self.values([self.keys.at("token-of", ident) for ident in idents])
                gone = [rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key)) for key in oldest]
                gone += [_operation(Write(key=self.keys.at("ended", ident))) for ident in idents]
                gone += [_deletion(self.keys.under("of-job", ident)) for ident in idents]
                for ident, token in zip(idents, tokens, strict=True):
                    if token is not None:
                        gone.append(_operation(Write(key=self.keys.at("tokens", token.decode()))))
                        gone.append(_operation(Write(key=self.keys.at("token-of", ident))))
                self._send(gone)


def _operation(write: Write) -> Any:
    if write.value is None:
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=write.key))
    return rpc.RequestOp(request_put=rpc.PutRequest(key=write.key, value=write.value))


def _deletion(prefix: bytes, end: bytes | None = None) -> Any:
    """Return the deletion of all keys that begin so, or of those before `end`."""
    return rpc.RequestOp(
        request_delete_range=rpc.DeleteRangeRequest(key=prefix, range_end=end or after(prefix))
    )


def _gone(generation: int) -> StoreError:
    return StoreError(f"etcd was changed by another program: generation {generation} is gone")
