"""Jobs of a fleet that wait for others, and arrays: over all hosts, and over the death of a coordinator."""

import pytest

from tests.fakes.fleet_world import FleetWorld, job_spec
from topod.fleet import events as ev
from topod.fleet.states import FleetJobId, FleetJobState, FleetRequest
from topod.model.arrays import ArrayPlan
from topod.model.job import AfterCondition, Dependency, JobId

OK, ANY, FAILED = AfterCondition.OK, AfterCondition.ANY, AfterCondition.FAILED
S = FleetJobState


@pytest.fixture
def world() -> FleetWorld:
    world = FleetWorld(["a100-pcie-x4", "a100-pcie-x4"])
    world.advance(5)
    return world


def after(job: int, condition: AfterCondition = OK, index: int | None = None) -> tuple[Dependency, ...]:
    return (Dependency(job=JobId(job), condition=condition, index=index),)


def submit_array(world: FleetWorld, count: int, limit: int | None = None, **more: object) -> list[FleetJobId]:
    first = world.leader.state.next_job
    array = ArrayPlan(indices=tuple(range(count)), limit=limit)
    world.apply(ev.Submitted(request=FleetRequest(spec=job_spec(**more)), array=array))  # type: ignore[arg-type]  # fields by name
    return [FleetJobId(first + place) for place in range(count)]


@pytest.mark.parametrize(
    ("condition", "code", "state"),
    [
        (OK, 0, S.SUCCEEDED),
        (OK, 3, S.CANCELLED),
        (ANY, 3, S.SUCCEEDED),
        (FAILED, 0, S.CANCELLED),
        (FAILED, 3, S.SUCCEEDED),
    ],
)
def test_a_job_waits_for_the_end_that_it_names(
    world: FleetWorld, condition: AfterCondition, code: int, state: FleetJobState
) -> None:
    first = world.submit(job_spec(seconds=10, code=code))
    second = world.submit(job_spec(seconds=5, after=after(first, condition)))
    third = world.submit(job_spec(seconds=5, after=after(second)))
    words = {OK: "to succeed", ANY: "to end", FAILED: "to fail"}
    assert world.job(second).reason == f"waits for job {first} (job) {words[condition]}"
    world.advance(5)
    world.lead()  # what one waits for outlives the coordinator
    assert world.job(second).reason == f"waits for job {first} (job) {words[condition]}"
    world.advance(60)
    # The end of a chain follows.
    assert [world.job(job).state for job in (second, third)] == [state, state]


def test_an_array_keeps_its_limit_over_all_hosts_and_others_wait_for_all_of_it(world: FleetWorld) -> None:
    ids = submit_array(world, 5, limit=3, gpus=2, seconds=15)
    last = world.submit(job_spec(seconds=5, after=after(ids[0])))
    one = world.submit(job_spec(seconds=5, after=after(ids[0], index=0)))
    assert [world.job(job).state for job in ids] == [S.ASSIGNED] * 3 + [S.PENDING] * 2
    assert {world.where(job)[0] for job in ids[:3]} == {"h0", "h1"}
    assert world.job(ids[3]).reason == f"3 of array {ids[0]} run, which is its limit"
    assert world.job(ids[4]).spec.env["TOPOD_ARRAY_INDEX"] == "4"
    assert world.job(ids[1]).label == f"job {ids[0]}[1] (job)"
    assert world.job(last).reason == f"waits for array {ids[0]} (job) to succeed"
    for _ in range(60):
        world.advance(1)
        alive = [job for job in ids if world.job(job).state not in (S.PENDING, S.SUCCEEDED)]
        assert len(alive) <= 3
        if world.job(one).state is not S.PENDING and world.job(ids[0]).state is not S.SUCCEEDED:
            pytest.fail("it did not wait for the one it named")
        if world.job(last).state is not S.PENDING:
            assert {world.job(job).state for job in ids} == {S.SUCCEEDED}
    assert world.job(last).state is S.SUCCEEDED


def test_an_array_at_its_limit_keeps_nothing_from_others(world: FleetWorld) -> None:
    ids = submit_array(world, 3, limit=1, gpus=4, seconds=30)
    behind = world.submit(job_spec(gpus=4, seconds=5))
    assert world.job(behind).state is S.ASSIGNED
    world.apply(ev.CancelRequested(job=ids[0]))
    world.advance(20)
    assert world.job(ids[1]).state is S.RUNNING


def test_what_can_never_be_met_is_cancelled_at_once(world: FleetWorld) -> None:
    first = world.submit(job_spec(seconds=2, code=1))
    world.advance(20)
    late = world.leader.state.next_job
    asked = FleetRequest(spec=job_spec(after=after(first)))
    world.apply(ev.Submitted(request=asked, settled=((int(first), "failed"),)))
    assert world.job(late).state is S.CANCELLED
    assert world.job(late).reason == (f"job {first} failed, and this job was to run only after its success")
