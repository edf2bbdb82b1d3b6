"""Random days on one host: faults, crashes and impatient users never break the rules of `World`."""

import pytest

from tests.fakes.coordinator import Coordinator
from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import events as ev
from topod.lifecycle.admission import admit
from topod.lifecycle.moving import find_moves, new_place
from topod.lifecycle.states import ENDED, JobState
from topod.model.job import CheckpointHook, JobId, JobSpec, OnPreempt, RestartPolicy
from topod.model.moves import Goal
from topod.model.request import Affinity, Policy
from topod.model.rules import NO_RULES, DisruptionBudget, Quota, Rules, Scope

SEEDS = 150
FLEET_SEEDS = 40
FAIR = Rules(
    quotas=(Quota(scope=Scope.USER, value="alice", gpus=4), Quota(scope=Scope.LABEL, key="team", gpus=3)),
    budgets=(DisruptionBudget(label="service", min_running=1),),
    preemption_cap=1,
    hold_after_seconds=60.0,
    hold_step_seconds=20.0,
)


def random_spec(world: World) -> JobSpec:
    """Return a random job that this host can run when it is empty."""
    while True:
        job = any_spec(world)
        if admit(world.tables, job, world.rules) is None:
            return job


def any_spec(world: World) -> JobSpec:
    choose = world.random.choice
    return spec(
        gpus=choose([0, 1, 1, 2, 2, 4, 8]),
        cpus=choose([0, 0, "auto", 4, 10]),
        priority=choose([100, 100, 500, 1000]),
        affinity=choose(list(Affinity)),
        policy=choose(list(Policy)),
        preemptible=world.random.random() < 0.9,
        min_runtime_seconds=choose([0.0, 0.0, 50.0]),
        max_runtime_seconds=choose([None, None, 200.0]),
        on_preempt=choose([OnPreempt.REQUEUE, OnPreempt.REQUEUE, OnPreempt.CANCEL]),
        restart=choose(list(RestartPolicy)),
        checkpoint=choose([None, CheckpointHook(command=("save",), timeout_seconds=5.0)]),
        image=choose([None, "img:1"]),
        user=choose(["alice", "bob"]),
        labels=choose([{}, {}, {"service": "chat"}, {"service": "embed", "team": "a"}]),
        wait_before_preempt_seconds=choose([0.0, 0.0, 0.0, 30.0]),
    )


def fleet_day(seed: int) -> tuple[World, Coordinator]:
    """Return a day on which a coordinator, badly heard, has its part too."""
    world = new_world(seed)

    def tell(event: ev.FleetEvent) -> None:
        before = world.state.next_job
        world.apply(event)
        world.submitted.extend(JobId(ident) for ident in range(before, world.state.next_job))

    coordinator = Coordinator(world.random, world.tables, tell, lambda: random_spec(world))
    stale = world.state, world.now
    for _ in range(60):
        live(world, 2)
        coordinator.act(*stale)
        if world.random.random() < 0.7:
            stale = world.state, world.now
    return world, coordinator


def new_world(seed: int, kind: type[World] = World) -> World:
    host = load_library_host(["dgx1", "rtx4090x8", "a100-pcie-x4"][seed % 3])
    return kind(host.topology, seed, 0.05, FAIR if seed % 2 else NO_RULES)


def one_day(seed: int, kind: type[World] = World) -> World:
    world = new_world(seed, kind)
    live(world, 150)
    return world


def live(world: World, steps: int) -> None:  # noqa: C901, PLR0912 - one case for each thing that can happen
    rng = world.random
    for _ in range(steps):
        match rng.randrange(10):
            case 0 | 1:
                world.submit(random_spec(world))
            case 2:
                world.advance(rng.choice([1.0, 20.0, 70.0]))
            case 3:
                running = [job.id for job in world.state.jobs.values() if job.state is JobState.RUNNING]
                if running:
                    world.exit(rng.choice(running), rng.choice([0, 0, 1]))
            case 4:
                if world.state.jobs and rng.random() < 0.4:
                    world.apply(ev.CancelRequested(job=rng.choice(sorted(world.state.jobs))))
                elif world.state.jobs and rng.random() < 0.6:
                    world.apply(ev.RequeueRequested(job=rng.choice(sorted(world.state.jobs)), by="alice"))
            case 5:
                if world.state.jobs and rng.random() < 0.3:
                    job = rng.choice(sorted(world.state.jobs))
                    world.apply(ev.PriorityChanged(job=job, priority=rng.choice([50, 100, 1000, 2000])))
            case 6:
                world.crash() if rng.random() < 0.4 else world.sweep()
            case 7 if rng.random() < 0.3:
                goal = Goal(affinity=rng.choice(list(Affinity)), below=rng.choice([200, 1000, 5000]))
                _, found = find_moves(world.tables, world.state, goal, world.now, world.rules)
                moves = tuple(new_place(world.tables, world.state, move) for move in found.moves)
                world.apply(ev.MovesRequested(moves=moves))
            case _:
                world.act()


def bring_to_rest(world: World, coordinator: Coordinator | None = None) -> None:
    """Let everything end that can: no faults any more, and commands that return 0."""
    world.faults = 0.0
    for _ in range(600):
        world.advance(100.0)
        running = [job.id for job in world.state.jobs.values() if job.state is JobState.RUNNING]
        if coordinator is not None:
            coordinator.lossy = 0.0
            coordinator.let_go(world.state)
            coordinator.settle(world.state)
        if not world.state.jobs:
            break
        for job in running:
            if world.job(job).state is JobState.RUNNING:
                world.exit(job, 0)


@pytest.mark.parametrize("chunk", range(10))
def test_no_gpu_is_held_twice_and_every_job_ends(chunk: int) -> None:
    for seed in range(chunk * SEEDS // 10, (chunk + 1) * SEEDS // 10):
        world = one_day(seed)
        bring_to_rest(world)
        for ident in world.submitted:
            assert world.job(ident).state in ENDED, f"seed {seed}: job {ident} is {world.job(ident)}"
        world.sweep()
        world.run()
        assert not world.containers, f"seed {seed}: containers are left behind"


@pytest.mark.parametrize("chunk", range(4))
def test_a_coordinator_that_is_badly_heard_has_nothing_done_twice(chunk: int) -> None:
    for seed in range(chunk * FLEET_SEEDS // 4, (chunk + 1) * FLEET_SEEDS // 4):
        world, coordinator = fleet_day(seed)
        bring_to_rest(world, coordinator)
        for ident in world.submitted:
            assert world.job(ident).state in ENDED, f"seed {seed}: job {ident} is {world.job(ident)}"
        assert not world.state.jobs
        world.sweep()
        world.run()
        assert not world.containers, f"seed {seed}: containers are left behind"


def test_the_days_of_a_fleet_have_all_that_can_become_of_an_assignment() -> None:
    ends: set[tuple[JobState, bool]] = set()
    for seed in range(8):
        world, coordinator = fleet_day(seed)
        bring_to_rest(world, coordinator)
        fleet = [job for job in world.ended.values() if job.tag is not None]
        ends |= {(job.state, bool(job.starts)) for job in fleet}
    wanted = {(state, True) for state in (JobState.SUCCEEDED, JobState.RETURNED, JobState.CANCELLED)}
    assert wanted | {(JobState.RETURNED, False)} <= ends
