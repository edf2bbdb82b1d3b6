"""The order of the queue, backfill, drain, restarts, limits: what a user of a queue expects."""

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import events as ev
from topod.lifecycle.admission import admit, dry_run
from topod.lifecycle.deadlines import next_deadline
from topod.lifecycle.draft import RETOLD_AT_ONCE
from topod.lifecycle.states import JobState, Mark, MarkKind
from topod.model.job import RestartPolicy
from topod.model.request import Affinity


@pytest.fixture
def world() -> World:
    return World(load_library_host("hgx-h100").topology)


def test_higher_priority_goes_first_then_the_earlier_submit(world: World) -> None:
    first = world.submit(spec(gpus=8, preemptible=False))
    world.run()
    waiting = [world.submit(spec(gpus=8, priority=priority)) for priority in (100, 500, 500, 1000)]
    order = []
    current = first
    for _ in range(4):
        world.exit(current)
        world.run()
        [current] = [job for job in waiting if world.job(job).state is JobState.RUNNING]
        order.append(current)
    assert order == [waiting[3], waiting[1], waiting[2], waiting[0]]


def test_a_small_job_does_not_delay_a_large_one_of_its_own_priority(world: World) -> None:
    running = world.submit(spec(gpus=4))
    world.run()
    large = world.submit(spec(gpus=8))
    small = world.submit(spec(gpus=2))
    world.run()
    assert world.job(large).state is JobState.PENDING
    assert world.job(small).state is JobState.PENDING
    assert f"kept for job {large}" in world.job(small).reason
    world.exit(running)
    world.run()
    assert world.job(large).state is JobState.RUNNING


def test_a_job_that_can_be_evicted_at_once_fills_the_hole_before_a_large_one(world: World) -> None:
    running = world.submit(spec(gpus=4))
    world.run()
    large = world.submit(spec(gpus=8))
    filler = world.submit(spec(gpus=2, priority=100))
    world.run()
    assert world.job(filler).state is JobState.RUNNING
    world.exit(running)
    world.run()
    assert world.job(large).state is JobState.RUNNING
    assert world.job(filler).preemptions == 1


def test_a_job_beside_the_target_of_the_large_one_starts(world: World) -> None:
    world.submit(spec(gpus=6))
    world.run()
    large = world.submit(spec(gpus=6))
    small = world.submit(spec(gpus=2))
    world.run()
    assert world.job(large).state is JobState.PENDING
    assert world.job(small).state is JobState.RUNNING


def test_a_drained_host_starts_nothing_and_says_why(world: World) -> None:
    world.apply(ev.HostDrained(reason="fan replacement"))
    job = world.submit(spec(gpus=1))
    world.run()
    assert world.job(job).reason == "the host is drained: fan replacement"
    world.apply(ev.HostResumed())
    world.run()
    assert world.job(job).state is JobState.RUNNING


def test_a_marked_gpu_is_avoided_and_named_when_it_is_missed(world: World) -> None:
    uuid = world.tables.topology.gpus[3].uuid
    world.apply(ev.GpuMarked(uuid=uuid, mark=Mark(kind=MarkKind.DRAINED, reason="fan", since=0.0)))
    job = world.submit(spec(gpus=7))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    assert uuid not in world.job(job).allocation.gpus  # type: ignore[union-attr]
    other = world.submit(spec(gpus=8, priority=1000))
    world.run()
    assert "drained: fan" in world.job(other).reason


def test_a_failing_job_is_restarted_as_often_as_it_asked_for(world: World) -> None:
    job = world.submit(spec(gpus=1, restart=RestartPolicy.ON_FAILURE, max_restarts=2))
    for _ in range(3):
        world.advance(200)
        assert world.job(job).state is JobState.RUNNING
        world.exit(job, 3)
        world.run()
    assert world.job(job).state is JobState.FAILED
    assert world.job(job).reason == "exit code 3"
    assert world.job(job).starts == 3


def test_a_job_over_its_time_limit_is_stopped_and_failed(world: World) -> None:
    job = world.submit(spec(gpus=1, max_runtime_seconds=60.0))
    world.advance(59)
    assert world.job(job).state is JobState.RUNNING
    world.advance(2)
    assert world.job(job).state is JobState.FAILED
    assert world.job(job).reason == "time limit of 60 s reached"


def test_a_job_that_never_fits_is_refused_before_it_is_queued(world: World) -> None:
    assert admit(world.tables, spec(gpus=8, affinity=Affinity.NVLINK)) is None
    reason = admit(world.tables, spec(gpus=9))
    assert reason is not None
    assert "8" in reason


def test_a_dry_run_changes_nothing_and_names_the_victims(world: World) -> None:
    low = world.submit(spec(gpus=8, priority=100))
    world.run()
    before = world.state
    preview = dry_run(world.tables, world.state, spec(gpus=4, priority=1000), world.now)
    assert preview.feasible
    assert preview.plan["victims"] == [low]
    assert world.state is before


def test_pinned_cpus_are_never_shared(world: World) -> None:
    jobs = [world.submit(spec(gpus=1, cpus="auto")) for _ in range(8)]
    world.run()
    seen: set[int] = set()
    for job in jobs:
        allocation = world.job(job).allocation
        assert allocation is not None
        assert allocation.cpus
        assert not seen & set(allocation.cpus)
        seen |= set(allocation.cpus)


def test_a_priority_raised_later_lets_a_waiting_job_preempt(world: World) -> None:
    running = world.submit(spec(gpus=8, priority=500))
    world.run()
    job = world.submit(spec(gpus=8, priority=100))
    world.run()
    assert world.job(job).state is JobState.PENDING
    world.apply(ev.PriorityChanged(job=job, priority=1000))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    assert world.job(running).preemptions == 1


def test_a_drain_does_not_hide_why_an_image_is_not_there() -> None:
    world = World(load_library_host("one-gpu").topology)
    job = world.submit(spec(image="img:1"))
    world.apply(ev.ImageFailed(job=job, error="connection reset", final=False))
    world.apply(ev.HostDrained(reason="maintenance"))
    assert "connection reset" in world.job(job).reason
    world.apply(ev.HostResumed())
    assert "connection reset" in world.job(job).reason


def test_thousands_of_reasons_are_told_over_several_steps_the_first_in_the_queue_first() -> None:
    world = World(load_library_host("dgx1").topology)
    world.apply(ev.HostDrained(reason="dust"))
    for _ in range(2 * RETOLD_AT_ONCE + 5):
        world.submit(spec(gpus=1))
    before = {job.reason for job in world.state.jobs.values()}
    world.apply(ev.HostDrained(reason="fan"))
    told = []
    for _ in range(4):
        jobs = sorted(world.state.jobs.values(), key=lambda job: job.id)
        told.append(sum("fan" in job.reason for job in jobs))
        assert all("fan" in job.reason for job in jobs[: told[-1]])
        assert {job.reason for job in jobs[told[-1] :]} <= before
        # As long as one of them says what is no longer true, the next step is due at once.
        assert (next_deadline(world.state, world.now) == world.now) == (told[-1] < len(jobs))
        world.apply(ev.Tick())
    assert told == [RETOLD_AT_ONCE, 2 * RETOLD_AT_ONCE, 2 * RETOLD_AT_ONCE + 5, 2 * RETOLD_AT_ONCE + 5]


def test_cpus_that_fall_into_foreign_use_while_the_container_is_made_are_not_handed_out(
    world: World,
) -> None:
    job = world.submit(spec(cpus=4))
    held = world.job(job).allocation
    assert held is not None
    world.apply(ev.ForeignCpusSeen(cpus=((str(held.cpus), "pid 4711 (python, mallory)"),)))
    world.run()
    world.advance(1)
    placed = world.job(job).allocation
    assert world.job(job).state is JobState.RUNNING
    assert placed is not None
    assert not placed.cpus & held.cpus
