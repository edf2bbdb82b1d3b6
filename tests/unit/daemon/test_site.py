"""A host that is not quite what it was when topod last started."""

from dataclasses import replace

import pytest

from topod.daemon.site import as_before
from topod.discovery.discover import Discovery
from topod.discovery.library import load_library_host
from topod.lifecycle.refit import refit
from topod.lifecycle.states import HostState, Job, JobState
from topod.model.job import Allocation, JobId, JobSpec
from topod.model.topology import Topology

KNOWN = load_library_host("rtx4090x8").topology


def without(topology: Topology, index: int) -> Topology:
    """Return the topology as it is found when one of its GPUs is not seen: the others move up."""
    left = [gpu for gpu in topology.gpus if gpu.index != index]
    rows = [[row[gpu.index] for gpu in left] for number, row in enumerate(topology.links) if number != index]
    return replace(
        topology,
        gpus=tuple(replace(gpu, index=number) for number, gpu in enumerate(left)),
        links=tuple(tuple(row) for row in rows),
        nics=(),
        nic_links=(),
    )


def test_a_host_that_misses_a_gpu_is_taken_as_it_was_and_says_so() -> None:
    topology, [note] = as_before(Discovery(topology=without(KNOWN, 2)), KNOWN)
    assert topology == KNOWN
    assert "missing, though it was there before: GPU2 (" in note
    assert "topod --rediscover" in note


def test_without_nvml_the_host_is_taken_as_it_was() -> None:
    nothing = Topology(name="x", gpus=(), links=())
    found = Discovery(topology=nothing, problems=("NVML did not answer within 15 s",))
    topology, [note] = as_before(found, KNOWN)
    assert topology == KNOWN
    assert "NVML cannot be asked" in note


@pytest.mark.parametrize("known", [None, Topology(name="x", gpus=(), links=()), without(KNOWN, 7)])
def test_a_host_that_is_new_or_has_grown_is_taken_as_it_is(known: Topology | None) -> None:
    assert as_before(Discovery(topology=KNOWN), known) == (KNOWN, ())


def test_a_card_that_was_exchanged_makes_a_new_host() -> None:
    swapped = replace(KNOWN, gpus=(*KNOWN.gpus[:-1], replace(KNOWN.gpus[-1], uuid="GPU-new")))
    topology, [note] = as_before(Discovery(topology=swapped), KNOWN)
    assert topology == swapped
    assert note.startswith("GPUs were exchanged: GPU7 (")


def test_jobs_keep_their_gpus_when_these_get_other_numbers() -> None:
    held = [KNOWN.gpus[index].uuid for index in (1, 2, 5)]
    job = Job(
        id=JobId(1),
        spec=JobSpec(name="t", command=("x",)),
        state=JobState.RUNNING,
        submitted_at=0.0,
        allocation=Allocation(gpus=tuple(held), gpu_indices=(1, 2, 5)),
    )
    state = HostState(jobs={job.id: job})
    assert refit(state, KNOWN) is state
    after = refit(state, without(KNOWN, 2)).jobs[job.id].allocation
    assert after is not None
    assert (after.gpus, after.gpu_indices) == (tuple(held), (1, 4))
