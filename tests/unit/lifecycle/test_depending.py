"""Jobs that wait for others, and arrays: who starts when, and who never does."""

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import events as ev
from topod.lifecycle.admission import dry_run
from topod.lifecycle.machine import step_all
from topod.lifecycle.states import JobState
from topod.model.arrays import ArrayPlan
from topod.model.job import AfterCondition, Dependency, JobId, RestartPolicy

OK, ANY, FAILED = AfterCondition.OK, AfterCondition.ANY, AfterCondition.FAILED


@pytest.fixture
def world() -> World:
    return World(load_library_host("hgx-h100").topology)


def after(job: int, condition: AfterCondition = OK, index: int | None = None) -> tuple[Dependency, ...]:
    return (Dependency(job=JobId(job), condition=condition, index=index),)


def submit_array(world: World, *indices: int, limit: int | None = None, **changes: object) -> list[JobId]:
    first = world.state.next_job
    world.apply(ev.Submitted(spec=spec(**changes), array=ArrayPlan(indices=indices, limit=limit)))  # type: ignore[arg-type]  # fields by name
    ids = [JobId(first + place) for place in range(len(indices))]
    world.submitted.extend(ids)
    return ids


def running(world: World, ids: list[JobId]) -> list[JobId]:
    return [ident for ident in ids if world.job(ident).state is JobState.RUNNING]


def test_a_job_waits_for_the_success_of_another_and_says_so(world: World) -> None:
    first = world.submit(spec("train"))
    second = world.submit(spec("eval", after=after(first)))
    world.run()
    assert world.job(second).state is JobState.PENDING
    assert world.job(second).reason == f"waits for job {first} (train) to succeed"
    world.exit(first)
    world.run()
    assert world.job(second).state is JobState.RUNNING


def test_many_are_cancelled_at_once_those_that_wait_for_each_other_too(world: World) -> None:
    world.apply(ev.HostDrained(reason="quiet"))
    ids = submit_array(world, *range(5))
    first = world.submit(spec("prepare"))
    last = world.submit(spec("eval", after=after(first)))
    # Who waits is named first, and ends first: the end of what it waited for says nothing to it any more.
    world.apply(ev.CancelRequested(job=last, also=(*ids[:4], first), by="alice"))
    world.apply(ev.HostResumed())
    world.run()
    assert {world.job(ident).state for ident in (*ids[:4], first, last)} == {JobState.CANCELLED}
    assert world.job(last).reason == "cancelled by alice"
    assert world.job(ids[4]).state is JobState.RUNNING


@pytest.mark.parametrize(
    ("condition", "code", "state"),
    [
        (OK, 0, JobState.RUNNING),
        (OK, 3, JobState.CANCELLED),
        (ANY, 0, JobState.RUNNING),
        (ANY, 3, JobState.RUNNING),
        (FAILED, 0, JobState.CANCELLED),
        (FAILED, 3, JobState.RUNNING),
    ],
)
def test_each_condition_is_met_by_its_endings_only(
    world: World, condition: AfterCondition, code: int, state: JobState
) -> None:
    first = world.submit(spec())
    second = world.submit(spec(after=after(first, condition)))
    world.run()
    world.exit(first, code)
    world.run()
    assert world.job(second).state is state


def test_what_can_never_be_met_ends_the_whole_chain_with_the_reason(world: World) -> None:
    first = world.submit(spec("train"))
    second = world.submit(spec("eval", after=after(first)))
    third = world.submit(spec("report", after=after(second)))
    world.run()
    world.apply(ev.CancelRequested(job=first, by="alice"))
    world.run()
    assert world.job(second).reason == (
        f"job {first} (train) cancelled, and this job was to run only after its success"
    )
    assert world.job(third).state is JobState.CANCELLED


def test_a_parent_that_is_preempted_or_restarted_has_not_ended(world: World) -> None:
    first = world.submit(spec(gpus=8, priority=100, restart=RestartPolicy.ON_FAILURE))
    world.run()
    second = world.submit(spec(after=after(first)))
    winner = world.submit(spec(gpus=8, priority=1000))
    world.run()
    assert world.job(first).preemptions == 1
    world.exit(winner)
    world.run()
    world.exit(first, 1)
    world.run()
    assert world.job(first).failures == 1
    assert world.job(second).state is JobState.PENDING
    world.advance(10)
    world.exit(first)
    world.run()
    assert world.job(second).state is JobState.RUNNING


def test_all_of_several_are_waited_for(world: World) -> None:
    parents = [world.submit(spec()), world.submit(spec())]
    both = (*after(parents[0]), *after(parents[1], ANY))
    child = world.submit(spec(after=both))
    world.run()
    world.exit(parents[0])
    world.run()
    assert world.job(child).after == after(parents[1], ANY)
    world.exit(parents[1], 1)
    world.run()
    assert world.job(child).state is JobState.RUNNING


@pytest.mark.parametrize(("ended", "state"), [(JobState.SUCCEEDED, "running"), (JobState.LOST, "cancelled")])
def test_a_parent_that_ended_long_ago_is_settled_at_the_submit(
    world: World, ended: JobState, state: str
) -> None:
    first = world.submit(spec())
    world.run()
    world.exit(first)
    world.run()
    world.apply(ev.Submitted(spec=spec(after=after(first)), settled=((first, ended),)))
    world.submitted.append(JobId(first + 1))
    world.run()
    assert world.job(first + 1).state.value == state


def test_a_parent_that_nobody_knows_ends_the_job(world: World) -> None:
    child = world.submit(spec(after=after(99)))
    world.run()
    assert world.job(child).state is JobState.CANCELLED
    assert "job 99 is not known any more" in world.job(child).reason


def test_a_parent_that_ends_in_the_same_step_as_the_submit_counts(world: World) -> None:
    first = world.submit(spec())
    world.run()
    together: list[ev.Event] = [
        ev.Exited(job=first, attempt=1, exit_code=0),
        ev.Submitted(spec=spec(after=after(first))),
    ]
    outcome, made = step_all(world.tables, world.state, together, world.now)
    ((), (child,)) = made
    assert outcome.state.jobs[child].after == ()
    assert outcome.state.jobs[child].state is JobState.STARTING


def test_the_members_of_an_array_know_their_places(world: World) -> None:
    ids = submit_array(world, 1, 3, 7)
    world.run()
    assert ids == [1, 2, 3]
    assert [world.job(ident).label for ident in ids] == ["job 1[1] (job)", "job 1[3] (job)", "job 1[7] (job)"]
    variables = [dict(world.job(ident).spec.env) for ident in ids]
    assert variables[1] == {"TOPOD_ARRAY_ID": "1", "TOPOD_ARRAY_INDEX": "3", "TOPOD_ARRAY_COUNT": "3"}
    assert len(running(world, ids)) == 3


def test_a_plan_names_the_jobs_of_an_array_as_everything_else_does(world: World) -> None:
    ids = submit_array(world, 0, 3, gpus=4, priority=100)
    world.run()
    told = dry_run(world.tables, world.state, spec(gpus=8, priority=1000), world.now)
    assert (told.plan["victims"], told.plan["idents"]) == (ids, {"1": "1[0]", "2": "1[3]"})
    other = dry_run(world.tables, world.state, spec(gpus=8, priority=100), world.now)
    assert other.reason.endswith("job 1[0] (priority 100) holds 4, job 1[3] (priority 100) holds 4")
    array = submit_array(world, 7, gpus=8, priority=1000)
    world.run()
    [placed] = [
        notice.text for notice in world.notices if notice.job == array[0] and "stopping" in notice.text
    ]
    assert placed.endswith(", stopping job 1[0], job 1[3]")
    plain = world.submit(spec(gpus=8, priority=2000))
    world.run()
    assert "idents" in (world.job(plain).plan or {})


def test_no_more_of_an_array_run_than_its_limit(world: World) -> None:
    ids = submit_array(world, *range(5), limit=2)
    other = world.submit(spec())
    world.run()
    assert running(world, [*ids, other]) == [ids[0], ids[1], other]
    assert world.job(ids[4]).reason == "2 of array 1 run, which is its limit"
    while waiting := [ident for ident in ids if world.job(ident).state is JobState.RUNNING]:
        world.exit(waiting[0])
        world.run()
        assert len(running(world, ids)) <= 2
    assert {world.job(ident).state for ident in ids} == {JobState.SUCCEEDED}


def test_a_victim_of_an_array_leaves_its_turn_and_the_limit_holds(world: World) -> None:
    ids = submit_array(world, 0, 1, 2, limit=1, gpus=8, priority=100)
    world.run()
    winner = world.submit(spec(gpus=8, priority=1000))
    world.run()
    assert running(world, ids) == []
    world.exit(winner)
    world.run()
    assert running(world, ids) == [ids[0]]


def test_after_an_array_means_after_all_its_members(world: World) -> None:
    ids = submit_array(world, 0, 1, 2)
    child = world.submit(spec(after=after(ids[0])))
    one = world.submit(spec(after=after(ids[0], index=0)))
    world.run()
    assert world.job(child).reason == "waits for array 1 (job) to succeed"
    world.exit(ids[0])
    world.run()
    assert world.job(one).state is JobState.RUNNING
    assert world.job(child).reason == "waits for array 1 to succeed"
    world.exit(ids[2])
    world.run()
    assert world.job(child).state is JobState.PENDING
    world.exit(ids[1])
    world.run()
    assert world.job(child).state is JobState.RUNNING


def test_one_member_that_fails_ends_what_waits_for_the_success_of_the_array(world: World) -> None:
    ids = submit_array(world, 0, 1)
    child = world.submit(spec(after=after(ids[0])))
    world.run()
    world.exit(ids[1], 2)
    world.run()
    assert world.job(child).state is JobState.CANCELLED
    assert "job 1[1] (job) failed" in world.job(child).reason


def test_dependencies_and_limits_hold_over_a_crash(world: World) -> None:
    ids = submit_array(world, *range(4), limit=1)
    child = world.submit(spec(after=after(ids[0], ANY)))
    for _ in range(40):
        world.run()
        alive = running(world, ids)
        assert len(alive) <= 1
        if not alive:
            break
        world.crash()
        world.exit(alive[0])
        world.crash()
    world.run()
    assert world.job(child).state is JobState.RUNNING
