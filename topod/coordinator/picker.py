"""The decision over all hosts, as plainly as can be: each one is planned on, and the least cost wins."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from topod.fleet.hosts import HostSnapshot, occupancy_at
from topod.fleet.picking import Picker
from topod.fleet.promised import free_of
from topod.fleet.select import Selector
from topod.flextopo.tables import TopologyTables
from topod.model.plan import Plan, Refusal
from topod.model.request import ResourceRequest
from topod.preemption.costs import cost_key
from topod.preemption.search import plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A host and its own planner's plan there."""

    host: str
    plan: Plan


class EveryHost:
    """Exact, and as slow as there are hosts: a fraction of a millisecond each."""

    def __init__(self, *, spread: bool) -> None:
        self._spread = spread
        self._hosts: dict[str, tuple[HostSnapshot, TopologyTables]] = {}

    def put(self, snapshot: HostSnapshot, tables: TopologyTables) -> None:
        """Take in a host, or what it has become."""
        self._hosts[snapshot.host] = (snapshot, tables)

    def remove(self, host: str) -> None:
        """Forget a host; one that is not known is none."""
        self._hosts.pop(host, None)

    def decide(
        self,
        request: ResourceRequest,
        now: float,
        *,
        selector: Selector,
        may_evict: bool,
        exclude: Collection[str],
    ) -> Found | Refusal:
        """Return the best of all hosts but `exclude`, or why there is none."""
        found = []
        reasons = []
        for name, (snapshot, tables) in sorted(self._hosts.items()):
            if name in exclude or not selector.takes_host(name, snapshot.labels):
                continue
            if not selector.takes_kind(tables.topology):
                continue
            if snapshot.closed is not None:
                reasons.append(f"{name}: {snapshot.closed}")
                continue
            taken = replace(
                occupancy_at(snapshot, now), may_evict=may_evict, evict_reason="it waits for free GPUs"
            )
            answer = plan(tables, taken, request)
            if isinstance(answer, Plan):
                free = free_of(snapshot, tables.all_gpus).bit_count()
                fullness = -free if self._spread else free
                # Where the costs of two hosts differ by which GPUs they are only, the fuller one goes first.
                cost = cost_key(answer.cost, request)
                found.append(((cost[:-1], fullness, name), Found(host=name, plan=answer)))
            else:
                reasons.append(f"{name}: {answer.reason}")
        if found:
            return min(found, key=lambda entry: entry[0])[1]
        return Refusal(reason=reasons[0] if reasons else "no host is as asked", details=tuple(reasons))


def make_picker(*, spread: bool) -> Picker:
    """Return what decides; of hosts that cost the same the fullest come first, with `spread` the emptiest."""
    return EveryHost(spread=spread)
