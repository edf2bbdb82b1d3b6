"""What changed in the fleet since somebody last asked: whoever watches it live is told that, and no more.

Nothing is kept for those who watch, and hosts are asked nothing for them: all is in what hosts report anyway.
Everybody who waits shares one look at the state, twice a second, and nobody looks while nobody waits.
"""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from topod.coordinator.mailbox import Mailbox
from topod.coordinator.rows import kind_of, row_of
from topod.coordinator.storage import FleetStore
from topod.coordinator.views import job_line
from topod.fleet.jobtable import FleetJobs, jobs_on
from topod.fleet.states import ENDED, FleetJob, FleetJobId, FleetState, HostRecord, Target
from topod.fleet.view import FleetView, HostView
from topod.flextopo.tables import TopologyTables
from topod.ports import Clock
from topod.protocol.replies import FleetChanges
from topod.protocol.requests import Follow
from topod.protocol.views import EventView, FleetNow, FleetRow
from topod.shell.changelog import ChangeLog
from topod.shell.health import Health

LOOK_SECONDS: Final = 0.5
FIRST_EVENTS: Final = 500
EVENTS_MAX: Final = 1000
TAIL: Final = 4096
"""So many of the last events are told without a look into the store."""
WAITERS_MAX: Final = 256
"""Requests that may wait at the same time; one more is answered at once."""
WAIT_SECONDS_MAX: Final = 60.0

_ENDS: Final = frozenset(f"job.{state.value}" for state in ENDED)

_Kept = tuple[tuple[FleetJob, Target], ...]


class Following:
    """Answers `Follow` during one leadership. Used from the event loop only."""

    def __init__(
        self,
        mailbox: Mailbox,
        store: FleetStore,
        *,
        clock: Clock,
        health: Health,
        endpoint: str,
        emulated: Callable[[str], bool],
    ) -> None:
        """`emulated` says whether a host is, as far as it told."""
        self._mailbox = mailbox
        self._store = store
        self._clock = clock
        self._health = health
        self._endpoint = endpoint
        self._emulated = emulated
        self._life: Final = uuid.uuid4().hex
        self._number = 1
        self._waiting = 0
        self._pause: asyncio.Task[None] | None = None
        self._looked: tuple[FleetState, FleetView] | None = None
        self._look_at = 0.0
        self._jobs = ChangeLog[FleetJobId, FleetJob]()
        self._hosts = ChangeLog[str, FleetRow]()
        self._rows: dict[str, FleetRow] = {}
        self._bases: dict[str, object] = {}
        """What each row was made of."""
        self._kinds: dict[str, tuple[int, TopologyTables]] = {}
        self._targets: dict[FleetJobId, FleetJob] = {}
        """The jobs for which something is kept."""
        self._now: FleetNow | None = None
        self._now_at = 0
        self._tail: deque[EventView] = deque(maxlen=TAIL)
        self._last = 0
        """The number of the last event; 0: not known."""
        self._tail_at = 0
        """How many events had come at the last look."""
        self._came = 0

    def note(self, event: EventView) -> None:
        """Take note of something that happened, as it does."""
        self._tail.append(event)
        self._came += 1
        self._last = event.seq

    async def answer(self, request: Follow) -> FleetChanges:
        """Return what is new, as soon as anything is; after the time asked for, that nothing is.

        Raises `NotLeaderError` when this leadership ends.
        """
        room = self._waiting < WAITERS_MAX
        end = time.monotonic() + (max(0.0, min(request.seconds, WAIT_SECONDS_MAX)) if room else 0.0)
        self._waiting += 1
        try:
            while not self._has_news(request) and (left := end - time.monotonic()) > 0:
                await self._next_look(left)
        finally:
            self._waiting -= 1
        return await self._changes(request)

    async def _next_look(self, seconds: float) -> None:
        """Return when it is time to look again; all who wait wait for the same moment."""
        if self._pause is None or self._pause.done():
            wait = max(0.01, self._look_at - time.monotonic())
            self._pause = asyncio.create_task(self._mailbox.until(lambda _: False, wait), name="followers")
            # That it ended by the end of the leadership, who waits no more need not know.
            self._pause.add_done_callback(lambda task: task.cancelled() or task.exception())
        pause = self._pause
        await asyncio.wait((pause,), timeout=seconds)
        if pause.done():
            pause.result()

    # --- what is new ----------------------------------------------------------------------------------------

    def _has_news(self, request: Follow) -> bool:
        self._look()
        return self._is_new(request) or self._number > request.since

    def _is_new(self, request: Follow) -> bool:
        known = request.life == self._life and request.since <= self._number
        return not known or not (self._jobs.remembers(request.since) and self._hosts.remembers(request.since))

    def _look(self) -> None:
        """Give the next number to whatever differs from the last look."""
        moment = self._mailbox.state, self._mailbox.view
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        number, news = self._number + 1, self._came != self._tail_at
        self._tail_at = self._came
        if self._looked is None or moment[0] is not self._looked[0] or moment[1] is not self._looked[1]:
            self._looked = moment
            news |= self._look_at_jobs(moment[0], number)
            news |= self._look_at_hosts(*moment, number)
        now = FleetNow(endpoint=self._endpoint, epoch=moment[0].epoch, troubles=self._health.notes)
        if now != self._now:
            self._now, self._now_at, news = now, number, True
        if news:
            self._number = number

    def _look_at_jobs(self, state: FleetState, number: int) -> bool:
        news = self._jobs.look(state.jobs, number)
        for ident in self._jobs.since(number - 1) if news else ():
            if state.jobs[ident].target:
                self._targets[ident] = state.jobs[ident]
            else:
                self._targets.pop(ident, None)
        for ident in self._targets.keys() - state.jobs.keys():
            del self._targets[ident]
        return news

    def _look_at_hosts(self, state: FleetState, view: FleetView, number: int) -> bool:
        kept = self._kept()
        changed = False
        for name, record in state.hosts.items():
            seen = view.hosts.get(name)
            basis = _basis(record, seen, state, kept.get(name, ()))
            if self._bases.get(name) == basis:
                continue
            self._bases[name] = basis
            jobs = jobs_on(state.jobs, name)
            row = row_of(
                record, seen, jobs, kept.get(name, ()), self._mailbox.rules, emulated=self._emulated(name)
            )
            if seen is not None and record.hardware not in self._kinds:
                self._kinds[record.hardware] = number, seen.tables
            if self._rows.get(name) != row:
                self._rows = self._rows if changed else dict(self._rows)
                self._rows[name], changed = row, True
        if len(self._rows) > len(state.hosts):
            self._rows = {name: row for name, row in self._rows.items() if name in state.hosts}
            self._bases = {name: basis for name, basis in self._bases.items() if name in state.hosts}
            changed = True
        return changed and self._hosts.look(self._rows, number)

    def _kept(self) -> dict[str, _Kept]:
        found: dict[str, _Kept] = {}
        for job in self._targets.values():
            for target in job.target:
                found[target.host] = (*found.get(target.host, ()), (job, target))
        return found

    # --- what is told ---------------------------------------------------------------------------------------

    async def _changes(self, request: Follow) -> FleetChanges:
        whole = self._is_new(request)
        since = 0 if whole else request.since
        number, now = self._number, self._clock.now()
        state = self._mailbox.state if self._looked is None else self._looked[0]
        jobs = [
            job_line(state.jobs[ident], now, self._mailbox.rules)
            for ident in self._jobs.since(since)
            if ident in state.jobs
        ]
        gone = [] if whole else self._jobs.gone(since)
        reply = FleetChanges(
            life=self._life,
            number=number,
            now=now,
            whole=whole,
            jobs=jobs,
            hosts=[self._rows[name] for name in self._hosts.since(since)],
            gone=[] if whole else self._hosts.gone(since),
            kinds=[kind_of(name, tables) for name, (at, tables) in self._kinds.items() if at > since],
            changed=self._now if self._now_at > since else None,
        )
        first = whole and request.event <= 0
        told = None if whole else self._tail_after(request.event)
        if told is None:
            told = list(await asyncio.to_thread(self._stored_events, request.event, first))
        # Who came and went between two answers, or two leaderships, was never seen: only the story tells.
        ends = (one.job for one in told if one.job is not None and one.name in _ENDS)
        ended = list(dict.fromkeys([*gone, *(() if first else map(FleetJobId, ends))]))
        if ended:
            found = await asyncio.to_thread(self._store.jobs, ended)
            reply.jobs.extend(job_line(job, now, self._mailbox.rules) for job in found.values())
        reply.events.extend(told)
        # Who has not heard of all events yet is answered at once again.
        return msgspec.structs.replace(reply, number=number - 1) if len(told) >= EVENTS_MAX else reply

    def _tail_after(self, event: int) -> list[EventView] | None:
        """Return the next events after a number where they are at hand; None: the store is to be asked."""
        begins = self._tail[0].seq if self._tail else self._last + 1
        if not self._last or event + 1 < begins:
            return None
        return [one for one in self._tail if one.seq > event][:EVENTS_MAX] if event < self._last else []

    def _stored_events(self, event: int, first: bool) -> Sequence[EventView]:
        """Return the next events; of the past the last ones, for somebody who asks for the `first` time."""
        events = self._store.events(-FIRST_EVENTS if first else max(0, event), EVENTS_MAX)
        if events and len(events) < EVENTS_MAX:
            self._last = max(self._last, events[-1].seq)
        return events


def _basis(record: HostRecord, seen: HostView | None, state: FleetState, kept: _Kept) -> object:
    """Return all that a row follows from; heartbeats and the clock are no part of it."""
    here = state.jobs.numbers_on(record.name) if isinstance(state.jobs, FleetJobs) else None
    if seen is None:
        return record, here, kept
    return record, here, kept, seen.tables, seen.snapshot, seen.jobs, seen.silent, seen.troubles
