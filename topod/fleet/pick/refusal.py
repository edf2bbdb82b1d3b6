"""Why no host of a fleet can take a job: hosts grouped by reason, each group with one host's exact words."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from topod.fleet.hosts import HostSnapshot, occupancy_at
from topod.fleet.pick.cost import Chosen
from topod.fleet.pick.rows import KindRows
from topod.fleet.pick.victims import VictimBounds
from topod.fleet.select import Selector
from topod.model.plan import Plan, Refusal
from topod.model.request import ResourceRequest
from topod.preemption.refusal import impossible
from topod.preemption.search import plan

MOST_GROUPS: Final = 8
"""So many groups are told; the hosts of all others are counted together."""
_IN_REASON: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a search in vain found out."""

    request: ResourceRequest
    now: float
    selector: Selector
    exclude: Collection[str]
    bounds: Sequence[VictimBounds]
    refusals: dict[str, Refusal]
    """By host: those whose own planner was asked."""


@dataclass(slots=True)
class _Group:
    """Hosts with one reason; `host` is the first of them by name."""

    why: str
    kind: KindRows
    row: int
    asked: bool
    """Whether the host's own planner can say more."""
    count: int = 1

    @property
    def host(self) -> str:
        return self.kind.snapshots[self.row].host


def refuse_to_stop(later: Chosen, snapshot: HostSnapshot) -> Refusal:
    """Return the refusal of a request that could be met only by stopping jobs, as `later` does."""
    names = [held.ident or held.job for held in snapshot.holders if held.job in later.plan.victims]
    stops = "jobs" if len(names) > 1 else "job"
    return Refusal(
        reason="no host has room without stopping a job",
        details=(f"then: on {later.host}, stops {stops} {', '.join(names)}",),
    )


def refuse(kinds: Iterable[KindRows], looked: Looked) -> Refusal:
    """Return the refusal of a request that no host can meet, of those that are not excluded."""
    groups: dict[str, _Group] = {}
    total = 0
    for why, kind, row, asked in _reasons(kinds, looked):
        total += 1
        group = groups.get(why)
        if group is None:
            groups[why] = _Group(why, kind, row, asked)
            continue
        group.count += 1
        if kind.snapshots[row].host < group.host:
            group.kind, group.row = kind, row
    other = " other" if looked.exclude else ""
    if not groups:
        return Refusal(reason="there is no other host" if other else "the fleet has no hosts")
    ordered = sorted(groups.values(), key=lambda group: (-group.count, group.why))
    first = [f"{group.why} ({group.count})" for group in ordered[:_IN_REASON]]
    rest = sum(group.count for group in ordered[_IN_REASON:])
    told = "; ".join((*first, f"other reasons ({rest})") if rest else first)
    reason = f"none of {_hosts(total, other)} can take it now: {told}"
    # One group of which nobody knows more was told just now.
    details = () if len(ordered) == 1 and not ordered[0].asked else _details(ordered, looked)
    return Refusal(reason=reason, details=tuple(details))


def _details(ordered: Sequence[_Group], looked: Looked) -> Iterator[str]:
    for group in ordered[:MOST_GROUPS]:
        words = _words_of(group, looked) if group.asked else ""
        more = f"; {group.host}: {words}" if words else f", e.g. {group.host}"
        yield f"{_hosts(group.count)}: {group.why}{more}"
    rest = sum(group.count for group in ordered[MOST_GROUPS:])
    if rest:
        yield f"{_hosts(rest)}: other reasons"


def _words_of(group: _Group, looked: Looked) -> str:
    """Return what the planner of the group's first host says."""
    found: Plan | Refusal | None = looked.refusals.get(group.host)
    if found is None:
        snapshot = group.kind.snapshots[group.row]
        found = plan(group.kind.tables, occupancy_at(snapshot, looked.now), looked.request)
    assert isinstance(found, Refusal)
    return found.reason


def _reasons(kinds: Iterable[KindRows], looked: Looked) -> Iterator[tuple[str, KindRows, int, bool]]:
    """Yield (why, kind, row, whether its planner can say more) of every host."""
    bounds = {bound.kind: bound for bound in looked.bounds}
    for kind in kinds:
        never = impossible(kind.tables, looked.request)
        takes = looked.selector.takes_kind(kind.tables.topology)
        of_row: dict[int, int] = {row: at for at, row in enumerate(bounds[kind].rows.tolist())}
        usable = kind.tables.sizes[bounds[kind].usable].tolist()
        fits = bounds[kind].fits.tolist()
        for row, snapshot in enumerate(kind.snapshots):
            if snapshot.host in looked.exclude:
                continue
            at = of_row.get(row)
            if at is None:
                yield _left_out(snapshot, looked, kind=takes), kind, row, False
            elif never is not None:
                yield never.reason, kind, row, False
            elif snapshot.host in looked.refusals:
                yield "disruption budgets or CPUs forbid every plan", kind, row, True
            elif usable[at] < looked.request.gpus:
                yield _too_few(snapshot, looked.request, usable[at]), kind, row, True
            elif not fits[at]:
                yield "the GPUs that can be freed are not close enough to each other", kind, row, True
            else:
                yield "too few CPUs can be freed beside the GPUs, or budgets forbid it", kind, row, True


def _too_few(snapshot: HostSnapshot, request: ResourceRequest, usable: int) -> str:
    """Say that a host has too few GPUs, and which disruption budgets are the reason, where they are."""
    full = {budget.name: budget.reason for budget in snapshot.budgets if budget.stops <= 0}
    spared = [
        held
        for held in snapshot.holders
        if held.priority < request.priority and not full.keys().isdisjoint(held.budgets)
    ]
    if not spared or usable + sum(held.gpus.bit_count() for held in spared) < request.gpus:
        return "too few GPUs can be freed"
    names = sorted({name for held in spared for name in held.budgets if name in full})
    return f"too few GPUs can be freed: {', '.join(full[name] for name in names)}"


def _left_out(snapshot: HostSnapshot, looked: Looked, *, kind: bool) -> str:
    if snapshot.closed is not None:
        return f"closed: {snapshot.closed}" if snapshot.closed else "closed"
    return looked.selector.why_not(snapshot.host, snapshot.labels, kind=kind)


def _hosts(count: int, which: str = "") -> str:
    return f"1{which} host" if count == 1 else f"{count}{which} hosts"
