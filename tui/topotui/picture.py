"""What is known of a host that is followed: each answer of topod changes it a little. Pure."""

import json
from collections import deque
from collections.abc import Sequence

from topod.discovery.document import load_host
from topod.model.topology import Topology
from topod.protocol.replies import Changes
from topod.protocol.views import EventView, GpuReading, GpuView, HostNow, HostView, JobLine
from topotui.timeline import Timeline

EVENTS_KEPT = 5000
ENDED_KEPT = 500
ENDED = frozenset({"succeeded", "failed", "cancelled", "lost", "returned"})


class Known:
    """What is known of whoever is followed, a host or a fleet: jobs and events."""

    def __init__(self) -> None:
        self.now = 0.0
        """The clock of who answered, epoch seconds."""
        self.jobs: dict[int, JobLine] = {}
        """Those that have not ended, by number."""
        self.ended: dict[int, JobLine] = {}
        """The last that ended, in the order of their ends."""
        self.events: deque[EventView] = deque(maxlen=EVENTS_KEPT)
        self._life = ""
        self._number = 0

    @property
    def cursor(self) -> tuple[str, int, int]:
        """What the next question names: life, number, last event."""
        return self._life, self._number, self.events[-1].seq if self.events else 0

    def running(self) -> list[JobLine]:
        """Return the jobs that hold something, by number."""
        return [job for job in self.jobs.values() if job.state != "pending"]

    def queue(self) -> list[JobLine]:
        """Return the jobs that wait, who goes first first."""
        waiting = [job for job in self.jobs.values() if job.state == "pending"]
        return sorted(
            waiting, key=lambda job: (-(job.effective_priority or job.priority), job.submitted_at, job.id)
        )

    def remember(self, jobs: Sequence[JobLine]) -> None:
        """Take in jobs that ended before anybody looked, oldest first."""
        older = {job.id: job for job in jobs if job.id not in self.ended and job.id not in self.jobs}
        self.ended = dict([*older.items(), *self.ended.items()][-ENDED_KEPT:])

    def _take_job(self, job: JobLine) -> None:
        if job.state not in ENDED:
            self.jobs[job.id] = job
            return
        self.jobs.pop(job.id, None)
        self.ended.pop(job.id, None)
        self.ended[job.id] = job
        while len(self.ended) > ENDED_KEPT:
            del self.ended[next(iter(self.ended))]

    def _take_events(self, events: Sequence[EventView]) -> list[EventView]:
        """Take in events, and return those that were not known."""
        known = self.events[-1].seq if self.events else 0
        fresh = [event for event in events if event.seq > known]
        self.events.extend(fresh)
        return fresh


class Picture(Known):
    """A host as it was at the last answer."""

    def __init__(self) -> None:
        super().__init__()
        self.host: HostView | None = None
        self.topology: Topology | None = None
        self.gpus: dict[int, GpuView] = {}
        self.readings: dict[int, GpuReading] = {}
        self.about = HostNow()
        self.timeline = Timeline()

    def remember_events(self, older: Sequence[EventView]) -> None:
        """Take in what happened before the first known event, oldest first: preemptions are told of in it."""
        self.timeline = Timeline()
        self.timeline.take([*older, *self.events])

    def take(self, changes: Changes) -> bool:
        """Take in an answer; return whether anything is new."""
        self._life, self._number, self.now = changes.life, changes.number, changes.now
        if changes.whole:
            self.jobs, self.gpus, self.readings = {}, {}, {}
            if changes.host is not None:
                self.host = changes.host
                self.topology = load_host(json.dumps(changes.host.document).encode(), "topod").topology
        for job in changes.jobs:
            self._take_job(job)
        self.gpus.update({gpu.index: gpu for gpu in changes.gpus})
        self.readings.update({reading.index: reading for reading in changes.readings})
        self.about = changes.changed or self.about
        fresh = self._take_events(changes.events)
        self.timeline.take(fresh)
        parts = (changes.jobs, changes.gpus, changes.readings, changes.changed, fresh)
        return changes.whole or any(parts)
