"""Who leads: one key that exists as long as its leader's lease is renewed.

Rule: every write of a leader has its own key's creation as a condition, so whoever lost the key writes
nothing, whatever it believes. And it believes no longer than is so: its lease counts from before it was asked
for, by a clock that nobody can set, and shorter than etcd counts it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from aetcd import rpc

from topod.adapters.etcd_client import EtcdClient, Member
from topod.adapters.etcd_layout import after
from topod.errors import StoreError

HEARD_SECONDS: Final = 8
SAFETY: Final = 0.9
"""The part of its lease that a leader counts on: clocks drift."""


def steady() -> float:
    """Return seconds since the machine booted, the time it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class EtcdLead:
    """One candidate for the lead of a fleet. Every method but `leads` blocks; any thread may call them."""

    def __init__(
        self,
        client: EtcdClient,
        prefix: str,
        *,
        name: str,
        seconds: float,
        now: Callable[[], float] = steady,
        may_lead: Callable[[], object] = lambda: None,
    ) -> None:
        """`name` tells others who leads; `seconds` is the length of the lease, whole seconds in etcd.

        `may_lead` raises `StoreError` where this candidate must not: it leaves the lead to others then.
        """
        self._client = client
        self.key: Final = f"{prefix}leader".encode()
        self._hears: Final = f"{prefix}hears/".encode()
        self._name = name
        self._seconds = max(1, round(seconds))
        self._now = now
        self._may_lead = may_lead
        self._lock = threading.Lock()
        self._lease = 0
        self._created = 0
        self._until = 0.0
        self.leader: str = ""
        """The name of who led when it was looked last; empty: nobody."""

    def leads(self) -> bool:
        """Say whether this candidate is the leader, surely."""
        return self._now() < self._until

    @property
    def condition(self) -> Any:
        """What every write of this leader is conditional on."""
        return rpc.Compare(
            key=self.key,
            target=rpc.Compare.CREATE,
            result=rpc.Compare.EQUAL,
            create_revision=self._created or -1,
        )

    def holds(self, leader: Sequence[Any]) -> bool:
        """Say whether the leader's key, as it was read, is this candidate's."""
        return bool(self._created) and [entry.create_revision for entry in leader] == [self._created]

    def stand(self) -> bool:
        """Take the lead where nobody has it; return whether it is ours now. Raises `StoreError`."""
        if self._look():
            return False
        self._may_lead()
        asked_at = self._now()
        granted = self._granted(self._seconds)
        mine = rpc.PutRequest(key=self.key, value=self._name.encode(), lease=granted.ID)
        done = self._client.txn(
            [
                rpc.Compare(
                    key=self.key, target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, create_revision=0
                )
            ],
            [rpc.RequestOp(request_put=mine)],
            [rpc.RequestOp(request_range=rpc.RangeRequest(key=self.key))],
        )
        created = done.header.revision
        if not done.succeeded:
            found = done.responses[0].response_range.kvs
            if not found or found[0].lease != granted.ID:
                self._revoke(granted.ID)
                return False
            created = found[0].create_revision  # the answer to an earlier try was lost
        with self._lock:
            self._lease, self._created = granted.ID, created
            self._until = asked_at + granted.TTL * SAFETY
            self.leader = self._name
        return self.leads()

    def renew(self) -> bool:
        """Have the lease last longer; False: the lead is lost, or was not confirmed just now."""
        with self._lock:
            lease, asked_at = self._lease, self._now()
            if not self.leads():
                return False
            request = rpc.LeaseKeepAliveRequest(ID=lease)

            def ask(member: Member, seconds: float) -> Any:
                return next(iter(member.lease.LeaseKeepAlive(iter((request,)), timeout=seconds)))

            try:
                answer = self._client.call(ask, goes_on=self.leads)
            except StoreError:
                return False
            if answer.TTL <= 0:
                self.drop()
                return False
            # An answer that took long may be to a later try: its lease counts from the first all the same.
            self._until = max(self._until, asked_at + answer.TTL * SAFETY) if self.leads() else 0.0
            return self.leads()

    def drop(self) -> None:
        """Lead no more, at once; etcd learns it from `resign`, or when the lease is over."""
        self._until = 0.0
        self.leader = ""

    def tell_heard(self) -> None:
        """Tell the leader, for some seconds, that hosts are heard here. Raises `StoreError`."""
        lease = self._granted(HEARD_SECONDS).ID
        mine = rpc.PutRequest(key=self._hears + self._name.encode(), value=b"", lease=lease)
        self._client.txn([], [rpc.RequestOp(request_put=mine)])

    def others_hear(self) -> bool:
        """Say whether hosts are heard by who stands by. Raises `StoreError`."""
        found = self._client.range(rpc.RangeRequest(key=self._hears, range_end=after(self._hears))).kvs
        return any(entry.key != self._hears + self._name.encode() for entry in found)

    def resign(self) -> None:
        """Lead no more, and let another one at once where etcd can be told."""
        self.drop()
        lease, self._lease, self._created = self._lease, 0, 0
        if lease:
            self._revoke(lease)

    def _granted(self, seconds: int) -> Any:
        request = rpc.LeaseGrantRequest(TTL=seconds)
        return self._client.call(lambda member, within: member.lease.LeaseGrant(request, timeout=within))

    def _look(self) -> bool:
        found = self._client.range(rpc.RangeRequest(key=self.key)).kvs
        self.leader = found[0].value.decode(errors="replace") if found else ""
        return bool(found)

    def _revoke(self, lease: int) -> None:
        tries = iter((True, True))
        request = rpc.LeaseRevokeRequest(ID=lease)
        try:
            self._client.call(
                lambda member, seconds: member.lease.LeaseRevoke(request, timeout=seconds),
                goes_on=lambda: next(tries, False),
            )
        except StoreError:
            return  # it ends by itself
