"""A job that needs many GPUs is not kept waiting for ever by small ones: what is held for it grows."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import events as ev
from topod.lifecycle.deadlines import next_deadline
from topod.lifecycle.holds import current_hold
from topod.lifecycle.states import Job, JobState, Mark, MarkKind
from topod.model.arrays import ArrayPlan
from topod.model.cpuset import CpuSet
from topod.model.job import JobId, JobSpec
from topod.model.rules import DisruptionBudget, Quota, Rules, Scope

RULES = Rules(hold_after_seconds=600.0, hold_step_seconds=100.0)
LONGEST = 250.0


def small(**changes: object) -> JobSpec:
    """One GPU for a while; it is never stopped, so it must be outlasted."""
    return spec(
        "small",
        **{"gpus": 1, "priority": 500, "preemptible": False, "max_runtime_seconds": LONGEST, **changes},
    )


def big(gpus: int = 8, **changes: object) -> JobSpec:
    return spec("big", **{"gpus": gpus, "priority": 500, **changes})


def stream(
    world: World, wanted: JobId, seconds: float, make: Callable[[], JobSpec], every: float = 30.0
) -> float:
    """Submit small jobs without end, until `wanted` runs; return how long that took."""
    began = world.now
    while world.now - began < seconds:
        for _ in range(2):
            world.submit(make())
        world.advance(every)
        if world.job(wanted).state is JobState.RUNNING:
            return (world.job(wanted).started_at or 0.0) - began
    raise AssertionError(f"it does not start within {seconds} s: {world.job(wanted).reason}")


def busy(rules: Rules = RULES, host: str = "hgx-h100") -> World:
    """Return a host full of small jobs that end one after the other."""
    world = World(load_library_host(host).topology, rules=rules)
    for number in range(8):
        world.submit(small(max_runtime_seconds=LONGEST * (number + 1) / 8))
    world.run()
    return world


def held(world: World) -> tuple[int, ...]:
    """Return the GPUs that are held now, by a job's own word."""
    for job in world.state.jobs.values():
        if job.hold is not None:
            text = job.reason.partition("; kept for it: ")[2]
            return tuple(range(8)) if not text else job.hold.gpu_indices[: _count(text)]
    return ()


def _count(text: str) -> int:
    parts = text.removeprefix("GPUs ").removeprefix("GPU ").split(",")
    return sum(int(part.split("-")[-1]) - int(part.split("-")[0]) + 1 for part in parts)


@pytest.mark.parametrize("priority", [500, 900])
@pytest.mark.parametrize("cpus", [0, "auto"])
def test_the_wait_for_all_gpus_is_bounded_whatever_comes(priority: int, cpus: object) -> None:
    world = busy()
    wanted = world.submit(big(cpus=cpus))
    took = stream(world, wanted, 10_000.0, lambda: small(priority=priority, cpus=cpus))
    bound = RULES.hold_after_seconds + 7 * RULES.hold_step_seconds + LONGEST
    assert took <= bound
    if priority == 900:
        assert took > RULES.hold_after_seconds, "the stream did keep it waiting"


def test_without_a_hold_better_jobs_without_end_would_keep_it_waiting() -> None:
    world = busy(Rules(hold_after_seconds=0.0))
    wanted = world.submit(big())
    with pytest.raises(AssertionError, match="does not start"):
        stream(world, wanted, 4000.0, lambda: small(priority=900))


def test_what_is_held_grows_by_one_gpu_each_step_and_both_sides_say_so() -> None:
    world = busy()
    wanted = world.submit(big(4))
    late = [world.submit(small(priority=900, max_runtime_seconds=5000.0)) for _ in range(30)]
    world.advance(599)
    assert held(world) == ()
    for count in (1, 2, 3, 4):
        world.advance(2 if count == 1 else 100)
        assert len(held(world)) == count
    assert world.job(wanted).hold is not None
    world.advance(1000)
    assert "kept for it: GPUs" in world.job(wanted).reason
    waiting = next(job for job in late if world.job(job).state is JobState.PENDING)
    world.exit(next(j.id for j in world.state.jobs.values() if on(j, held(world)[0])))
    world.run()
    assert f"kept for job {wanted} (big), blocked for over 15 min" in world.job(waiting).reason
    assert [notice.name for notice in world.notices].count("job.held") == 1


def pending(world: World) -> list[Job]:
    return [job for job in world.state.jobs.values() if job.state is JobState.PENDING]


def on(job: Job, gpu: int) -> bool:
    return job.state is JobState.RUNNING and job.allocation is not None and gpu in job.allocation.gpu_indices


def test_urgent_jobs_may_use_what_is_held() -> None:
    world = busy()
    wanted = world.submit(big())
    for _ in range(16):
        world.submit(small(priority=900, max_runtime_seconds=5000.0))
    world.advance(1500)
    assert len(held(world)) == 8
    gpu = next(iter(held(world)))
    holder = next(job.id for job in world.state.jobs.values() if on(job, gpu))
    world.exit(holder)
    world.run()
    assert not any(on(job, gpu) for job in world.state.jobs.values())
    urgent = world.submit(spec("urgent", gpus=1, priority=1000))
    world.run()
    assert on(world.job(urgent), gpu)
    assert world.job(wanted).state is JobState.PENDING


def test_a_job_that_can_be_stopped_at_once_may_use_what_is_held_meanwhile() -> None:
    world = busy()
    wanted = world.submit(big())
    for _ in range(16):
        world.submit(small(priority=900, max_runtime_seconds=5000.0))
    world.advance(1500)
    world.exit(next(job.id for job in world.state.jobs.values() if on(job, 0)))
    filler = world.submit(spec("filler", gpus=1, priority=100))
    world.run()
    assert on(world.job(filler), 0)
    assert world.job(wanted).state is JobState.PENDING


def test_who_is_in_a_budget_could_not_be_stopped_at_once_and_uses_nothing_that_is_held() -> None:
    world = busy(replace(RULES, budgets=(DisruptionBudget(label="service", min_running=1),)))
    world.submit(big())
    for _ in range(16):
        world.submit(small(priority=900, max_runtime_seconds=5000.0))
    world.advance(1500)
    world.exit(next(job.id for job in world.state.jobs.values() if on(job, 0)))
    replica = world.submit(spec("chat", gpus=1, priority=100, labels={"service": "chat"}))
    world.run()
    assert world.job(replica).state is JobState.PENDING
    assert "kept for job" in world.job(replica).reason


def test_one_hold_at_a_time_for_who_waits_longest_and_then_the_next() -> None:
    world = busy()
    first = world.submit(big())
    world.advance(10)
    second = world.submit(big(priority=600))
    took = []
    for wanted in (first, second):
        took.append(stream(world, wanted, 10_000.0, lambda: small(priority=900)))
        assert sum(job.hold is not None for job in pending(world)) <= 1
        world.exit(wanted)
    # The second has waited long enough by then: all it waits for is held at once.
    assert took[1] <= LONGEST + 60


def test_a_hold_is_given_up_when_a_gpu_of_it_fails_and_found_anew() -> None:
    world = busy()
    wanted = world.submit(big(4))
    for _ in range(40):
        world.submit(small(priority=900, max_runtime_seconds=5000.0))
    world.advance(1000)
    hold = world.job(wanted).hold
    assert hold is not None
    mark = Mark(kind=MarkKind.UNHEALTHY, reason="Xid 79", since=world.now)
    world.apply(ev.GpuMarked(uuid=hold.gpus[0], mark=mark))
    again = world.job(wanted).hold
    assert again is not None
    assert hold.gpus[0] not in again.gpus


def test_who_was_kept_waiting_does_not_stop_it_the_moment_it_starts() -> None:
    world = busy()
    wanted = world.submit(big())
    for _ in range(64):
        world.submit(small(priority=900))
    world.advance(1600)
    assert world.job(wanted).state is JobState.RUNNING
    late = world.submit(small(priority=900))
    world.run()
    assert f"job {wanted} (priority 999) holds" in world.job(late).reason
    began = world.job(wanted).started_at or 0.0
    world.advance(began + RULES.hold_after_seconds - 1 - world.now)
    assert world.job(wanted).state is JobState.RUNNING
    world.advance(2)
    assert world.job(wanted).preemptions == 1


def test_an_urgent_job_stops_it_all_the_same() -> None:
    world = busy()
    wanted = world.submit(big())
    for _ in range(64):
        world.submit(small(priority=900))
    world.advance(1600)
    assert world.job(wanted).state is JobState.RUNNING
    urgent = world.submit(spec("urgent", gpus=1, priority=1000))
    world.run()
    assert world.job(urgent).state is JobState.RUNNING
    assert world.job(wanted).preemptions == 1


def test_nothing_is_held_for_what_cannot_be_or_is_over_its_quota() -> None:
    quota = Quota(scope=Scope.USER, value="greedy", gpus=1)
    world = busy(replace(RULES, quotas=(quota,)))
    world.submit(spec("one", user="greedy", gpus=1, priority=1000, preemptible=False))
    uuid = world.tables.topology.gpus[0].uuid
    world.apply(ev.GpuMarked(uuid=uuid, mark=Mark(kind=MarkKind.UNHEALTHY, reason="Xid 79", since=0.0)))
    world.submit(big(8))
    world.submit(big(1, user="greedy"))
    can = world.submit(big(2))
    for _ in range(40):
        world.submit(small(priority=900, max_runtime_seconds=5000.0))
    world.advance(900)
    assert [job.id for job in world.state.jobs.values() if job.hold is not None] == [can]


def test_time_alone_makes_a_hold_grow() -> None:
    world = busy()
    wanted = world.submit(big())
    ready = world.job(wanted).ready_at
    assert ready is not None
    quiet = Rules(hold_after_seconds=0.0)
    assert next_deadline(world.state, world.now, RULES) == min(
        ready + 600.0, next_deadline(world.state, world.now, quiet) or 0.0
    )


def test_a_hold_survives_a_restart_of_topod() -> None:
    world = busy()
    wanted = world.submit(big(4))
    for _ in range(40):
        world.submit(small(priority=900, max_runtime_seconds=5000.0))
    world.advance(800)
    hold = world.job(wanted).hold
    assert hold is not None
    world.crash()
    world.run()
    assert world.job(wanted).hold == hold


def test_who_stops_others_does_not_take_what_came_to_be_held_while_its_container_was_made() -> None:
    world = World(load_library_host("hgx-h100").topology, rules=replace(RULES, hold_step_seconds=0.0))
    victim = world.submit(spec("victim", gpus=1, priority=100))
    for _ in range(7):
        world.submit(small(max_runtime_seconds=5000.0))
    world.run()
    wanted = world.submit(big())
    world.advance(500)
    late = world.submit(spec("late", gpus=1, priority=900))
    assert world.job(late).victims == (victim,)
    world.now += 150.0
    world.apply(ev.Tick())
    assert world.job(wanted).hold is not None
    world.run()
    world.advance(10)
    assert world.job(late).state is JobState.PENDING
    assert f"kept for job {wanted}" in world.job(late).reason
    assert (world.job(victim).state, world.job(victim).preemptions) == (JobState.RUNNING, 0)


def test_the_cpus_that_are_held_grow_with_the_gpus_so_that_jobs_without_gpus_delay_nobody_for_ever() -> None:
    world = busy()
    cpus = len(CpuSet(world.tables.cpus))
    wanted = world.submit(big(cpus=cpus // 2))

    def many_cpus() -> JobSpec:
        return small(gpus=0, cpus=cpus // 8, priority=900)

    def cpus_held() -> int:
        hold = current_hold(world.state.jobs, world.now, RULES)
        return 0 if hold is None else len(hold.block.cpus)

    for _ in range(64):
        world.submit(many_cpus())
    world.advance(RULES.hold_after_seconds - 1)
    assert cpus_held() == 0
    for count in range(1, 8):
        world.advance(2 if count == 1 else RULES.hold_step_seconds)
        assert cpus_held() == cpus // 2 * count // 8
        world.submit(
            small(priority=900)
        )  # a GPU is taken as soon as it is free: it is the GPUs that hold it up
    stream(world, wanted, 2 * LONGEST + RULES.hold_step_seconds, many_cpus)


def test_nothing_is_held_for_who_waits_for_its_own_array() -> None:
    world = World(load_library_host("dgx1").topology, rules=RULES)
    plan = ArrayPlan(indices=(0, 1, 2, 3), limit=2)
    world.apply(ev.Submitted(spec=spec("arr", gpus=1, priority=100), array=plan))
    world.run()
    first = min(world.state.jobs)
    # Both that run are stopped for a while: all four wait for room, then two for the others again.
    urgent = world.submit(spec("urgent", gpus=8, priority=1000))
    world.run()
    assert world.job(urgent).state is JobState.RUNNING
    waiting = [world.state.jobs[JobId(first + index)] for index in range(4)]
    assert all(job.ready_at is not None for job in waiting)
    world.exit(urgent)
    world.run()
    world.advance(RULES.hold_after_seconds + 8 * RULES.hold_step_seconds)
    rest = [job for job in world.state.jobs.values() if job.state is JobState.PENDING]
    assert [job.reason for job in rest] == ["2 of array 1 run, which is its limit"] * 2
    assert [(job.ready_at, job.hold) for job in rest] == [(None, None)] * 2
    assert current_hold(world.state.jobs, world.now, RULES) is None
