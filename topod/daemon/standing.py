"""How a host stands, in one line for people. Pure."""

from collections import Counter

from topod.lifecycle.states import HOLDING, HostState, JobState
from topod.model.topology import Topology


def standing_line(topology: Topology, state: HostState, *, recovered: bool) -> str:
    """Return a line such as `6 of 8 GPUs held, 3 jobs running, 2 waiting`."""
    held = {
        uuid
        for job in state.jobs.values()
        if job.state in HOLDING and job.allocation is not None
        for uuid in job.allocation.gpus
    }
    jobs = Counter(job.state for job in state.jobs.values())
    running = jobs[JobState.RUNNING]
    parts = [
        f"{len(held)} of {len(topology.gpus)} GPUs held",
        f"{running} {'job' if running == 1 else 'jobs'} running",
        f"{jobs[JobState.PENDING] + jobs[JobState.PREEMPTED]} waiting",
    ]
    if state.drain is not None:
        parts.append("drained")
    if not recovered:
        parts.append("the engine was not looked at yet")
    return ", ".join(parts)
