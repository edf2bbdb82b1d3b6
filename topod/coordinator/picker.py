"""The decision over all hosts that a coordinator uses: the exact one, with its site's way of placing."""

from collections.abc import Collection, Sequence

from topod.fleet.hosts import HostSnapshot
from topod.fleet.pick.cost import Chosen
from topod.fleet.pick.fleet import Fleet
from topod.fleet.picking import Choice, Picker, Room
from topod.fleet.select import Selector
from topod.flextopo.tables import TopologyTables
from topod.model.plan import Refusal
from topod.model.request import ResourceRequest


class _Placing:
    def __init__(self, *, spread: bool) -> None:
        self._fleet = Fleet()
        self._spread = spread

    def put(self, snapshot: HostSnapshot, tables: TopologyTables) -> None:
        """Take in a host, or what it has become."""
        self._fleet.put(snapshot, tables)

    def remove(self, host: str) -> None:
        """Forget a host; one that is not known is none."""
        self._fleet.remove(host)

    def decide(
        self,
        request: ResourceRequest,
        now: float,
        *,
        selector: Selector,
        may_evict: bool,
        exclude: Collection[str],
    ) -> Choice | Refusal:
        """Return the best of all hosts but `exclude`, or why there is none."""
        return self._fleet.decide(
            request, now, selector=selector, spread=self._spread, may_evict=may_evict, exclude=exclude
        )

    def room(self, request: ResourceRequest, *, selector: Selector) -> Room:
        """Return how many hosts are looked at, and how many of them need no victim."""
        return self._fleet.room(request, selector=selector)

    def together(
        self,
        request: ResourceRequest,
        now: float,
        chosen: Sequence[Choice],
        *,
        selector: Selector,
        exclude: Collection[str],
    ) -> Sequence[Choice]:
        """Return the hosts that are best together; `chosen` were found one by one."""
        found = [one for one in chosen if isinstance(one, Chosen)]
        return self._fleet.together(
            request, now, found, selector=selector, spread=self._spread, exclude=exclude
        )


def make_picker(*, spread: bool) -> Picker:
    """Return what decides; of hosts that cost the same the fullest come first, with `spread` the emptiest."""
    return _Placing(spread=spread)
