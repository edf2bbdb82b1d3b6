"""What a coordinator counts, for who watches it: hosts, GPUs and jobs by state, placements, refusals."""

from collections import Counter
from collections.abc import Mapping

from topod.coordinator.views import standing
from topod.fleet.promised import free_of
from topod.fleet.states import FleetJobState, FleetState
from topod.fleet.view import FleetView
from topod.protocol.replies import Counts


def counts_of(state: FleetState, view: FleetView, now: float, port: Mapping[str, int], since: int) -> Counts:
    """Return the counts as of now; `since` is the first fence that this coordinator gave or would have."""
    hosts = Counter(standing(record, view.hosts.get(name), now)[0] for name, record in state.hosts.items())
    jobs = Counter(job.state.value for job in state.jobs.values())
    return Counts(
        host_states=dict(hosts), job_states=dict(jobs), placements=state.next_fence - since, port=dict(port)
    )


def gpus_of(view: FleetView) -> Counter[str]:
    """Return how many GPUs of the hosts that are heard are `free`, `used` or `kept_back`."""
    gpus: Counter[str] = Counter()
    for seen in view.hosts.values():
        if seen.snapshot is None or seen.silent:
            continue
        every = seen.tables.all_gpus
        held = 0
        for one in seen.snapshot.holders:
            held |= one.gpus
        free = free_of(seen.snapshot, every)
        gpus["free"] += free.bit_count()
        gpus["used"] += (held & every).bit_count()
        gpus["kept_back"] += (every & ~held & ~free).bit_count()
    return gpus


def standing_line(state: FleetState, view: FleetView) -> str:
    """Return a line such as `3 of 4 hosts heard, 18 of 24 GPUs held, 5 jobs running, 2 waiting`."""
    heard = sum(not seen.silent for name, seen in view.hosts.items() if name in state.hosts)
    gpus, jobs = gpus_of(view), Counter(job.state for job in state.jobs.values())
    running = jobs[FleetJobState.RUNNING]
    return (
        f"{heard} of {len(state.hosts)} hosts heard, {gpus['used']} of {gpus.total()} GPUs held,"
        f" {running} {'job' if running == 1 else 'jobs'} running, {jobs[FleetJobState.PENDING]} waiting"
    )
