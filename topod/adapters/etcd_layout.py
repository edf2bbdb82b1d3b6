"""How a fleet lies in etcd: its keys, what one outcome writes, and how much fits into one transaction.

| key | holds |
| --- | --- |
| `head` | the numbers that are never used twice, and which outcome was the last |
| `jobs/ID` | a job that has not ended |
| `ended/ID` | one that has |
| `by-end/MOMENT/ID` | whose it was: both numbers count down, so that the last that ended is the first |
| `hosts/NAME` | a host |
| `tokens/TOKEN`, `token-of/ID` | which job a submit led to |
| `events/SEQ`, `of-job/ID/SEQ` | the story from that number on, of one outcome; of one job |
| `staged/N` | a piece of an outcome that is too large for one transaction |
| `leader`, `hears/NAME` | who leads; who stands by and hears hosts |

Numbers have leading zeros, so that their order is that of the keys. Nothing large is read backwards: for that
etcd reads all there is.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from topod.fleet.outcome import FleetOutcome
from topod.fleet.states import FleetJob, FleetJobId
from topod.protocol.codec import encode
from topod.protocol.views import EventView

OPERATIONS_MAX: Final = 96
"""Of one transaction: etcd takes 128 unless it is told otherwise, and some are for head and leader."""
BYTES_MAX: Final = 1_000_000
"""Of one transaction: etcd takes 1.5 MiB unless it is told otherwise."""
HIGHEST: Final = 10**16 - 1
LAYOUT: Final = 1
"""The schema of a fleet in etcd. To be raised with whatever an older coordinator would lose or misread, a new
field of a job too: from then on it refuses. Who leads brings what it finds forward, in `EtcdFleet.load`."""
EVENTS_TOGETHER: Final = 200
"""Under one key at most."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the state, the number of the last event, and the mark of the last outcome."""

    layout: int = LAYOUT
    generation: int = 0
    next_job: int = 1
    next_fence: int = 1
    epoch: int = 0
    events: int = 0
    mark: str = ""
    """Chosen at random by who wrote it: so a writer knows its own outcome again."""
    staged: int = 0
    """So many pieces of the outcome are staged and not yet where they belong."""


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One key to put, or to delete."""

    key: bytes
    value: bytes | None = None
    fresh: bool = False
    """Refused where the key exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The keys of one fleet."""

    prefix: str

    def at(self, *parts: str | int) -> bytes:
        """Return the key that is made of these parts."""
        return (self.prefix + "/".join(f"{p:016d}" if isinstance(p, int) else p for p in parts)).encode()

    def under(self, *parts: str | int) -> bytes:
        """Return the beginning of all keys below."""
        return self.at(*parts) + b"/"

    def by_end(self, job: FleetJob) -> bytes:
        """Return the key by which a job that ended is found in order."""
        assert job.ended_at is not None
        return self.at("by-end", HIGHEST - max(0, round(job.ended_at * 1e6)), HIGHEST - job.id)


def after(prefix: bytes) -> bytes:
    """Return the key that comes after all that begin so."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def number_in(key: bytes) -> int:
    """Return the number at the end of a key."""
    return int(key.rpartition(b"/")[2])


def writes_of(
    keys: Keys,
    outcome: FleetOutcome,
    events: Sequence[EventView],
    tokens: Mapping[str, FleetJobId],
) -> Iterator[Write]:
    """Yield all that one outcome writes, except the head."""
    for job in outcome.changed:
        open_, ended = keys.at("jobs", job.id), keys.at("ended", job.id)
        if job.ended_at is None:
            yield Write(key=open_, value=encode(job))
        else:
            yield Write(key=open_)
            yield Write(key=ended, value=encode(job))
            yield Write(key=keys.by_end(job), value=job.spec.user.encode())
    for record in outcome.changed_hosts:
        yield Write(key=keys.at("hosts", record.name), value=encode(record))
    for name in outcome.removed_hosts:
        yield Write(key=keys.at("hosts", name))
    for token, ident in tokens.items():
        yield Write(key=keys.at("tokens", token), value=str(ident).encode(), fresh=True)
        yield Write(key=keys.at("token-of", ident), value=token.encode())
    for start in range(0, len(events), EVENTS_TOGETHER):
        piece = events[start : start + EVENTS_TOGETHER]
        yield Write(key=keys.at("events", piece[0].seq), value=encode(piece))
    of_jobs: dict[int, list[EventView]] = {}
    for event in events:
        if event.job is not None:
            of_jobs.setdefault(event.job, []).append(event)
    for of, story in of_jobs.items():
        yield Write(key=keys.at("of-job", of, story[0].seq), value=encode(story))


def numbered(outcome: FleetOutcome, last: int, now: float) -> tuple[EventView, ...]:
    """Return the notices of an outcome as events, numbered from `last` on."""
    return tuple(
        EventView(
            seq=last + number,
            at=now,
            name=notice.name,
            job=notice.job,
            text=notice.text,
            data={**({} if notice.host is None else {"host": notice.host}), **dict(notice.data)},
        )
        for number, notice in enumerate(outcome.notices, start=1)
    )


def pieces(writes: Iterable[Write]) -> list[list[Write]]:
    """Return the writes in pieces each of which fits into one transaction; at least one piece."""
    found: list[list[Write]] = [[]]
    size = 0
    for write in writes:
        more = len(write.key) + len(write.value or b"")
        if len(found[-1]) >= OPERATIONS_MAX or (found[-1] and size + more > BYTES_MAX):
            found.append([])
            size = 0
        found[-1].append(write)
        size += more
    return found
