"""Reads a fleet's memory in etcd: single jobs, the history, the story. Any thread may."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
from aetcd import rpc

from topod.adapters.etcd_client import EtcdClient, UnansweredError
from topod.adapters.etcd_layout import EVENTS_TOGETHER, HIGHEST, LAYOUT, Head, Keys, after, number_in
from topod.adapters.sqlite_file import stored_plain
from topod.errors import NewerStateError, StoreError
from topod.fleet.states import FleetJob, FleetJobId, FleetState, HostRecord
from topod.protocol.views import EventView

TOGETHER: Final = 96
"""Keys in one transaction."""
LONG_PAGE: Final = 5000
"""Of short entries."""
PAGE: Final = 256
"""Keys in one answer: a job is a few kilobytes, a large one a megabyte."""


class _Layout(msgspec.Struct, frozen=True):
    """What of a head every topod can read."""

    layout: int


heads: Final = msgspec.json.Decoder(Head)
_layouts: Final = msgspec.json.Decoder(_Layout)
_jobs = msgspec.json.Decoder(FleetJob, dec_hook=stored_plain)
_hosts = msgspec.json.Decoder(HostRecord, dec_hook=stored_plain)
_stories = msgspec.json.Decoder(list[EventView])


def decoded(decoder: Any, value: bytes, what: str) -> Any:
    """Return what was kept. Raises `StoreError` for what is damaged."""
    try:
        return decoder.decode(value)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StoreError(f"etcd holds a damaged fleet, at {what}: {error}", hint=_RESTORE) from None


_RESTORE = "restore it from a snapshot of etcd; topod leaves it as it is"


class EtcdReader:
    """Reads one fleet. Every method may block and raises `StoreError`."""

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self.keys: Final = keys

    def read_head(self) -> tuple[Head, int]:
        """Return the head and its revision; a fleet that never was has revision 0."""
        return self._head_in(self._client.range(self._at_head()).kvs)

    def refuse_newer(self) -> None:
        """Raise `NewerStateError` for the fleet of a newer topod; does not wait for who is away."""
        with contextlib.suppress(UnansweredError):
            found = self._client.call(
                lambda member, seconds: member.kv.Range(self._at_head(), timeout=seconds),
                goes_on=lambda: False,
            )
            self._head_in(found.kvs)

    def _at_head(self) -> Any:
        return rpc.RangeRequest(key=self.keys.at("head"))

    def _head_in(self, found: Sequence[Any]) -> tuple[Head, int]:
        if not found:
            return Head(), 0
        layout = decoded(_layouts, found[0].value, "head").layout
        if layout > LAYOUT:
            raise NewerStateError(
                f"etcd holds the fleet of a newer topod at {self.keys.prefix}: layout {layout}, "
                f"this topod knows {LAYOUT}",
                hint="start the newer topod, or name another prefix in [store]",
            )
        head: Head = decoded(heads, found[0].value, "head")
        return head, found[0].mod_revision

    def state(self, head: Head) -> FleetState:
        """Return the whole state. Raises `StoreError` where it cannot be."""
        jobs: dict[FleetJobId, FleetJob] = {}
        for entry in self._pages(self.keys.under("jobs")):
            job = _job(entry)
            jobs[job.id] = job
        hosts: dict[str, HostRecord] = {}
        for entry in self._pages(self.keys.under("hosts")):
            record: HostRecord = decoded(_hosts, entry.value, entry.key.decode(errors="replace"))
            hosts[record.name] = record
        beyond = self._pages(self.keys.under("ended"), start=self.keys.at("ended", head.next_job), page=1)
        highest = max([*jobs, *(number_in(entry.key) for entry in islice(beyond, 1))], default=0)
        fence = max((job.fence for job in jobs.values()), default=0)
        for what, used, coming in (("job", highest, head.next_job), ("fence", fence, head.next_fence)):
            if used >= coming:
                text = f"etcd holds a damaged fleet: {what} {used}, and would hand out {coming} next"
                raise StoreError(text, hint=_RESTORE)
        return FleetState(
            generation=head.generation,
            next_job=FleetJobId(head.next_job),
            next_fence=head.next_fence,
            epoch=head.epoch,
            jobs=jobs,
            hosts=hosts,
        )

    def submitted(self, tokens: Iterable[str]) -> dict[str, FleetJobId]:
        """Return the job that a submit with each of these tokens led to, where there was one."""
        asked = list(tokens)
        found = zip(asked, self.values([self.keys.at("tokens", token) for token in asked]), strict=True)
        return {token: FleetJobId(int(value)) for token, value in found if value is not None}

    def job(self, ident: int) -> FleetJob | None:
        """Return one job, ended or not; None when there never was one."""
        return self.jobs([ident]).get(ident)

    def jobs(self, idents: Iterable[int]) -> dict[int, FleetJob]:
        """Return those of these jobs that there ever were."""
        sane = [ident for ident in idents if 0 < ident < 1 << 53]
        # A job that ends meanwhile goes from the one to the other: so the last one last.
        places = [self.keys.at(place, ident) for ident in sane for place in ("jobs", "ended")]
        entries = (entry for entry in self._entries(places) if entry is not None)
        return {int(job.id): job for job in map(_job, entries)}

    def ended_jobs(self, limit: int, user: str | None = None) -> tuple[FleetJob, ...]:
        """Return the last `limit` jobs that ended, of one user or of all, the oldest first."""
        idents: list[int] = []
        wanted = None if user is None else user.encode()
        if limit > 0:
            for entry in self._pages(self.keys.under("by-end"), page=LONG_PAGE):
                if wanted is None or entry.value == wanted:
                    idents.append(HIGHEST - number_in(entry.key))
                    if len(idents) == limit:
                        break
        known = self.jobs(idents)
        return tuple(known[ident] for ident in reversed(idents) if ident in known)

    def events(self, since: int, limit: int, job: int | None = None) -> tuple[EventView, ...]:
        """Return events after number `since`, the oldest first; for a negative `since` the last that many."""
        wanted = min(-since, limit) if since < 0 else limit
        if wanted <= 0:
            return ()
        if job is not None:
            under = self.keys.under("of-job", max(0, job))
            story = [event for entry in self._pages(under) for event in _story(entry) if event.seq > since]
            return tuple(story[-wanted:] if since < 0 else story[:wanted])
        if since < 0:
            since = max(0, self.read_head()[0].events - wanted)
        under = self.keys.under("events")
        # The entry that holds the first of them may begin with an earlier one.
        start = self.keys.at("events", max(0, since + 2 - EVENTS_TOGETHER))
        found: list[EventView] = []
        for entry in self._pages(under, start=start):
            found += [event for event in _story(entry) if event.seq > since]
            if len(found) >= wanted:
                break
        return tuple(found[:wanted])

    def oldest_ended(self, limit: int, kept: int) -> list[bytes]:
        """Return the keys of the jobs that ended first, at most `limit`, where there are more than `kept`."""
        under = self.keys.under("by-end")
        request = rpc.RangeRequest(key=under, range_end=after(under), count_only=True)
        more = self._client.range(request).count - kept
        if more <= 0:
            return []
        request = rpc.RangeRequest(
            key=under,
            range_end=after(under),
            limit=min(limit, more),
            sort_order=rpc.RangeRequest.DESCEND,
            sort_target=rpc.RangeRequest.KEY,
        )
        return [entry.key for entry in self._client.range(request).kvs]

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of these keys, None where there is none."""
        return [None if entry is None else entry.value for entry in self._entries(keys)]

    def _entries(self, keys: Sequence[bytes]) -> Iterator[Any]:
        for start in range(0, len(keys), TOGETHER):
            asked = [
                rpc.RequestOp(request_range=rpc.RangeRequest(key=key))
                for key in keys[start : start + TOGETHER]
            ]
            for one in self._client.txn([], asked).responses:
                yield next(iter(one.response_range.kvs), None)

    def _pages(self, under: bytes, start: bytes | None = None, page: int = PAGE) -> Iterator[Any]:
        """Yield all entries below a key, in order, as they were at one moment."""
        key, revision, more = start or under, 0, True
        while more:
            request = rpc.RangeRequest(key=key, range_end=after(under), limit=page, revision=revision)
            found = self._client.range(request)
            revision, more = revision or found.header.revision, found.more
            yield from found.kvs
            if found.kvs:
                key = found.kvs[-1].key + b"\0"


def _job(entry: Any) -> FleetJob:
    job: FleetJob = decoded(_jobs, entry.value, entry.key.decode(errors="replace"))
    return job


def _story(entry: Any) -> list[EventView]:
    events: list[EventView] = decoded(_stories, entry.value, entry.key.decode(errors="replace"))
    return events
