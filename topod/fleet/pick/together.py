"""The best hosts together for a job over several of them, where victims are members of jobs over several too.

What a choice of hosts costs is the sum over its hosts, key by key, so the best hosts one by one are the best
together: as long as nobody is paid for twice. A job over several hosts is lost as a whole as soon as one of
its members is stopped: a second host on which it runs gives its GPUs for nothing. So here such jobs are
branched on, best first. A node has some paid for (their GPUs are free on every host, and stranded where
nobody takes them), some spared, and lets the others be had for the part of their cost that they would bear
if as many of their hosts were chosen as can be: no choice of hosts costs less than that. Its best hosts one
by one are then a bound of all choices under the node, and the least of them where they stop nobody who is
not paid for. Exact in cost keys 1 to 4; of choices that are equal in these the one that is found first.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from typing import Final

from topod.fleet.hosts import HeldBy, HostSnapshot, holder_at, occupancy_at
from topod.fleet.pick.cost import STEP, Chosen, FleetKey, fleet_key
from topod.model.request import ResourceRequest

NODES: Final = 16
"""So many nodes are looked at; then the best that was found stands."""

Total = tuple[tuple[tuple[int, int], ...], int, int, int]
"""Cost keys 1 to 4 of a choice of hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """A job over several hosts that may be a victim, and where it runs among the hosts to choose from."""

    ident: int
    held: dict[str, HeldBy]
    """By host."""
    priority: int
    work: int
    """GPU-milliseconds, of all its hosts."""

    @property
    def stops(self) -> int:
        """Its containers on all hosts."""
        return max(held.stops for held in self.held.values())

    @property
    def gpus(self) -> int:
        """Its GPUs on all hosts."""
        return max(held.elsewhere + held.gpus.bit_count() for held in self.held.values())

    def share(self, host: str, hosts: int) -> HeldBy:
        """Return what the member on a host costs at least, where `hosts` are to be chosen."""
        parts = min(hosts, len(self.held))
        own = sorted((held.gpus.bit_count() for held in self.held.values()), reverse=True)
        held = self.held[host]
        return replace(
            held,
            stops=self.stops // parts,
            elsewhere=max(0, self.gpus - sum(own[:parts])) // parts,
            work_gpus=held.work_gpus // parts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """What the search asks of a fleet, whose hosts it shows differently from node to node."""

    best: Callable[[Collection[str]], Chosen | None]
    """The best host but for those named, all of them as they are shown."""
    plan: Callable[[HostSnapshot], Chosen | None]
    """The best plan on one host as given, with `spoils`."""
    show: Callable[[HostSnapshot], None]
    snapshot: Callable[[str], HostSnapshot]


class Together:
    """One search for the best hosts of a request."""

    def __init__(
        self, hosts: Hosts, gangs: Iterable[Gang], request: ResourceRequest, now: float, *, wanted: int
    ) -> None:
        self._hosts = hosts
        self._now = now
        self._gangs = {gang.ident: gang for gang in gangs}
        self._request = request
        self._wanted = wanted
        self._spared: frozenset[int] | None = None
        """Who is spared on the hosts as they are shown; None: they are shown as they are."""
        self._true = {name: hosts.snapshot(name) for gang in self._gangs.values() for name in gang.held}

    def search(self, first: list[Chosen]) -> list[Chosen]:
        """Return the best hosts; `first` are some that will do, the best one by one."""
        try:
            return self._search(first)
        finally:
            for snapshot in self._true.values():
                self._hosts.show(snapshot)

    def _search(self, first: list[Chosen]) -> list[Chosen]:
        best, least = first, self._price(first)
        order = count()
        nodes: list[tuple[Total, int, frozenset[int], frozenset[int], list[Chosen]]] = []

        def look(paid: frozenset[int], spared: frozenset[int]) -> None:
            found = self._solve(paid, spared)
            if found is not None:
                heappush(nodes, (self._total(found, paid), -next(order), paid, spared, found))

        look(frozenset(), frozenset())
        for _ in range(NODES):
            if not nodes or nodes[0][0] >= least:
                break
            _, _, paid, spared, found = heappop(nodes)
            named = self._named(found)
            price = self._price(self._with_members(found, paid | named))
            if price < least:
                best, least = self._with_members(found, paid | named), price
            further = min(named - paid, default=None)
            if further is not None:
                look(paid | {further}, spared)
                look(paid, spared | {further})
        return best

    def _solve(self, paid: frozenset[int], spared: frozenset[int]) -> list[Chosen] | None:
        """Return the best hosts one by one at a node; None where there are not enough."""
        given = sorted({name for ident in paid for name in self._gangs[ident].held})
        self._show(spared)
        freed = {name: self._shown(name, paid, spared) for name in given}
        found = [chosen for name in given if (chosen := self._hosts.plan(freed[name])) is not None]
        found = [_less_spoils(chosen, freed[chosen.host].spoils) for chosen in found]
        taken = set(given)
        for _ in range(self._wanted):
            chosen = self._hosts.best(taken)
            if chosen is None:
                break
            found.append(chosen)
            taken.add(chosen.host)
        found.sort(key=self._key)
        return found[: self._wanted] if len(found) >= self._wanted else None

    def _show(self, spared: frozenset[int]) -> None:
        """Show the hosts as a node has them, but for those that are planned on by themselves.

        Shown anew are only those that were shown differently before: a fleet has hundreds of them.
        """
        names = set(self._true)
        if self._spared is not None:
            names = {name for ident in spared ^ self._spared for name in self._gangs[ident].held}
        for name in names:
            self._hosts.show(self._shown(name, frozenset(), spared))
        self._spared = spared

    def _key(self, chosen: Chosen) -> FleetKey:
        return fleet_key(chosen, self._request)

    def _shown(self, name: str, paid: frozenset[int], spared: frozenset[int]) -> HostSnapshot:
        true, holders, spoils, spent = self._true[name], [], 0, Counter[str]()
        for held in true.holders:
            if held.gang in paid:
                spoils |= held.gpus
                spent.update(held.budgets)
            elif held.gang in spared:
                holders.append(replace(held, evictable_from=None, protection="spared"))
            elif held.gang in self._gangs:
                holders.append(self._gangs[held.gang].share(name, self._wanted))
            else:
                holders.append(held)
        budgets = tuple(replace(one, stops=max(0, one.stops - spent[one.name])) for one in true.budgets)
        return replace(true, holders=tuple(holders), budgets=budgets, spoils=spoils)

    def _named(self, found: Sequence[Chosen]) -> frozenset[int]:
        """Return which of the shared jobs the plans stop."""
        stopped = ((chosen.host, job) for chosen in found for job in chosen.plan.victims)
        by_name = {
            (host, held.job): gang.ident for gang in self._gangs.values() for host, held in gang.held.items()
        }
        return frozenset(by_name[one] for one in stopped if one in by_name)

    def _with_members(self, found: Sequence[Chosen], paid: frozenset[int]) -> list[Chosen]:
        """Return the choice with every member of the jobs paid for named as a victim where it runs."""
        return [self._with_these(chosen, paid) for chosen in found]

    def _with_these(self, chosen: Chosen, paid: frozenset[int]) -> Chosen:
        """Return one host of a choice; to people it tells what its plan would cost by itself."""
        true = self._true.get(chosen.host)
        if true is None:
            return chosen
        victims = tuple(h.job for h in true.holders if h.gang in paid or h.job in chosen.plan.victims)
        levels, gone, work = Counter[int](), 0, 0
        stranded = 0
        for holder in occupancy_at(true, self._now).holders:
            if holder.job in victims:
                levels[holder.priority] += holder.stops
                gone |= holder.gpus
                stranded += holder.gpus.bit_count() + holder.elsewhere
                work += holder.work
        stranded -= sum(1 for gpu in chosen.plan.gpus if gone >> gpu & 1)
        costs = tuple(sorted(levels.items(), reverse=True))
        cost = replace(chosen.plan.cost, victims=costs, stranded_gpus=stranded, work_lost=work)
        plan = replace(chosen.plan, victims=victims, cost=cost)
        return replace(chosen, plan=plan, cost=replace(chosen.cost, cost=cost))

    # --- what a choice costs ------------------------------------------------------------------------------

    def _total(self, found: Sequence[Chosen], paid: frozenset[int]) -> Total:
        """Return a node's bound: what its plans cost as they are, and who is paid for."""
        victims, steps, stranded, work = Counter[int](), 0, 0, 0
        for chosen in found:
            cost = chosen.cost.cost
            victims.update(dict(cost.victims))
            steps += cost.affinity_steps * STEP + cost.cpu_affinity_steps
            stranded += cost.stranded_gpus
            work += cost.work_lost
        return _sum(victims, steps, stranded, work, [self._gangs[ident] for ident in paid])

    def _price(self, found: Sequence[Chosen]) -> Total:
        """Return what a choice of hosts costs in truth: every job counts once, wherever it is named."""
        victims, steps, stranded, work = Counter[int](), 0, 0, 0
        stopped: set[int] = set()
        for chosen in found:
            cost, taken, gone = chosen.plan.cost, sum(1 << i for i in chosen.plan.gpus), 0
            steps += cost.affinity_steps * STEP + cost.cpu_affinity_steps
            true = self._true.get(chosen.host) or self._hosts.snapshot(chosen.host)
            for held, holder in zip(true.holders, occupancy_at(true, self._now).holders, strict=True):
                if held.job not in chosen.plan.victims:
                    continue
                gone |= held.gpus
                if held.gang in self._gangs:
                    stopped.add(held.gang)
                    continue
                victims[holder.priority] += holder.stops
                stranded += holder.gpus.bit_count() + holder.elsewhere
                work += holder.work
            stranded -= (taken & gone).bit_count()
        return _sum(victims, steps, stranded, work, [self._gangs[ident] for ident in stopped])


def _sum(victims: Counter[int], steps: int, stranded: int, work: int, gangs: Sequence[Gang]) -> Total:
    victims = victims.copy()
    for gang in gangs:
        victims[gang.priority] += gang.stops
        stranded += gang.gpus
        work += gang.work
    return tuple(sorted(victims.items(), reverse=True)), steps, stranded, work


def shared_gangs(
    candidates: Iterable[HostSnapshot], request: ResourceRequest, now: float
) -> tuple[Gang, ...]:
    """Return the jobs that run on several of these hosts and may be victims of a request."""
    found: dict[int, dict[str, HeldBy]] = {}
    for snapshot in candidates:
        for held in snapshot.holders:
            if held.gang:
                found.setdefault(held.gang, {})[snapshot.host] = held
    gangs = []
    for ident, members in found.items():
        seen = [holder_at(held, now) for held in members.values()]
        if len(seen) > 1 and all(one.evictable and one.priority < request.priority for one in seen):
            priority, work = max(one.priority for one in seen), max(one.work for one in seen)
            gangs.append(Gang(ident=ident, held=members, priority=priority, work=work))
    return tuple(gangs)


def _less_spoils(chosen: Chosen, spoils: int) -> Chosen:
    """Return a choice whose cost does not count what the jobs paid for have lost on its host already."""
    cost = chosen.cost.cost
    less = replace(cost, stranded_gpus=cost.stranded_gpus - spoils.bit_count())
    return replace(chosen, cost=replace(chosen.cost, cost=less))
