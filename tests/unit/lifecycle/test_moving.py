"""Jobs that are restarted elsewhere on the host, so that free GPUs are together again."""

import random
from dataclasses import replace

import pytest

from tests.fakes.world import World, spec
from topoctl.render.moves import moves_text
from topoctl.render.style import Style
from topod.discovery.library import load_library_host
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.admission import dry_run
from topod.lifecycle.moves_text import rebalance_data
from topod.lifecycle.moving import find_moves, new_place
from topod.lifecycle.states import JobState, Mark, MarkKind, Stage
from topod.model.arrays import ArrayPlan
from topod.model.container import Signal
from topod.model.job import CheckpointHook, JobId, OnPreempt
from topod.model.moves import Goal, Rebalance
from topod.model.request import Affinity
from topod.model.rules import NO_RULES
from topod.protocol.replies import Moves

GOAL = Goal(affinity=Affinity.NVLINK_ALL)


@pytest.fixture
def world() -> World:
    """A DGX-1 (GPUs 0-3 and 4-7 all linked) with a job on GPU 0, 1, 4 and 5 each."""
    return scattered(World(load_library_host("dgx1").topology))


def scattered(world: World, **changes: object) -> World:
    jobs = [world.submit(spec("batch", **{"priority": 100, "gpus": 1, **changes})) for _ in range(8)]
    world.run()
    for ident in jobs:
        if gpus(world, ident)[0] in (2, 3, 6, 7):
            world.exit(ident)
    world.run()
    return world


def gpus(world: World, ident: int) -> tuple[int, ...]:
    allocation = world.job(ident).allocation
    return allocation.gpu_indices if allocation else ()


def planned(world: World, goal: Goal = GOAL) -> Rebalance:
    return find_moves(world.tables, world.state, goal, world.now, NO_RULES)[1]


def request(world: World, goal: Goal = GOAL) -> dict[JobId, tuple[int, ...]]:
    """Ask for the moves towards the goal; return where each job is to go."""
    moves = tuple(new_place(world.tables, world.state, move) for move in planned(world, goal).moves)
    world.apply(ev.MovesRequested(moves=moves, by="alice"))
    return {ident: place.gpu_indices for ident, place in moves}


def free(world: World) -> set[int]:
    held = {i for job in world.state.jobs.values() if job.allocation for i in job.allocation.gpu_indices}
    return set(range(8)) - held


def test_two_jobs_on_two_pairs_move_so_that_four_linked_gpus_are_free(world: World) -> None:
    found = planned(world)
    assert len(found.before.group) == 2
    assert len(found.after.group) == 4
    assert len(found.moves) == 2
    moving = request(world)
    assert {world.job(ident).state for ident in moving} == {JobState.STOPPING}
    world.run()
    assert {ident: gpus(world, ident) for ident in moving} == moving
    assert {world.job(ident).state for ident in moving} == {JobState.RUNNING}
    assert free(world) in ({0, 1, 2, 3}, {4, 5, 6, 7})
    for ident in moving:
        job = world.job(ident)
        assert (job.moves, job.preemptions, job.starts, job.attempt) == (1, 0, 2, 2)
        assert job.pinned is None
        assert not job.restart_first
    others = [job for job in world.state.jobs.values() if job.id not in moving]
    assert all(job.attempt == 1 for job in others)
    assert not planned(world).moves


def test_moves_name_the_jobs_of_an_array_as_everything_else_does() -> None:
    world = World(load_library_host("dgx1").topology)
    world.apply(
        ev.Submitted(spec=spec("fold", priority=100, gpus=1), array=ArrayPlan(indices=tuple(range(8))))
    )
    world.run()
    for index in (2, 3, 6, 7):
        world.exit(next(job.id for job in world.state.jobs.values() if gpus(world, job.id) == (index,)))
    world.run()
    idents = {str(job.id): job.ident for job in world.state.jobs.values()}
    found = planned(world)
    told = rebalance_data(found, found, {}, idents)
    for moves in (told["moves"], told["alternative"]["moves"]):
        assert [move["ident"] for move in moves] == [f"1[{move['job'] - 1}]" for move in moves]
        assert len(moves) == 2
    asked = spec(gpus=4, priority=100, affinity=Affinity.NVLINK_ALL)
    refused = dry_run(world.tables, world.state, asked, world.now)
    [advice] = [detail for detail in refused.details if "would make room" in detail]
    assert advice.startswith("moving jobs 1[")
    lines = moves_text(Moves(affinity="nvlink-all", plan=told, generation=1), Style(width=200)).splitlines()
    assert sum(f"job {move['ident']}, low: GPU" in line for line in lines for move in told["moves"]) == 2


def test_two_jobs_can_change_places(world: World) -> None:
    one, two = (job for job in world.state.jobs.values() if gpus(world, job.id) in ((0,), (4,)))
    assert one.allocation is not None
    assert two.allocation is not None
    world.apply(ev.MovesRequested(moves=((one.id, two.allocation), (two.id, one.allocation))))
    world.run()
    assert gpus(world, one.id) == two.allocation.gpu_indices
    assert gpus(world, two.id) == one.allocation.gpu_indices
    assert {world.job(one.id).state, world.job(two.id).state} == {JobState.RUNNING}


def test_the_hook_runs_before_a_job_moves() -> None:
    hook = CheckpointHook(command=("save",))
    world = scattered(World(load_library_host("dgx1").topology), checkpoint=hook)
    moving = request(world)
    hooks = [effect for lane in world.lanes.values() for effect in lane if isinstance(effect, fx.RunHook)]
    assert {effect.job for effect in hooks} == set(moving)
    world.run()
    assert {world.job(ident).state for ident in moving} == {JobState.RUNNING}
    told = [c.told for c in world.containers.values() if c.told]
    assert not told or set(map(tuple, told)) == {(Signal.TERM,)}


def test_nobody_of_its_priority_takes_the_place_of_a_job_that_moves(world: World) -> None:
    moving = request(world)
    late = [world.submit(spec("late", priority=100, gpus=2, affinity=Affinity.NVLINK)) for _ in range(2)]
    world.run()
    assert {ident: gpus(world, ident) for ident in moving} == moving
    taken = {i for ident in late for i in gpus(world, ident)}
    assert not taken & {i for place in moving.values() for i in place}


def test_a_job_of_high_priority_that_comes_meanwhile_takes_what_it_needs(world: World) -> None:
    moving = request(world)
    high = world.submit(spec("serve", priority=1000, gpus=8, affinity=Affinity.NVLINK))
    world.run()
    assert world.job(high).state is JobState.RUNNING
    assert {world.job(ident).state for ident in moving} == {JobState.PENDING}
    assert all(world.job(ident).pinned is None for ident in moving)
    world.exit(high)
    world.run()
    assert {world.job(ident).state for ident in moving} == {JobState.RUNNING}


def test_a_place_that_falls_ill_is_given_up_and_the_job_runs_elsewhere(world: World) -> None:
    moving = request(world)
    ident, place = next(iter(moving.items()))
    uuid = world.tables.topology.gpus[place[0]].uuid
    world.apply(ev.GpuMarked(uuid=uuid, mark=Mark(kind=MarkKind.UNHEALTHY, reason="Xid 79", since=world.now)))
    world.run()
    assert world.job(ident).state is JobState.RUNNING
    assert gpus(world, ident) != place
    assert any(notice.name == "job.unpinned" for notice in world.notices)


def test_a_cancelled_job_leaves_its_new_place_to_others(world: World) -> None:
    moving = request(world)
    ident, place = next(iter(moving.items()))
    world.apply(ev.CancelRequested(job=ident))
    world.run()
    assert world.job(ident).state is JobState.CANCELLED
    assert set(place) <= free(world)


def test_a_job_that_does_not_die_keeps_its_gpu_and_the_other_goes_on(world: World) -> None:
    one, two = (job for job in world.state.jobs.values() if gpus(world, job.id) in ((0,), (4,)))
    assert one.allocation is not None
    assert two.allocation is not None
    world.apply(ev.MovesRequested(moves=((one.id, two.allocation), (two.id, one.allocation))))
    for _ in range(40):
        lane = world.lanes.get(two.id)
        while lane:  # every signal arrives, and it does not die of any
            effect = lane.popleft()
            if isinstance(effect, fx.Deliver):
                told = ev.Delivered(job=two.id, attempt=effect.attempt, signal=effect.signal)
                world.apply(told)
        world.now += 10
        world.apply(ev.Tick())
        if not world.lanes.get(two.id):
            world.run()
    assert world.job(two.id).state is JobState.STOPPING
    assert world.job(one.id).state is JobState.RUNNING
    assert gpus(world, one.id) != two.allocation.gpu_indices


def test_what_has_changed_since_is_refused_and_nobody_is_stopped(world: World) -> None:
    moves = tuple(new_place(world.tables, world.state, move) for move in planned(world).moves)
    old = world.state.generation
    world.submit(spec("late", priority=100, gpus=4))
    world.run()
    for generation in (old, None):
        world.apply(ev.MovesRequested(moves=moves, generation=generation))
        assert world.notices[-1].name == "host.not-rebalanced"
        assert not any(job.state is JobState.STOPPING for job in world.state.jobs.values())


@pytest.mark.parametrize(
    "changes",
    [{"preemptible": False}, {"on_preempt": OnPreempt.CANCEL}, {"min_runtime_seconds": 60.0}],
    ids=str,
)
def test_jobs_that_may_not_be_restarted_do_not_move(changes: dict[str, object]) -> None:
    world = scattered(World(load_library_host("dgx1").topology), **changes)
    assert not planned(world).moves
    ident = next(iter(world.state.jobs))
    place = next(job.allocation for job in world.state.jobs.values() if job.allocation and job.id != ident)
    world.apply(ev.MovesRequested(moves=((ident, replace(place, gpu_indices=(2,))),)))
    assert world.notices[-1].name == "host.not-rebalanced"


def test_jobs_of_high_priority_move_only_when_that_is_asked_for() -> None:
    world = scattered(World(load_library_host("dgx1").topology), priority=1000)
    assert not planned(world).moves
    assert len(planned(world, replace(GOAL, below=1001)).moves) == 2


def test_nobody_is_moved_on_a_drained_host(world: World) -> None:
    moves = tuple(new_place(world.tables, world.state, move) for move in planned(world).moves)
    world.apply(ev.HostDrained(reason="fan"))
    world.apply(ev.MovesRequested(moves=moves))
    assert world.notices[-1].name == "host.not-rebalanced"
    assert "fan" in world.notices[-1].text


def test_the_place_is_kept_when_a_start_fails_once(world: World) -> None:
    moving = request(world)
    while not any(isinstance(lane[0], fx.Create) for lane in world.lanes.values() if lane):
        assert world.act()
    ident, lane = next(
        (i, lane) for i, lane in world.lanes.items() if lane and isinstance(lane[0], fx.Create)
    )
    create = lane.popleft()
    assert isinstance(create, fx.Create)
    world.apply(ev.CreateFailed(job=ident, attempt=create.attempt, error="engine is away", final=False))
    assert world.job(ident).state is JobState.PENDING
    world.advance(60)
    assert {ident: gpus(world, ident) for ident in moving} == moving


@pytest.mark.parametrize("seed", range(40))
def test_moves_survive_crashes_at_any_point(seed: int) -> None:
    chance = random.Random(seed)
    world = scattered(World(load_library_host("dgx1").topology, seed=seed))
    world.faults = chance.choice([0.0, 0.0, 0.1])
    before = set(world.state.jobs)
    moving = request(world)
    if chance.random() < 0.4:
        world.submit(spec("serve", priority=1000, gpus=chance.choice([2, 4, 8])))
    for _ in range(chance.randint(1, 8)):
        for _ in range(chance.randint(0, 12)):
            world.act()
        world.crash()
    world.faults = 0.0
    for _ in range(20):
        world.advance(60)
    for job in list(world.state.jobs.values()):
        if job.priority == 1000:
            world.exit(job.id)
    world.advance(600)
    assert {world.job(ident).state for ident in before} == {JobState.RUNNING}
    assert len({i for ident in before for i in gpus(world, ident)}) == len(before)
    assert all(job.pinned is None for job in world.state.jobs.values())
    assert all(world.job(ident).moves == 1 for ident in moving)
    assert all(job.stage is None for job in world.state.jobs.values()), Stage
