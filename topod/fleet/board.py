"""The decision's picture of the fleet, kept in step with state and view.

A cache: what it holds follows from the state and the view alone, so an outcome that is thrown away does no
harm.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from topod.errors import DataError
from topod.fleet.budgets import NOTHING, Counted, count, less, stopped, with_budgets
from topod.fleet.hosts import HostSnapshot
from topod.fleet.jobtable import effective_priority, jobs_on
from topod.fleet.picking import Choice, Picker
from topod.fleet.promised import Promise, with_promises
from topod.fleet.states import FleetJob, FleetJobId, FleetState, HostRecord, Target
from topod.fleet.view import FleetView
from topod.fleet.whole import with_wholes
from topod.flextopo.tables import TopologyTables
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
        self._tables: dict[str, TopologyTables] = {}
        self._spent: Mapping[str, int] = {}
        self.counted: Counted = NOTHING
        """How the fleet's disruption budgets stand."""
        self._stamp: tuple[FleetState, FleetView] | None = None

    def is_at(self, state: FleetState, view: FleetView) -> bool:
        """Say whether the board shows exactly this moment."""
        return self._stamp is not None and self._stamp[0] is state and self._stamp[1] is view

    def stamp(self, state: FleetState, view: FleetView) -> None:
        """Note what the board shows now."""
        self._stamp = (state, view)

    def outdate(self) -> None:
        """Have every host shown anew: other rules are in force."""
        self._stamp = None

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
        hosts = {*hosts, *self._recount(count(jobs, view.hosts, rules))}
        for host in sorted(hosts):
            self._show(host, jobs, records.get(host), view, rules)

    def _recount(self, counted: Counted) -> Iterator[str]:
        """Take in how the budgets stand, and yield the hosts that are shown with others."""
        old, new = self.counted.budgets, counted.budgets
        self.counted = counted
        changed = {name for name in {*old, *new} if old.get(name) != new.get(name)}
        for host, shown in self._put.items() if changed else ():
            if any(budget.name in changed for budget in shown.budgets):
                yield host

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
                self._hand_in(shown, seen.tables, kept)
        self._kept = kept

    def spend(self, spent: Mapping[str, int]) -> None:
        """Let decisions from now on count on so much less of the fleet's budgets, by name."""
        names = {*spent, *self._spent}
        self._spent = spent
        for host, shown in self._put.items() if names else ():
            if any(budget.name in names for budget in shown.budgets):
                self._hand_in(shown, self._tables[host], self._kept)

    def keeps_budgets(self, choices: Iterable[Choice]) -> bool:
        """Say whether plans on several hosts stop no more of the fleet's budgets together than they may."""
        victims: set[tuple[object, tuple[str, ...]]] = set()
        for choice in choices:
            shown = self._put[choice.host]
            victims |= {
                (held.gang or (choice.host, held.job), held.budgets)
                for held in shown.holders
                if held.job in choice.plan.victims
            }
        counts = Counter(name for _, names in victims for name in names)
        return all(counts[name] <= budget.stops for name, budget in self.counted.budgets.items())

    def called(self, host: str, job: str) -> str:
        """Return how people name a job of a host, after the word job: `12[3]`, `4 of node-a`."""
        shown = self._put.get(host)
        held = next((held for held in shown.holders if held.job == job), None) if shown else None
        return f"{job} of {host}" if held is None or not held.ident else held.ident

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
            with_wholes(with_budgets(seen.snapshot, here, self.counted), here, view.hosts),
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
            self._hand_in(promised, seen.tables, self._kept)
        except DataError as error:  # a host that contradicts itself must not keep the others from their work
            self.unfit[host] = str(error)
            self._put.pop(host, None)
            self._picker.remove(host)
        else:
            self._put[host], self._tables[host] = promised, seen.tables

    def _hand_in(self, shown: HostSnapshot, tables: TopologyTables, kept: frozenset[Kept]) -> None:
        mine = sorted((k for k in kept if k.target.host == shown.host), key=lambda k: k.reason)
        blocks = tuple(Block(reason=k.reason, gpus=k.target.gpus, cpus=k.target.cpus) for k in mine)
        snapshot = replace(shown, blocks=(*shown.blocks, *blocks)) if blocks else shown
        if self._spent and snapshot.budgets:
            left = tuple(less(budget, self._spent) for budget in snapshot.budgets)
            snapshot = replace(snapshot, budgets=left)
        self._picker.put(snapshot, tables)


def unconfirmed(jobs: Iterable[FleetJob], host: str, rules: Rules) -> list[Promise]:
    """Return what a host was promised and has not confirmed, in the order of decisions."""
    found = []
    for job in sorted(jobs, key=lambda job: job.fence):
        member = job.on(host)
        if member is not None and not member.over and member.report is None:
            name, priority = f"fleet:{job.id}", effective_priority(job, rules)
            priority = priority if job.guard is None else max(priority, job.guard.priority)
            found.append(Promise(name=name, ident=job.ident, priority=priority, member=member))
    return found


def ask_all(
    board: Board, job: FleetJob, now: float, *, may_evict: bool, exclude: frozenset[str]
) -> tuple[list[Choice], Refusal | None]:
    """Return the best hosts for all members of a job; where there are too few, those and why no more.

    Found one by one, what one of them stops of the fleet's disruption budgets the next ones count as stopped.
    Those that are better together are taken where they keep these budgets as well.
    """
    chosen: list[Choice] = []
    spent: Counter[str] = Counter()
    refusal = None
    while len(chosen) < job.request.hosts and refusal is None:
        taken = exclude | {choice.host for choice in chosen}
        answer = ask(board, job, now, may_evict=may_evict, exclude=taken)
        if isinstance(answer, Refusal):
            refusal = answer
            continue
        chosen.append(answer)
        shown = board.host(answer.host)
        if len(chosen) < job.request.hosts and answer.plan.victims and shown is not None:
            spent += stopped(shown, answer.plan.victims)
            board.spend(spent)
    board.spend({})
    if refusal is not None or job.request.hosts == 1:
        return chosen, refusal
    better = together(board, job, now, chosen, exclude=exclude)
    return (better if board.keeps_budgets(better) else chosen), None


def shortage(found: Sequence[Choice], wanted: int, refusal: Refusal) -> str:
    """Return in words why a job found fewer hosts than it wants; `refusal` is that of the next one."""
    if not found:
        return refusal.reason
    return f"{len(found)} of {wanted} hosts could take it now; {refusal.reason}"


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
