"""Whether a fleet kept its promises: judged by what its jobs told, and what was accepted."""

from collections import defaultdict
from collections.abc import Iterable

from tests.cut_fleet import Told, Witness
from tests.fleet_soak.schedule import HEAD
from tests.fleet_soak.stage import Books, Stage
from tests.short_terms import AWAY_SECONDS, GRACE_SECONDS
from topod.protocol.replies import Jobs
from topod.protocol.requests import ListJobs
from topod.protocol.views import EventView, JobView

STOP_SECONDS = GRACE_SECONDS + 2.0
"""After its return a topod has stopped by then what it should have."""


def verdict(stage: Stage) -> list[str]:
    """Return all that is wrong, in words."""
    fleet, books = stage.fleet, stage.books
    jobs = {ident: fleet.job(ident) for ident in sorted(books.jobs)}
    assigned: dict[int, int] = defaultdict(int)
    for event in fleet.events():
        if event.name == "job.assigned" and event.job is not None:
            assigned[event.job] += 1
    lines: dict[int, list[Told]] = defaultdict(list)
    for told in fleet.told.told():
        lines[told.job].append(told)
    wrong = [text for view in jobs.values() for text in _job(view, books, lines[view.id], assigned[view.id])]
    wrong += [f"a user was refused: {text}" for text in books.refused]
    wrong += _strangers(books, fleet.told)
    wrong += at_once(fleet.told, books)
    fences = {name: fences_of(topod.events()) for name, topod in fleet.hosts.items()}
    wrong += overlaps(fleet.told, fences, books)
    wrong += [
        f"{view.name} has {view.free_gpus} free GPUs" for view in fleet.host_views() if view.free_gpus != 8
    ]
    for name, topod in fleet.hosts.items():
        reply = topod.ask(ListJobs())
        assert isinstance(reply, Jobs)
        wrong += [f"{name} still has its job {left.id}, {left.state}" for left in reply.jobs]
    return wrong


def _job(view: JobView, books: Books, told: Iterable[Told], assigned: int) -> list[str]:
    """Return what is wrong with one job: it must have ended as its policy says, and by a run that was seen."""
    job = books.jobs[view.id]
    name = f"job {view.id} ({job})"
    natural = "failed" if job.code else "succeeded"
    if view.state == "cancelled":
        return (
            [] if view.id in books.cancelled else [f"{name} is cancelled, which nobody wanted: {view.reason}"]
        )
    if view.state != natural or (view.exit_code or 0) != job.code:
        return [f"{name} is {view.state} with {view.exit_code}: {view.reason}"]
    found = []
    begun, done = ([one for one in told if one.what == what] for what in ("begins", "done"))
    ranks = {one.rank for one in done}
    # A job on several hosts fails with the first of its members.
    if ranks != set(range(job.hosts)) and not (job.code and ranks):
        found.append(f"{name} is {view.state}, and only its ranks {sorted(ranks)} came to their end")
    runs = {(one.host, one.local) for one in begun}
    if len(runs) > assigned * job.hosts:
        found.append(f"{name} began {len(runs)} times, assigned {assigned} times")
    if not 1 <= view.starts <= assigned:
        found.append(f"{name} counts {view.starts} starts, assigned {assigned} times")
    if assigned == 1 and len(begun) != job.hosts:
        found.append(f"{name} was assigned once and began {len(begun)} times")
    return found


def _strangers(books: Books, witness: Witness) -> list[str]:
    idents = list(books.accepted.values())
    unknown = {told.job for told in witness.told("begins")} - set(idents)
    twice = sorted({ident for ident in idents if idents.count(ident) > 1})
    return [f"job {ident} ran and was never accepted" for ident in sorted(unknown)] + [
        f"job {ident} was given to two submits" for ident in twice
    ]


def at_once(witness: Witness, books: Books) -> list[str]:
    """Return what must never be, but for jobs that ran twice while a topod was dead for longer than is allowed."""
    excused = {str(told) for told in witness.told("twice") if _excused(books, told.at, told.at)}
    return [text for text in witness.wrong() if text not in excused]


def _excused(books: Books, since: float, until: float) -> bool:
    """Say whether some topod could not stop then what was given away: see `docs/limits.md`."""
    return any(gone <= until and since <= back + STOP_SECONDS for gone, back in too_long_away(books))


def too_long_away(books: Books) -> list[tuple[float, float]]:
    """Return when a topod was away for longer than its fleet allows: this machine took long to start it."""
    spans = [span for host, spans in books.away.items() if host != HEAD for span in spans]
    return [(gone, back) for gone, back in spans if back - gone > AWAY_SECONDS]


def fences_of(events: Iterable[EventView]) -> dict[int, int]:
    """Return the fence of each assignment by the host's own number of it."""
    return {
        event.job: int(event.data["fence"])
        for event in events
        if event.name == "job.assigned" and event.job is not None and "fence" in event.data
    }


def overlaps(witness: Witness, fences: dict[str, dict[int, int]], books: Books) -> list[str]:
    """Return jobs of which runs of two assignments overlapped in time, on whatever hosts."""
    spans: dict[int, list[tuple[int, float, float, Told]]] = defaultdict(list)
    ends = {told.run: told.at for told in witness.told("ends")}
    for told in witness.told("begins"):
        fence = fences[told.host].get(told.local)
        if fence is None:
            return [f"{told} was never assigned to its host"]
        if told.run in ends:
            spans[told.job].append((fence, told.at, ends[told.run], told))
    found = []
    for runs in spans.values():
        for at, (fence, since, until, told) in enumerate(runs):
            for other_fence, other_since, other_until, other in runs[at + 1 :]:
                first, last = max(since, other_since), min(until, other_until)
                if fence != other_fence and first < last and not _excused(books, first, last):
                    found.append(f"{told} and {other} overlap, of two assignments")
    return found
