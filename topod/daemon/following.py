"""What changed on the host since somebody last asked: whoever watches it live is told that, and no more.

A question waits until something has changed. Nothing is kept for those who watch: numbers say what they know.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Final

from topod.daemon.mailbox import Mailbox
from topod.daemon.patience import Patience
from topod.daemon.storage import Store
from topod.daemon.views import gpu_views, job_line
from topod.discovery.gpufacts import LiveFacts
from topod.lifecycle.states import ENDED, HostState, Job, JobState
from topod.model.job import JobId
from topod.model.topology import Topology
from topod.ports import Clock
from topod.protocol.replies import Changes
from topod.protocol.requests import Follow
from topod.protocol.views import EventView, GpuReading, GpuView, HostNow, HostView, JobLine
from topod.shell.changelog import ChangeLog
from topod.shell.health import Health

LOOK_SECONDS: Final = 1.0
"""Readings and troubles are looked at this often while somebody waits; the state as soon as it changes."""
PAUSE_SECONDS: Final = 0.1
"""A change is told this late at least, with all that came meanwhile."""
_ENDS: Final = frozenset(f"job.{state.value}" for state in ENDED)
FIRST_EVENTS: Final = 500
EVENTS_MAX: Final = 1000


class Following:
    """Answers `Follow`. Used from the event loop only."""

    def __init__(
        self,
        mailbox: Mailbox,
        store: Store,
        topology: Topology,
        patience: Patience,
        *,
        clock: Clock,
        health: Health,
        host: Callable[[], HostView],
    ) -> None:
        """`host` returns the whole of what is told of the host."""
        self._mailbox = mailbox
        self._store = store
        self._topology = topology
        self._patience = patience
        self._clock = clock
        self._health = health
        self._host = host
        self._life: Final = uuid.uuid4().hex
        self._number = 1
        self._jobs = ChangeLog[JobId, Job]()
        self._gpus = ChangeLog[int, GpuView]()
        self._views: dict[int, GpuView] = {}
        self._state: HostState | None = None
        self._live: LiveFacts | None = None
        self._live_at = 0
        self._now = HostNow()
        self._now_at = 0

    async def answer(self, request: Follow) -> Changes:
        """Return what is new, as soon as anything is; after the time asked for, that nothing is."""
        end = time.monotonic() + self._patience.bounded(request.seconds)
        while not self._has_news(request) and (left := end - time.monotonic()) > 0:
            await self._patience.until(self._differs, min(left, LOOK_SECONDS))
            if self._differs(self._mailbox.state):
                await asyncio.sleep(min(PAUSE_SECONDS, max(0.0, end - time.monotonic())))
        return await self._changes(request)

    def _differs(self, state: HostState) -> bool:
        return state is not self._state

    def _has_news(self, request: Follow) -> bool:
        self._health.followed_at = time.monotonic()
        self._look()
        return self._is_new(request) or self._number > request.since

    def _is_new(self, request: Follow) -> bool:
        known = request.life == self._life and request.since <= self._number
        return not known or not self._jobs.remembers(request.since)

    def _look(self) -> None:
        """Give the next number to whatever differs from the last look."""
        state, number = self._mailbox.state, self._number + 1
        before, self._state = self._state, state
        news = self._jobs.look(state.jobs, number)
        if before is not None and before.marks != state.marks:
            # What is told of a job that runs says what is wrong with its GPUs.
            self._jobs.touch([job.id for job in state.jobs.values() if job.state is JobState.RUNNING], number)
            news = True
        told = gpu_views(self._topology, state, self._health.idle_since)
        if told != self._views:
            self._views = {index: _same(self._views.get(index), view) for index, view in told.items()}
            news |= self._gpus.look(self._views, number)
        if self._health.live is not self._live:
            self._live, self._live_at, news = self._health.live, number, True
        now = HostNow(
            drain=state.drain,
            blind=state.blind,
            foreign_cpus=dict(state.foreign_cpus),
            troubles=self._health.notes,
        )
        if now != self._now or not self._now_at:
            self._now, self._now_at, news = now, number, True
        if news:
            self._number = number

    async def _changes(self, request: Follow) -> Changes:
        whole = self._is_new(request)
        since = 0 if whole else request.since
        number, now, state = self._number, self._clock.now(), self._state
        assert state is not None
        jobs = [self._line(state.jobs[ident], now) for ident in self._jobs.since(since)]
        gone = [] if whole else self._jobs.gone(since)
        changes = Changes(
            life=self._life,
            number=number,
            now=now,
            whole=whole,
            gpus=[self._views[index] for index in self._gpus.since(since)],
            readings=self._readings() if self._live_at > since else [],
            host=self._host() if whole else None,
            changed=self._now if self._now_at > since else None,
            jobs=jobs,
        )
        ended, events = await asyncio.to_thread(self._stored, gone, request.event, whole)
        jobs += [self._line(job, now) for job in ended]
        changes.events.extend(events)
        return changes

    def _stored(self, gone: list[JobId], event: int, whole: bool) -> tuple[list[Job], list[EventView]]:
        first = whole and event <= 0
        events = list(self._store.events(-FIRST_EVENTS if first else max(0, event), EVENTS_MAX))
        # Who came and went between two looks, or while topod was away, was never seen: only the story tells.
        told = (
            [] if first else [JobId(one.job) for one in events if one.job is not None and one.name in _ENDS]
        )
        idents = list(dict.fromkeys([*gone, *told]))
        return list((self._store.jobs(idents) if idents else {}).values()), events

    def _line(self, job: Job, now: float) -> JobLine:
        marks = self._state.marks if self._state else {}
        return job_line(job, marks, now=now, rules=self._mailbox.rules)

    def _readings(self) -> list[GpuReading]:
        indices = {gpu.uuid: gpu.index for gpu in self._topology.gpus}
        return [
            GpuReading(
                index=indices[gpu.uuid],
                memory_bytes=gpu.memory_bytes,
                memory_used_bytes=gpu.memory_used_bytes,
                utilisation_percent=gpu.utilisation_percent,
                temperature_celsius=gpu.temperature_celsius,
                slowdown=gpu.slowdown,
                problem=gpu.problem,
            )
            for gpu in (self._live.gpus if self._live else ())
            if gpu.uuid in indices
        ]


def _same(before: GpuView | None, view: GpuView) -> GpuView:
    """Return the earlier one where they are equal: a change is told by identity."""
    return before if before is not None and before == view else view
