"""GPUs that are unwell or used by somebody else: what the core makes of what was seen."""

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import events as ev
from topod.lifecycle.admission import dry_run
from topod.lifecycle.states import JobState, Mark, MarkKind


@pytest.fixture
def world() -> World:
    return World(load_library_host("hgx-h100").topology)


def mark(world: World, index: int, kind: MarkKind, *causes: str, requeue: bool = False) -> str:
    uuid = world.tables.topology.gpus[index].uuid
    seen = Mark(kind=kind, reason=f"because of {', '.join(causes)}", since=world.now, causes=causes)
    world.apply(ev.GpuMarked(uuid=uuid, mark=seen, requeue=requeue))
    return uuid


def resume(world: World, uuid: str) -> tuple[Mark, ...]:
    world.apply(ev.GpuResumed(uuid=uuid, by="root"))
    return world.state.marks.get(uuid, ())


def test_a_job_goes_on_when_its_gpu_falls_ill_and_the_next_one_avoids_it(world: World) -> None:
    job = world.submit(spec(gpus=8))
    world.run()
    mark(world, 3, MarkKind.UNHEALTHY, "xid-48")
    assert world.job(job).state is JobState.RUNNING
    world.exit(job)
    after = world.submit(spec(gpus=7))
    world.run()
    assert world.job(after).allocation.gpu_indices == (0, 1, 2, 4, 5, 6, 7)  # type: ignore[union-attr]


def test_where_the_site_wants_it_a_job_leaves_its_ill_gpu_and_runs_elsewhere(world: World) -> None:
    movable = world.submit(spec(gpus=1))
    fixed = world.submit(spec(gpus=1, preemptible=False))
    world.run()
    [ill, also_ill] = [world.job(job).allocation.gpu_indices[0] for job in (movable, fixed)]  # type: ignore[union-attr]
    mark(world, ill, MarkKind.UNHEALTHY, "xid-48", requeue=True)
    mark(world, also_ill, MarkKind.UNHEALTHY, "xid-48", requeue=True)
    world.run()
    assert world.job(movable).state is JobState.RUNNING
    assert world.job(movable).allocation.gpu_indices[0] not in (ill, also_ill)  # type: ignore[union-attr]
    assert (world.job(movable).attempt, world.job(movable).preemptions) == (2, 0)
    assert world.job(fixed).attempt == 1


def test_resume_forgets_what_was_seen_once(world: World) -> None:
    uuid = mark(world, 3, MarkKind.UNHEALTHY, "xid-48", "xid-95")
    assert resume(world, uuid) == ()


def test_resume_sets_aside_what_is_still_so_and_shows_it(world: World) -> None:
    uuid = mark(world, 3, MarkKind.UNHEALTHY, "row-remap-pending", "xid-63")
    [kept] = resume(world, uuid)
    assert kept.accepted
    job = world.submit(spec(gpus=8))
    world.run()
    assert world.job(job).state is JobState.RUNNING


@pytest.mark.parametrize(
    ("kind", "cause"),
    [(MarkKind.UNHEALTHY, "lost"), (MarkKind.UNHEALTHY, "mig"), (MarkKind.FOREIGN, "pid-1")],
)
def test_resume_cannot_wish_away_what_makes_a_gpu_unusable(world: World, kind: MarkKind, cause: str) -> None:
    uuid = mark(world, 3, kind, cause)
    mark(world, 3, MarkKind.DRAINED)
    [kept] = resume(world, uuid)
    assert (kept.kind, kept.blocks) == (kind, True)
    job = world.submit(spec(gpus=8))
    world.run()
    assert f"{kind.value}: because of {cause}" in world.job(job).reason


def test_while_nobody_can_look_at_the_gpus_jobs_run_on_and_none_with_gpus_starts(world: World) -> None:
    running = world.submit(spec(gpus=4))
    world.run()
    world.apply(ev.GpusSeen(problem="NVML did not answer within 10 s"))
    waiting = world.submit(spec(gpus=1))
    without = world.submit(spec(gpus=0))
    world.run()
    assert world.job(running).state is JobState.RUNNING
    assert world.job(without).state is JobState.RUNNING
    reason = "no GPU is handed out while their health is unknown: NVML did not answer within 10 s"
    assert world.job(waiting).reason == reason
    told = dry_run(world.tables, world.state, spec(gpus=1), world.now)
    assert (told.feasible, told.reason) == (False, reason)
    world.apply(ev.GpusSeen())
    world.run()
    assert world.job(waiting).state is JobState.RUNNING


def test_nobody_is_stopped_for_a_job_that_could_not_start_on_unknown_gpus(world: World) -> None:
    victim = world.submit(spec(gpus=8))
    world.run()
    high = world.submit(spec(gpus=8, priority=1000))
    world.apply(ev.GpusSeen(problem="NVML did not answer within 10 s"))  # while its container is made
    world.run()
    assert world.job(victim).state is JobState.RUNNING
    assert world.job(high).state is JobState.PENDING
    world.advance(1)
    assert "health is unknown" in world.job(high).reason
