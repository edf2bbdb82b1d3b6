"""A priority changes in the middle of a preemption: nobody is stopped in vain, no job is lost, nothing loops."""

from collections.abc import Callable

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.machine import step_all
from topod.lifecycle.states import JobState, Stage
from topod.model.container import Signal
from topod.model.job import CheckpointHook, JobId, OnPreempt
from topod.model.rules import Rules

HOOK = CheckpointHook(command=("save",))


@pytest.fixture
def world() -> World:
    return World(load_library_host("hgx-h100").topology)


def victims(world: World, sizes: tuple[int, ...] = (4, 4), **changes: object) -> list[JobId]:
    jobs = [world.submit(spec("batch", gpus=size, priority=100, **changes)) for size in sizes]
    world.run()
    assert all(world.job(job).state is JobState.RUNNING for job in jobs)
    return jobs


def deafen(world: World) -> None:
    """Let every container that runs go on after SIGTERM."""
    for container in world.containers.values():
        container.ignores_term = True


def until(world: World, what: Callable[[], bool]) -> None:
    while not what():
        assert world.act(), "it never comes to that"


def serve(world: World, gpus: int = 8, priority: int = 500) -> JobId:
    return world.submit(spec("serve", gpus=gpus, priority=priority))


def raised(world: World, job: JobId, priority: int = 1000) -> None:
    world.apply(ev.PriorityChanged(job=job, priority=priority))


def settled(world: World) -> None:
    """Run, and let ten minutes pass: whatever loops would show in attempts and signals."""
    world.run()
    world.advance(600.0)


def told(world: World) -> list[Signal]:
    return [signal for container in world.containers.values() for signal in container.told]


def preemptions(world: World, jobs: list[JobId]) -> list[int]:
    return [world.job(job).preemptions for job in jobs]


# --- the container of the preemptor is being made ---------------------------------------------------------


@pytest.mark.parametrize("change", ["victim raised", "preemptor lowered"])
def test_nobody_is_stopped_when_the_order_changes_while_the_container_is_made(
    world: World, change: str
) -> None:
    jobs = victims(world)
    winner = serve(world)
    assert world.job(winner).stage is Stage.CREATING
    raised(world, *((jobs[0], 1000) if change == "victim raised" else (winner, 100)))
    settled(world)
    assert [world.job(job).starts for job in jobs] == [1, 1]
    assert preemptions(world, jobs) == [0, 0]
    assert told(world) == []
    assert world.job(winner).state is JobState.PENDING
    assert world.job(winner).attempt <= 2


@pytest.mark.parametrize("victim_is", ["raised", "preemptor cancelled"])
def test_nobody_is_stopped_when_the_container_is_ready_in_the_very_moment_of_the_change(
    world: World, victim_is: str
) -> None:
    jobs = victims(world)
    winner = serve(world)
    job = world.job(winner)
    made = ev.Created(job=winner, attempt=job.attempt, handle=f"topod-{winner}-{job.attempt}")
    raise_both = [ev.PriorityChanged(job=victim, priority=1000) for victim in jobs]
    meanwhile = raise_both if victim_is == "raised" else [ev.CancelRequested(job=winner, by="bob")]
    outcome, _ = step_all(world.tables, world.state, [made, *meanwhile], world.now)
    assert [outcome.state.jobs[victim].state for victim in jobs] == [JobState.RUNNING] * 2
    assert not [effect for effect in outcome.effects if isinstance(effect, fx.Deliver)]


def test_reports_of_one_attempt_keep_their_order(world: World) -> None:
    job = world.job(serve(world))
    made = ev.Created(job=job.id, attempt=job.attempt, handle="h")
    reports: list[ev.Event] = [made, ev.DevicesFree(job=job.id, attempt=job.attempt)]
    outcome, _ = step_all(world.tables, world.state, reports, world.now)
    assert outcome.state.jobs[job.id].stage is Stage.LAUNCHING


@pytest.mark.parametrize("late", ["raised", "submitted"])
def test_who_goes_before_a_preemptor_that_has_stopped_nobody_takes_its_place(world: World, late: str) -> None:
    jobs = victims(world, (1,) * 8)
    urgent = world.submit(spec("urgent", gpus=1, priority=100))
    winner = serve(world)
    assert world.job(winner).stage is Stage.CREATING
    if late == "raised":
        raised(world, urgent)
    else:
        urgent = world.submit(spec("urgent", gpus=1, priority=1000))
    settled(world)
    assert world.job(urgent).state is JobState.RUNNING
    assert world.job(urgent).preemptions == 0
    # The other needs all GPUs: it can have them no more, so only one had to go.
    assert sum(preemptions(world, jobs)) == 1
    assert world.job(winner).state is JobState.PENDING
    assert world.job(winner).starts == 0
    world.exit(urgent)
    settled(world)
    assert world.job(winner).state is JobState.RUNNING
    assert preemptions(world, jobs) == [1] * 8


def test_who_goes_before_two_preemptors_whose_containers_are_being_made_overtakes_both(world: World) -> None:
    jobs = victims(world)
    first, second = serve(world, gpus=4), serve(world, gpus=4)
    assert {world.job(job).stage for job in (first, second)} == {Stage.CREATING}
    urgent = world.submit(spec("urgent", gpus=8, priority=1000))
    assert {world.job(job).state for job in (first, second)} == {JobState.PENDING}
    settled(world)
    assert world.job(urgent).state is JobState.RUNNING
    assert preemptions(world, jobs) == [1, 1]
    assert [world.job(job).starts for job in (first, second)] == [0, 0]


def test_a_preemptor_beside_the_one_that_goes_first_is_left_alone(world: World) -> None:
    victims(world)
    first = serve(world, gpus=4)
    urgent = world.submit(spec("urgent", gpus=4, priority=1000))
    settled(world)
    assert {world.job(job).state for job in (first, urgent)} == {JobState.RUNNING}
    assert world.job(first).attempt == 1


# --- its victims are being stopped ------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["victim raised", "preemptor lowered"])
@pytest.mark.parametrize("on_preempt", list(OnPreempt))
def test_a_victim_whose_hook_still_runs_is_spared(world: World, change: str, on_preempt: OnPreempt) -> None:
    jobs = victims(world, checkpoint=HOOK, on_preempt=on_preempt)
    winner = serve(world)
    until(world, lambda: world.job(jobs[0]).state is JobState.STOPPING)
    if on_preempt is OnPreempt.CHECKPOINT:  # the engine says no at once: then the hook runs
        until(world, lambda: any(isinstance(lane[0], fx.RunHook) for lane in world.lanes.values() if lane))
    raised(world, *((jobs[0], 1000) if change == "victim raised" else (winner, 100)))
    settled(world)
    assert [world.job(job).state for job in jobs] == [JobState.RUNNING] * 2
    assert [world.job(job).starts for job in jobs] == [1, 1]
    assert told(world) == []
    assert world.job(jobs[0]).pinned is None
    assert (world.job(winner).state, world.job(winner).starts) == (JobState.PENDING, 0)


def test_a_raised_victim_that_was_told_to_stop_runs_again_where_it_was_before_its_equals(
    world: World,
) -> None:
    jobs = victims(world)
    deafen(world)
    places = [world.job(job).allocation for job in jobs]
    winner = serve(world, gpus=8)
    world.run()
    assert [world.job(job).state for job in jobs] == [JobState.STOPPING] * 2
    rival = serve(world, gpus=4)
    raised(world, jobs[0], 500)
    settled(world)
    assert world.job(jobs[0]).starts == 2
    assert world.job(jobs[0]).state is JobState.RUNNING
    assert world.job(jobs[0]).allocation == places[0]
    assert world.job(winner).starts == 0
    assert world.job(rival).starts == 0, "it waits behind the other"
    assert sum(preemptions(world, jobs)) == 2


def test_what_a_raised_victim_goes_back_to_is_kept_from_all_below_it(world: World) -> None:
    jobs = victims(world)
    deafen(world)
    winner = serve(world)
    world.run()
    raised(world, jobs[0])
    late = world.submit(spec("late", gpus=4, priority=900))
    settled(world)
    assert world.job(jobs[0]).state is JobState.RUNNING
    assert world.job(jobs[0]).preemptions == 1
    assert world.job(late).state is JobState.RUNNING
    assert (world.job(late).preemptions, world.job(late).attempt) == (0, 1)
    assert world.job(winner).starts == 0


def test_a_victim_that_does_not_come_back_is_no_reason_to_wait(world: World) -> None:
    jobs = victims(world, on_preempt=OnPreempt.CANCEL)
    deafen(world)
    winner = serve(world)
    world.run()
    raised(world, jobs[0])
    settled(world)
    assert [world.job(job).state for job in jobs] == [JobState.CANCELLED] * 2
    assert world.job(winner).state is JobState.RUNNING
    assert world.job(winner).attempt == 1


def test_a_victim_that_was_raised_and_then_cancelled_leaves_its_place(world: World) -> None:
    jobs = victims(world)
    deafen(world)
    winner = serve(world)
    world.run()
    raised(world, jobs[0])
    world.apply(ev.CancelRequested(job=jobs[0]))
    settled(world)
    assert world.job(jobs[0]).state is JobState.CANCELLED
    assert world.job(winner).state is JobState.RUNNING


# --- the victims are gone, or the preemptor runs ----------------------------------------------------------


def test_a_preemptor_whose_gpus_are_being_checked_does_not_start_to_be_stopped(world: World) -> None:
    jobs = victims(world)
    winner = serve(world)
    until(world, lambda: world.job(winner).stage is Stage.CHECKING)
    raised(world, jobs[1])
    settled(world)
    assert world.job(jobs[1]).state is JobState.RUNNING
    assert (world.job(winner).state, world.job(winner).starts) == (JobState.PENDING, 0)
    # Both were out already, and the one beside it fills what the preemptor cannot use.
    assert preemptions(world, jobs) == [1, 1]


def test_a_victim_raised_when_the_preemptor_runs_stops_it_once(world: World) -> None:
    jobs = victims(world)
    winner = serve(world)
    world.run()
    assert world.job(winner).state is JobState.RUNNING
    raised(world, jobs[0])
    settled(world)
    assert world.job(jobs[0]).state is JobState.RUNNING
    assert (world.job(winner).state, world.job(winner).preemptions) == (JobState.PENDING, 1)
    world.exit(jobs[0])
    settled(world)
    assert world.job(winner).state is JobState.RUNNING
    assert preemptions(world, jobs) == [1, 2], "the one beside it had run again meanwhile"


def test_a_preemptor_raised_further_changes_nothing(world: World) -> None:
    jobs = victims(world)
    deafen(world)
    winner = serve(world)
    world.run()
    raised(world, winner)
    settled(world)
    assert world.job(winner).state is JobState.RUNNING
    assert world.job(winner).attempt == 1
    assert preemptions(world, jobs) == [1, 1]


def test_priorities_that_go_up_and_down_all_the_time_lose_no_job(world: World) -> None:
    jobs = [*victims(world, checkpoint=HOOK), serve(world)]
    for step in range(60):
        raised(world, jobs[step % 3], (1000, 50, 700, 300, 500)[step % 5])
        world.act()
        if step % 20 == 19:
            world.crash()
    settled(world)
    assert JobState.RUNNING in {world.job(job).state for job in jobs}
    assert {world.job(job).state for job in jobs} <= {JobState.RUNNING, JobState.PENDING}


def test_what_others_were_promised_of_a_victims_place_they_keep(world: World) -> None:
    [job] = victims(world, (8,))
    deafen(world)
    winner = serve(world, gpus=4)
    until(world, lambda: bool(told(world)))
    beside = serve(world, gpus=2)
    place = world.job(beside).allocation
    assert place is not None
    raised(world, job, 500)
    settled(world)
    assert world.job(beside).state is JobState.RUNNING
    assert (world.job(beside).allocation, world.job(beside).attempt) == (place, 1)
    assert world.job(job).preemptions == 1
    assert world.job(winner).state is JobState.RUNNING


def test_who_started_from_a_hold_is_not_overtaken_by_those_who_were_kept_waiting_for_it() -> None:
    rules = Rules(hold_after_seconds=60.0, hold_step_seconds=0.0)
    world = World(load_library_host("hgx-h100").topology, rules=rules)
    [victim] = victims(world, (4,))
    blocker = world.submit(spec("blocker", gpus=4, preemptible=False))
    world.run()
    wanted = serve(world)
    world.advance(120.0)
    assert world.job(wanted).hold is not None
    world.exit(blocker)
    until(world, lambda: world.job(wanted).stage is Stage.CREATING)
    assert world.job(wanted).victims == (victim,)
    late = world.submit(spec("late", gpus=8, priority=900))
    world.run()
    assert world.job(wanted).state is JobState.RUNNING
    assert world.job(late).state is JobState.PENDING


@pytest.mark.parametrize(("priority", "winner_starts"), [(900, 1), (1000, 0)])
def test_who_started_from_a_hold_gives_way_only_to_a_victim_that_could_stop_it(
    priority: int, winner_starts: int
) -> None:
    rules = Rules(hold_after_seconds=60.0, hold_step_seconds=0.0)
    world = World(load_library_host("hgx-h100").topology, rules=rules)
    [victim] = victims(world, (4,))
    deafen(world)
    blocker = world.submit(spec("blocker", gpus=4, preemptible=False))
    world.run()
    wanted = serve(world)
    world.advance(120.0)
    world.exit(blocker)
    until(world, lambda: bool(told(world)))
    raised(world, victim, priority)
    world.run()
    world.advance(40.0)
    assert world.job(wanted).starts == winner_starts
    assert world.job(victim).starts == 2 - winner_starts
