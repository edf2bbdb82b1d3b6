"""The decision's picture of the fleet, kept in step with state and view.

A cache: what it holds follows from the state and the view alone, so an outcome that is thrown away does no
harm.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from topod.errors import DataError
from topod.fleet.hosts import HostSnapshot
from topod.fleet.jobtable import effective_priority, jobs_on
from topod.fleet.picking import Choice, Picker
from topod.fleet.promised import Promise, with_promises
from topod.fleet.states import FleetJob, FleetJobId, FleetState, HostRecord, Target
from topod.fleet.view import FleetView, HostView
from topod.fleet.whole import with_wholes
from topod.model.occupancy import Block
from topod.model.plan import Refusal
from topod.model.rules import Rules


class Kept(NamedTuple):
    """A target, and in words whose it is."""

    target: Target
    reason: str


class Board:
    """All hosts that may get work, as the decision sees them."""

    def __init__(self, picker: Picker) -> None:
        self._picker: Final = picker
        self._put: dict[str, HostSnapshot] = {}
        self.unfit: dict[str, str] = {}
        """Hosts whose reports contradict themselves, with what is wrong; they get no work."""
        self._kept: frozenset[Kept] = frozenset()
        self._stamp: tuple[FleetState, FleetView] | None = None

    def is_at(self, state: FleetState, view: FleetView) -> bool:
        """Say whether the board shows exactly this moment."""
        return self._stamp is not None and self._stamp[0] is state and self._stamp[1] is view

    def stamp(self, state: FleetState, view: FleetView) -> None:
        """Note what the board shows now."""
        self._stamp = (state, view)

    def show(
        self,
        hosts: Iterable[str],
        jobs: Mapping[FleetJobId, FleetJob],
        records: Mapping[str, HostRecord],
        view: FleetView,
        rules: Rules,
    ) -> None:
        """Bring these hosts up to date."""
        self._stamp = None
        for host in hosts:
            self._show(host, jobs, records.get(host), view, rules)

    def known(self) -> Collection[str]:
        """Return the hosts on the board."""
        return self._put.keys()

    def host(self, name: str) -> HostSnapshot | None:
        """Return a host as the decision sees it, without what is kept; None: it gets no work now."""
        return self._put.get(name)

    def keep(self, kept: frozenset[Kept], view: FleetView) -> None:
        """Let decisions from now on leave alone exactly these targets."""
        for host in {entry.target.host for entry in kept ^ self._kept}:
            seen, shown = view.hosts.get(host), self._put.get(host)
            if seen is not None and shown is not None:
                self._hand_in(shown, seen, kept)
        self._kept = kept

    @property
    def picker(self) -> Picker:
        """What decides."""
        return self._picker

    def _show(
        self,
        host: str,
        jobs: Mapping[FleetJobId, FleetJob],
        record: HostRecord | None,
        view: FleetView,
        rules: Rules,
    ) -> None:
        seen = view.hosts.get(host)
        if record is None or seen is None or seen.snapshot is None or seen.silent:
            if self._put.pop(host, None) is not None:
                self._picker.remove(host)
            return
        closed = record.closed
        here = jobs_on(jobs, host)
        promised = with_promises(
            with_wholes(seen.snapshot, here, view.hosts),
            unconfirmed(here, host, rules),
            labels={**seen.snapshot.labels, **record.all_labels},
            closed=None
            if closed is None
            else f"{'drained' if closed.drained else 'cordoned'}: {closed.reason}",
        )
        if self._put.get(host) == promised:
            return
        self.unfit.pop(host, None)
        try:
            self._hand_in(promised, seen, self._kept)
        except DataError as error:  # a host that contradicts itself must not keep the others from their work
            self.unfit[host] = str(error)
            self._put.pop(host, None)
            self._picker.remove(host)
        else:
            self._put[host] = promised

    def _hand_in(self, shown: HostSnapshot, seen: HostView, kept: frozenset[Kept]) -> None:
        mine = sorted((k for k in kept if k.target.host == shown.host), key=lambda k: k.reason)
        blocks = tuple(Block(reason=k.reason, gpus=k.target.gpus, cpus=k.target.cpus) for k in mine)
        snapshot = replace(shown, blocks=(*shown.blocks, *blocks)) if blocks else shown
        self._picker.put(snapshot, seen.tables)


def unconfirmed(jobs: Iterable[FleetJob], host: str, rules: Rules) -> list[Promise]:
    """Return what a host was promised and has not confirmed, in the order of decisions."""
    found = []
    for job in sorted(jobs, key=lambda job: job.fence):
        member = job.on(host)
        if member is not None and not member.over and member.report is None:
            name, priority = f"fleet:{job.id}", effective_priority(job, rules)
            priority = priority if job.guard is None else max(priority, job.guard.priority)
            found.append(Promise(name=name, priority=priority, member=member))
    return found


def ask(
    board: Board,
    job: FleetJob,
    now: float,
    *,
    may_evict: bool,
    exclude: Collection[str],
) -> Choice | Refusal:
    """Return the best host for one member of a job."""
    return board.picker.decide(
        job.spec.request, now, selector=job.request.selector, may_evict=may_evict, exclude=exclude
    )


def together(
    board: Board, job: FleetJob, now: float, chosen: Sequence[Choice], *, exclude: Collection[str]
) -> list[Choice]:
    """Return the hosts that are best for all members of a job; `chosen` were found one by one."""
    asked = job.spec.request
    return [*board.picker.together(asked, now, chosen, selector=job.request.selector, exclude=exclude)]
