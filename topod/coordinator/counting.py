"""What a coordinator counts, for who watches it: hosts and jobs by state, placements, refusals."""

from collections import Counter
from collections.abc import Mapping

from topod.coordinator.views import standing
from topod.fleet.states import FleetState
from topod.fleet.view import FleetView
from topod.protocol.replies import Counts


def counts_of(state: FleetState, view: FleetView, now: float, port: Mapping[str, int], since: int) -> Counts:
    """Return the counts as of now; `since` is the first fence that this coordinator gave or would have."""
    hosts = Counter(standing(record, view.hosts.get(name), now)[0] for name, record in state.hosts.items())
    jobs = Counter(job.state.value for job in state.jobs.values())
    return Counts(
        host_states=dict(hosts), job_states=dict(jobs), placements=state.next_fence - since, port=dict(port)
    )
