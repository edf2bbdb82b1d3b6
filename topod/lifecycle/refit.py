"""Fits what is remembered of jobs to the host as it is now: GPUs may have other numbers than before."""

from collections.abc import Mapping
from dataclasses import replace

from topod.lifecycle.states import HostState, Job
from topod.model.job import Allocation
from topod.model.topology import Topology


def refit(state: HostState, topology: Topology) -> HostState:
    """Return the state with the GPU indices of allocations read anew from their UUIDs.

    A GPU that the host does not have any more loses its index and stays in the job's record.
    """
    index = {gpu.uuid: gpu.index for gpu in topology.gpus}
    jobs = {ident: _refitted(job, index) for ident, job in state.jobs.items()}
    return state if jobs == state.jobs else replace(state, jobs=jobs)


def _refitted(job: Job, index: Mapping[str, int]) -> Job:
    return replace(job, allocation=_placed(job.allocation, index), pinned=_placed(job.pinned, index))


def _placed(allocation: Allocation | None, index: Mapping[str, int]) -> Allocation | None:
    if allocation is None:
        return None
    return replace(allocation, gpu_indices=tuple(index[uuid] for uuid in allocation.gpus if uuid in index))
