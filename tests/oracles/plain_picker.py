"""The decision over a fleet as simply as can be: every host is planned on, and the least cost wins."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from tests.oracles import brute_fleet
from topod.fleet.hosts import HostSnapshot, occupancy_at
from topod.fleet.picking import Choice, Room
from topod.fleet.select import Selector
from topod.flextopo.tables import TopologyTables
from topod.model.plan import Plan, Refusal
from topod.model.request import ResourceRequest
from topod.preemption.costs import cost_key
from topod.preemption.search import plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainChoice:
    host: str
    plan: Plan


class PlainPicker:
    def __init__(self) -> None:
        self.hosts: dict[str, tuple[HostSnapshot, TopologyTables]] = {}

    def put(self, snapshot: HostSnapshot, tables: TopologyTables) -> None:
        self.hosts[snapshot.host] = (snapshot, tables)

    def remove(self, host: str) -> None:
        self.hosts.pop(host, None)

    def decide(
        self,
        request: ResourceRequest,
        now: float,
        *,
        selector: Selector,
        may_evict: bool,
        exclude: Collection[str],
    ) -> PlainChoice | Refusal:
        found = []
        reasons = []
        for name, (snapshot, tables) in sorted(self.hosts.items()):
            if name in exclude or not selector.takes_host(name, snapshot.labels):
                continue
            if not selector.takes_kind(tables.topology):
                continue
            if snapshot.closed is not None:
                reasons.append(f"{name}: {snapshot.closed}")
                continue
            occupancy = replace(
                occupancy_at(snapshot, now), may_evict=may_evict, evict_reason="waits for free GPUs"
            )
            answer = plan(tables, occupancy, request)
            if isinstance(answer, Plan):
                found.append((cost_key(answer.cost, request), name, PlainChoice(host=name, plan=answer)))
            else:
                reasons.append(f"{name}: {answer.reason}")
        if found:
            return min(found, key=lambda entry: entry[:2])[2]
        return Refusal(reason=reasons[0] if reasons else "no host is as asked", details=tuple(reasons))

    def room(self, request: ResourceRequest, *, selector: Selector) -> Room:
        hosts = [
            (snapshot, tables)
            for name, (snapshot, tables) in self.hosts.items()
            if snapshot.closed is None
            and selector.takes_host(name, snapshot.labels)
            and selector.takes_kind(tables.topology)
        ]
        return brute_fleet.room(hosts, request, now=0)

    def together(
        self,
        request: ResourceRequest,
        now: float,
        chosen: Sequence[Choice],
        *,
        selector: Selector,
        exclude: Collection[str],
    ) -> Sequence[Choice]:
        return chosen
