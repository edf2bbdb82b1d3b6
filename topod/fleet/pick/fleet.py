"""The hosts of a fleet, and for each job the host and the plan of least cost over all of them. Exact.

Where a host can take the job without a victim, arrays tell the best one outright (`free`). Else bounds order
the hosts (`victims`), and the planner of one host looks at them in that order until the best plan found costs
no more than the next bound: mostly at one. The order of costs is that of `cost.fleet_key`.
`tests/property/test_fleet_decision.py` proves it against every host's own planner.
"""

from collections.abc import Collection, Iterator, Sequence
from heapq import merge

import numpy as np

from topod.errors import NotFoundError
from topod.fleet.hosts import HostSnapshot, occupancy_at
from topod.fleet.pick.cost import Chosen, FleetKey, choice, fleet_key
from topod.fleet.pick.kept import Kept
from topod.fleet.pick.levels import NEVER, Levels
from topod.fleet.pick.refusal import Looked, refuse, refuse_to_stop
from topod.fleet.pick.remembered import Remembered
from topod.fleet.pick.rows import FloatTable, KindRows, Priorities
from topod.fleet.pick.shape import Shapes
from topod.fleet.pick.together import Hosts, Together, shared_gangs
from topod.fleet.pick.victims import VictimBounds
from topod.fleet.picking import Room
from topod.fleet.select import EVERYWHERE, Selector
from topod.flextopo.affinity import BoolTable, IntTable
from topod.flextopo.tables import TopologyTables
from topod.model.plan import Plan, Refusal
from topod.model.request import ResourceRequest
from topod.preemption.search import plan


class Fleet:
    """Hosts with what they hold, kept as arrays by kind of hardware. Not for several threads at once."""

    def __init__(self) -> None:
        self._priorities = Priorities()
        self._kinds: dict[TopologyTables, tuple[KindRows, Shapes]] = {}
        self._remembered: dict[KindRows, Remembered] = {}
        self._kept: dict[KindRows, Kept] = {}
        self._kind_of: dict[str, KindRows] = {}
        self._selected: dict[tuple[object, ...], dict[KindRows, BoolTable]] = {}

    def __len__(self) -> int:
        return len(self._kind_of)

    def __contains__(self, host: object) -> bool:
        return host in self._kind_of

    def snapshot(self, host: str) -> HostSnapshot:
        """Return what was put last for a host. Raises `NotFoundError`."""
        kind = self._kind_of.get(host)
        if kind is None:
            raise NotFoundError(f"no such host in the fleet: {host}")
        return kind.snapshots[kind.row_of[host]]

    def put(self, snapshot: HostSnapshot, tables: TopologyTables) -> None:
        """Add a host, or replace what is known of it; `tables` are those of its kind (`Kinds.tables`).

        Raises `DataError` where two jobs hold the same GPU or CPU, or one that the host does not have; the
        fleet is then as it was.
        """
        if tables not in self._kinds:
            kind = KindRows(tables, self._priorities)
            self._kinds[tables] = kind, Shapes(kind)
            self._remembered[kind], self._kept[kind] = Remembered(kind), Kept(kind)
        kind, _ = self._kinds[tables]
        before = self._kind_of.get(snapshot.host)
        labels = before.snapshots[before.row_of[snapshot.host]].labels if before is not None else None
        kind.put(snapshot)
        if before is not None and before is not kind:
            before.remove(snapshot.host)
        self._kind_of[snapshot.host] = kind
        if before is not kind or labels != snapshot.labels:
            self._selected.clear()

    def remove(self, host: str) -> None:
        """Forget a host; one that is not known is none."""
        kind = self._kind_of.pop(host, None)
        if kind is not None:
            kind.remove(host)
            self._selected.clear()

    def decide(
        self,
        request: ResourceRequest,
        now: float,
        *,
        selector: Selector = EVERYWHERE,
        spread: bool = False,
        may_evict: bool = True,
        exclude: Collection[str] = (),
    ) -> Chosen | Refusal:
        """Return the host and the plan of least cost for `request` at `now` (epoch seconds), or why none is.

        Closed hosts, those that `selector` does not take and those in `exclude` are left out. With `spread`
        emptier hosts come first, else the fullest that lose nothing by it. A refusal has the hosts grouped by
        reason in its details; without `may_evict` it tells the plan that stops jobs, if there is one.
        """
        rows = {kind: self._candidates(kind, selector, exclude) for kind, _ in self._kinds.values()}
        shares = {kind: _shares(kind, at, request) if spread else None for kind, at in rows.items()}
        found = self._without_victims(request, now, rows, shares)
        if found is not None:
            return found
        bounds = self._bounds(request, now, rows, shares)
        best, refusals = self._with_victims(request, now, bounds, spread=spread)
        if best is not None:
            return best if may_evict else refuse_to_stop(best, self.snapshot(best.host))
        looked = Looked(
            request=request, now=now, selector=selector, exclude=exclude, bounds=bounds, refusals=refusals
        )
        return refuse([kind for kind, _ in self._kinds.values()], looked)

    def preempt(self, request: ResourceRequest, now: float) -> Chosen | None:
        """Return the plan of least cost that stops somebody: what `decide` does where no host has room."""
        rows = {kind: self._candidates(kind, EVERYWHERE, ()) for kind, _ in self._kinds.values()}
        shares: dict[KindRows, FloatTable | None] = dict.fromkeys(rows)
        bounds = self._bounds(request, now, rows, shares)
        return self._with_victims(request, now, bounds, spread=False)[0]

    def room(self, request: ResourceRequest, *, selector: Selector = EVERYWHERE) -> Room:
        """Return on how many hosts `decide` looks, and how many of them need no victim."""
        rows = {kind: self._candidates(kind, selector, ()) for kind, _ in self._kinds.values()}
        return Room(
            looked=sum(map(len, rows.values())),
            room=sum(
                self._remembered[kind].with_room(shapes.of(request), rows[kind])
                for kind, shapes in self._kinds.values()
            ),
        )

    def together(
        self,
        request: ResourceRequest,
        now: float,
        chosen: Sequence[Chosen],
        *,
        selector: Selector = EVERYWHERE,
        spread: bool = False,
        exclude: Collection[str] = (),
    ) -> Sequence[Chosen]:
        """Return the hosts that are best together; `chosen` are those that `decide` found one by one.

        Else than these only where jobs over several hosts are to be stopped: see `pick.together`.
        """
        if all(not one.plan.victims for one in chosen):
            return chosen  # keys add up, so these are the best
        candidates = [
            kind.snapshots[row]
            for kind, _ in self._kinds.values()
            for row in self._candidates(kind, selector, exclude).tolist()
        ]
        gangs = shared_gangs(candidates, request, now)
        if not gangs:
            return chosen

        def best(taken: Collection[str]) -> Chosen | None:
            without = {*exclude, *taken}
            found = self.decide(request, now, selector=selector, spread=spread, exclude=without)
            return None if isinstance(found, Refusal) else found

        def plan_on(snapshot: HostSnapshot) -> Chosen | None:
            kind = self._kind_of[snapshot.host]
            here = plan(kind.tables, occupancy_at(snapshot, now), request)
            if isinstance(here, Refusal):
                return None
            return choice(kind, kind.row_of[snapshot.host], here, request, spread=spread)

        def show(snapshot: HostSnapshot) -> None:
            self.put(snapshot, self._kind_of[snapshot.host].tables)

        hosts = Hosts(best=best, plan=plan_on, show=show, snapshot=self.snapshot)
        return Together(hosts, gangs, request, now, wanted=len(chosen)).search(list(chosen))

    def _candidates(self, kind: KindRows, selector: Selector, exclude: Collection[str]) -> IntTable:
        open_rows = kind.open[: kind.count]
        if selector != EVERYWHERE:
            open_rows = open_rows & self._taken_by(selector)[kind]
        if any(host in kind.row_of for host in exclude):
            open_rows = open_rows.copy()
            open_rows[[kind.row_of[host] for host in exclude if host in kind.row_of]] = False
        rows: IntTable = np.flatnonzero(open_rows)
        return rows

    def _taken_by(self, selector: Selector) -> dict[KindRows, BoolTable]:
        """Return which rows a selector takes; remembered until hosts come, go or change their labels."""
        key = (tuple(sorted(selector.labels.items())), selector.gpu_model, selector.hosts)
        if key not in self._selected:
            if len(self._selected) >= 64:
                self._selected.clear()
            self._selected[key] = {kind: _taken(kind, selector) for kind, _ in self._kinds.values()}
        return self._selected[key]

    def _without_victims(
        self,
        request: ResourceRequest,
        now: float,
        rows: dict[KindRows, IntTable],
        shares: dict[KindRows, FloatTable | None],
    ) -> Chosen | None:
        best: tuple[tuple[object, ...], KindRows, int] | None = None
        for kind, shapes in self._kinds.values():
            found = self._remembered[kind].best(shapes.of(request), rows[kind], shares[kind])
            if found is not None:
                share = shares[kind]
                row, last = _tightest(kind, found[1], spread=share is not None)
                if best is None or (*found[0], *last) < best[0]:
                    best = (*found[0], *last), kind, row
        if best is None:
            return None
        _, kind, row = best
        here = self._plan(kind, row, request, now)
        assert isinstance(here, Plan)
        assert not here.victims
        return choice(kind, row, here, request, spread=shares[kind] is not None)

    def _bounds(
        self,
        request: ResourceRequest,
        now: float,
        rows: dict[KindRows, IntTable],
        shares: dict[KindRows, FloatTable | None],
    ) -> list[VictimBounds]:
        levels = Levels(self._priorities, request.priority)
        return [
            VictimBounds(
                kind,
                shapes.of(request),
                rows[kind],
                shares[kind],
                levels=levels,
                now=now,
                kept=self._kept[kind],
            )
            for kind, shapes in self._kinds.values()
        ]

    def _with_victims(
        self, request: ResourceRequest, now: float, bounds: list[VictimBounds], *, spread: bool
    ) -> tuple[Chosen | None, dict[str, Refusal]]:
        """Return the best plan, and the hosts that had none although their bounds did not say so."""
        best: tuple[FleetKey, Chosen] | None = None
        refusals: dict[str, Refusal] = {}
        while True:
            tier = min((int(bound.head.min(initial=NEVER)) for bound in bounds), default=NEVER)
            if tier == NEVER:
                break
            if best is not None and bounds[0].levels.head_of(best[1].plan.cost.victims) < tier:
                break
            for bound in bounds:
                bound.look(tier)
            streams = [_with_kind(bound, tier) for bound in bounds]
            for key, kind, row in merge(*streams, key=_key):
                if best is not None and best[0] <= key:
                    return best[1], refusals
                here = self._plan(kind, row, request, now)
                if isinstance(here, Refusal):
                    refusals[kind.snapshots[row].host] = here
                    continue
                chosen = choice(kind, row, here, request, spread=spread)
                if best is None or fleet_key(chosen, request) < best[0]:
                    best = fleet_key(chosen, request), chosen
        return (None if best is None else best[1]), refusals

    def _plan(self, kind: KindRows, row: int, request: ResourceRequest, now: float) -> Plan | Refusal:
        return plan(kind.tables, occupancy_at(kind.snapshots[row], now), request)


def _taken(kind: KindRows, selector: Selector) -> BoolTable:
    """Return which rows of a kind a selector takes."""
    taken = np.zeros(kind.count, dtype=np.bool_)
    if selector.takes_kind(kind.tables.topology):
        taken[:] = [selector.takes_host(snapshot.host, snapshot.labels) for snapshot in kind.snapshots]
    return taken


def _shares(kind: KindRows, rows: IntTable, request: ResourceRequest) -> FloatTable:
    """Return what `cost.free_share` tells of each host in `rows`."""
    if request.gpus:
        share: FloatTable = kind.tables.sizes[kind.free[rows]] / max(kind.tables.count, 1)
        return share
    of_cpus: FloatTable = kind.free_cpus[rows] / max(kind.tables.cpus.bit_count(), 1)
    return of_cpus


def _tightest(kind: KindRows, rows: IntTable, *, spread: bool) -> tuple[int, tuple[int, int, str]]:
    """Return which of some hosts that tie up to links comes first, and its last keys."""
    sign = -1 if spread else 1
    gpus = sign * kind.tables.sizes[kind.free[rows]]
    rows = rows[gpus == gpus.min()]
    cpus = sign * kind.free_cpus[rows]
    rows = rows[cpus == cpus.min()]
    row = kind.first_by_name(rows)
    return row, (int(gpus.min()), int(cpus.min()), kind.snapshots[row].host)


def _with_kind(bound: VictimBounds, tier: int) -> Iterator[tuple[FleetKey, KindRows, int]]:
    for key, row in bound.in_order(tier):
        yield key, bound.kind, row


def _key(entry: tuple[FleetKey, KindRows, int]) -> FleetKey:
    return entry[0]
