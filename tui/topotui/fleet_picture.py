"""What is known of a fleet that is followed: each answer of its coordinator changes it a little. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from topoctl.render.jobs import ident
from topod.protocol.replies import FleetChanges
from topod.protocol.views import EventView, FleetNow, FleetRow, JobLine, KindView
from topotui.fleet_tiles import Layout, layout_of
from topotui.picture import Known

PREEMPTIONS_KEPT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What an answer changed."""

    hosts: frozenset[str] = frozenset()
    """Those that are new or other than before."""
    gone: bool = False
    """There are hosts less."""
    jobs: frozenset[int] = frozenset()
    whole: bool = False
    rest: bool = False
    """The events, or what is told of the coordinator."""

    def __bool__(self) -> bool:
        """Say whether anything is new."""
        return bool(self.hosts or self.jobs or self.gone or self.whole or self.rest)


@dataclass(slots=True, kw_only=True)
class Stops:
    """Jobs that are stopped for another one. Moments are epoch seconds of the coordinator."""

    job: int
    text: str
    """Who gets what of whom, in words."""
    at: float
    victims: dict[str, float | None]
    """As people name them, with when they were placed anew or ended; None: not yet."""
    started_at: float | None = None
    gave_up: str = ""

    @property
    def freed_at(self) -> float | None:
        """When the last victim was gone; None while one is not, or where a host alone knows of it."""
        gone = list(self.victims.values())
        return None if None in gone or not gone else max(at for at in gone if at is not None)


@dataclass(slots=True)
class Preemptions:
    """Those of the fleet as its story tells them, the latest last."""

    all: list[Stops] = field(default_factory=list)
    _open: dict[int, Stops] = field(default_factory=dict)

    def take(self, events: list[EventView], names: Mapping[int, str]) -> None:
        """Take in the next events; `names` says how people name a job where that is not its number."""
        for event in events:
            if event.job is not None:
                self._take(event, event.job, names.get(event.job, str(event.job)))

    def _take(self, event: EventView, job: int, name: str) -> None:
        match event.name:
            case "job.assigned" if victims := event.data.get("victims"):
                found = Stops(
                    job=job, text=event.text, at=event.at, victims={str(one): None for one in victims}
                )
                self._open[job] = found
                self.all.append(found)
                del self.all[:-PREEMPTIONS_KEPT]
            case "job.started":
                begun = self._open.pop(job, None)
                if begun is not None:
                    begun.started_at = event.at
            case "job.requeued" | "job.cancelled" | "job.failed" | "job.lost" | "job.succeeded":
                for one in self._open.values():
                    if name in one.victims and one.victims[name] is None:
                        one.victims[name] = event.at
                ended = self._open.pop(job, None)
                if ended is not None:
                    ended.gave_up = event.text
            case _:
                pass


class FleetPicture(Known):
    """A fleet as it was at the last answer."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, FleetRow] = {}
        self.kinds: dict[str, KindView] = {}
        self.layouts: dict[str, Layout] = {}
        """How the GPUs of a host are drawn, by its kind."""
        self.about: FleetNow | None = None
        self.preemptions = Preemptions()

    def take(self, changes: FleetChanges) -> News:
        """Take in an answer; return what is new."""
        self._life, self._number, self.now = changes.life, changes.number, changes.now
        if changes.whole:
            self.jobs, self.rows = {}, {}
        self.kinds |= {kind.name: kind for kind in changes.kinds}
        self.layouts |= {kind.name: layout_of(kind) for kind in changes.kinds}
        for job in changes.jobs:
            self._take_job(job)
        self.rows |= {row.name: row for row in changes.hosts}
        for name in changes.gone:
            self.rows.pop(name, None)
        self.about = changes.changed or self.about
        fresh = self._take_events(changes.events)
        names = (
            {job.id: ident(job) for job in (*self.jobs.values(), *changes.jobs) if job.array_id}
            if fresh
            else {}
        )
        self.preemptions.take(fresh, names)
        return News(
            hosts=frozenset(row.name for row in changes.hosts),
            gone=bool(changes.gone),
            jobs=frozenset(job.id for job in changes.jobs),
            whole=changes.whole,
            rest=bool(fresh) or changes.changed is not None,
        )

    def jobs_on(self, host: str) -> list[JobLine]:
        """Return the fleet's jobs on a host, by number."""
        return [job for job in self.jobs.values() if host in job.hosts and job.state != "pending"]
