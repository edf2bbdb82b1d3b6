"""Quotas, disruption budgets, the cap on preemptions and the wait before anyone is stopped, by example."""

from dataclasses import replace

import pytest

from tests.fakes.world import World, spec
from topod.discovery.library import load_library_host
from topod.lifecycle import effects as fx
from topod.lifecycle import events as ev
from topod.lifecycle.admission import admit, dry_run
from topod.lifecycle.fairness import Usage, effective_priority
from topod.lifecycle.states import Job, JobState
from topod.model.job import Allocation, JobId, JobSpec
from topod.model.rules import NO_RULES, DisruptionBudget, Quota, Rules, Scope

CHAT = {"service": "chat"}


def world_with(**rules: object) -> World:
    return World(load_library_host("hgx-h100").topology, rules=Rules(**rules))  # type: ignore[arg-type] # a test builder


def running(world: World, *jobs: JobId) -> list[JobId]:
    return [job for job in jobs if world.job(job).state is JobState.RUNNING]


# --- quotas -----------------------------------------------------------------------------------------------


def alice(**changes: object) -> JobSpec:
    return spec("train", user="alice", **changes)


def test_a_user_at_her_quota_waits_though_gpus_are_free_and_is_told_why() -> None:
    world = world_with(quotas=(Quota(scope=Scope.USER, gpus=4),))
    first = world.submit(alice(gpus=3))
    second = world.submit(alice(gpus=2))
    bob = world.submit(spec("other", user="bob", gpus=4))
    world.run()
    assert running(world, first, second, bob) == [first, bob]
    assert world.job(second).reason == "the quota of user alice is 4 GPUs, 3 held: 1 is left, 2 asked"
    world.exit(first)
    world.run()
    assert running(world, second) == [second]


def test_who_is_over_a_quota_keeps_nobody_waiting_behind() -> None:
    world = world_with(quotas=(Quota(scope=Scope.USER, value="alice", gpus=4),))
    world.submit(alice(gpus=4))
    world.submit(alice(gpus=4, priority=900))
    bob = world.submit(spec("other", user="bob", gpus=4, priority=100, min_runtime_seconds=60.0))
    world.run()
    assert running(world, bob) == [bob]


def test_jobs_placed_in_one_pass_do_not_overshoot_a_quota() -> None:
    world = world_with(quotas=(Quota(scope=Scope.USER, gpus=4),))
    world.apply(ev.HostDrained(reason="test"))
    jobs = [world.submit(alice(gpus=1)) for _ in range(8)]
    world.apply(ev.HostResumed())
    placed = [job for job in jobs if world.job(job).state is JobState.STARTING]
    assert placed == jobs[:4]


def test_a_label_has_a_quota_of_its_own_and_a_named_value_wins_over_each() -> None:
    each = Quota(scope=Scope.LABEL, key="team", gpus=2)
    vision = Quota(scope=Scope.LABEL, key="team", value="vision", gpus=6)
    world = world_with(quotas=(each, vision))
    jobs = [world.submit(spec(gpus=1, labels={"team": team})) for team in ["audio"] * 3 + ["vision"] * 3]
    free = world.submit(spec(gpus=1))
    world.run()
    assert running(world, *jobs, free) == [*jobs[:2], *jobs[3:], free]
    assert (
        world.job(jobs[2]).reason == "the quota of label team=audio is 2 GPUs, 2 held: none is left, 1 asked"
    )


def test_a_job_that_is_being_stopped_still_counts_and_ones_own_jobs_are_not_stopped_for_the_quota() -> None:
    world = world_with(quotas=(Quota(scope=Scope.USER, gpus=4),))
    low = world.submit(alice(gpus=4, priority=100))
    world.run()
    high = world.submit(alice(gpus=4, priority=1000))
    world.run()
    assert running(world, low, high) == [low]
    assert "the quota of user alice is 4 GPUs, 4 held" in world.job(high).reason


def test_a_user_without_a_job_is_told_of_the_own_quota() -> None:
    rules = Rules(quotas=(Quota(scope=Scope.USER, gpus=4), Quota(scope=Scope.USER, value="bob", gpus=2)))
    usage = Usage({}, rules)
    assert [(use.value, use.limit) for use in usage.every([])] == [("bob", 2)]
    assert [(use.value, use.limit) for use in usage.every([], "alice")] == [("alice", 4), ("bob", 2)]
    assert [(use.value, use.limit) for use in usage.every([], "bob")] == [("bob", 2)]
    assert Usage({}, NO_RULES).every([], "alice") == ()


def test_more_than_the_quota_is_refused_at_once_and_a_preview_knows_the_quota() -> None:
    rules = Rules(quotas=(Quota(scope=Scope.USER, gpus=4),))
    world = World(load_library_host("hgx-h100").topology, rules=rules)
    assert admit(world.tables, alice(gpus=5), rules) == "the quota of user alice is 4 GPUs, 5 asked"
    assert admit(world.tables, alice(gpus=4), rules) is None
    world.submit(alice(gpus=3))
    world.run()
    told = dry_run(world.tables, world.state, alice(gpus=2), world.now, rules)
    assert (told.feasible, told.reason) == (
        False,
        "the quota of user alice is 4 GPUs, 3 held: 1 is left, 2 asked",
    )


# --- disruption budgets -----------------------------------------------------------------------------------


def replicas(world: World, count: int, gpus: int = 2) -> list[JobId]:
    jobs = [world.submit(spec("chat", gpus=gpus, priority=100, labels=CHAT)) for _ in range(count)]
    world.run()
    assert running(world, *jobs) == jobs
    return jobs


def test_preemption_leaves_a_service_what_it_must_keep() -> None:
    world = world_with(budgets=(DisruptionBudget(label="service", min_running=3),))
    chat = replicas(world, 4)
    one = world.submit(spec("urgent", gpus=2, priority=1000))
    world.run()
    assert running(world, one) == [one]
    assert len(running(world, *chat)) == 3
    two = world.submit(spec("urgent", gpus=2, priority=1000))
    world.run()
    assert world.job(two).state is JobState.PENDING
    assert "service=chat must keep 3 running" in world.job(two).reason
    assert len(running(world, *chat)) == 3


def test_a_replica_that_is_about_to_be_stopped_counts_as_stopped_already() -> None:
    world = world_with(budgets=(DisruptionBudget(label="service", value="chat", min_running=3),))
    chat = replicas(world, 4)
    one = world.submit(spec("urgent", gpus=2, priority=1000))
    two = world.submit(spec("urgent", gpus=2, priority=1000))
    assert world.job(one).victims, "named, and not yet stopped"
    assert len(running(world, *chat)) == 4
    assert world.job(two).state is JobState.PENDING
    world.run()
    assert len(running(world, *chat)) == 3


def test_replicas_that_wait_do_not_count_and_a_user_may_cancel_any() -> None:
    world = world_with(budgets=(DisruptionBudget(label="service", min_running=2),))
    chat = replicas(world, 4)
    waiting = world.submit(spec("chat", gpus=8, priority=100, labels=CHAT))
    world.run()
    for job in chat[:3]:
        world.apply(ev.CancelRequested(job=job))
    world.run()
    assert len(running(world, *chat)) == 1
    assert world.job(waiting).state is JobState.PENDING
    urgent = world.submit(spec("urgent", gpus=8, priority=1000))
    world.run()
    assert world.job(urgent).state is JobState.PENDING
    assert "service=chat must keep 2 running" in world.job(urgent).reason


def test_one_budget_for_each_value_of_a_label() -> None:
    world = world_with(budgets=(DisruptionBudget(label="service", min_running=1),))
    names = ("chat", "chat", "embed", "embed")
    jobs = [world.submit(spec(n, gpus=2, priority=100, labels={"service": n})) for n in names]
    world.run()
    urgent = world.submit(spec("urgent", gpus=4, priority=1000))
    world.run()
    assert running(world, urgent) == [urgent]
    left = {world.job(job).spec.name for job in running(world, *jobs)}
    assert left == {"chat", "embed"}


# --- the cap on preemptions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preemptions", "priority", "effective"),
    [(3, 100, 100), (4, 100, 200), (9, 100, 700), (50, 100, 999), (50, 1500, 1500)],
)
def test_the_effective_priority_rises_beyond_the_cap_up_to_the_ceiling(
    preemptions: int, priority: int, effective: int
) -> None:
    job = Job(id=JobId(1), spec=spec(priority=priority), submitted_at=0.0, preemptions=preemptions)
    assert effective_priority(job, NO_RULES) == effective


def test_a_stream_of_better_jobs_stops_one_job_only_so_often() -> None:
    world = world_with(preemption_cap=2, preemption_boost=200)
    batch = world.submit(spec("batch", gpus=8, priority=100))
    world.run()
    stops = []
    urgent = batch
    for _ in range(12):
        urgent = world.submit(spec("urgent", gpus=8, priority=500))
        world.run()
        stops.append(world.job(batch).preemptions)
        if world.job(urgent).state is JobState.RUNNING:
            world.exit(urgent)
        world.run()
    # 2 at the cap, then at 300, 500: it is as good as they are and no longer stopped.
    assert stops[-1] == 4
    assert world.job(batch).state is JobState.RUNNING
    assert "priority 500" in world.job(urgent).reason


def test_two_jobs_never_stop_each_other_in_turn() -> None:
    world = world_with(preemption_cap=0, preemption_boost=1000, preemption_ceiling=5000)
    low = world.submit(spec("low", gpus=8, priority=100))
    world.run()
    high = world.submit(spec("high", gpus=8, priority=500))
    world.advance(3600)
    # The low one counts for 1100 now, yet that stops nobody: it waits for its turn.
    assert running(world, low, high) == [high]
    assert world.job(low).preemptions == 1
    world.exit(high)
    world.run()
    assert running(world, low) == [low]


def test_who_was_stopped_often_goes_before_others_that_wait() -> None:
    world = world_with(preemption_cap=0, preemption_boost=450)
    batch = world.submit(spec("batch", gpus=8, priority=100))
    world.run()
    urgent = world.submit(spec("urgent", gpus=8, priority=1000))
    world.run()
    normal = world.submit(spec("normal", gpus=8, priority=500))
    world.run()
    world.exit(urgent)
    world.run()
    assert running(world, batch, normal) == [batch]


# --- the wait before anyone is stopped --------------------------------------------------------------------


def test_nobody_is_stopped_before_the_wait_is_over() -> None:
    world = world_with()
    batch = world.submit(spec("batch", gpus=8, priority=100))
    world.run()
    patient = world.submit(spec("patient", gpus=4, priority=1000, wait_before_preempt_seconds=30.0))
    world.run()
    assert world.job(patient).reason == "waits 30 s more for free GPUs before anyone is stopped"
    world.advance(29)
    assert running(world, batch) == [batch]
    world.advance(2)
    assert running(world, batch, patient) == [patient]


def test_gpus_that_come_free_in_time_spare_everyone() -> None:
    world = world_with()
    batch = [world.submit(spec("batch", gpus=4, priority=100)) for _ in range(2)]
    world.run()
    patient = world.submit(spec("patient", gpus=4, priority=1000, wait_before_preempt_seconds=30.0))
    filler = world.submit(spec("filler", gpus=1, priority=100))
    world.advance(10)
    world.exit(batch[0])
    world.run()
    assert running(world, *batch, patient) == [batch[1], patient]
    assert world.job(filler).state is JobState.PENDING
    world.advance(60)
    assert all(not container.told for container in world.containers.values())


def test_who_waits_for_free_gpus_keeps_no_one_else_from_stopping_others() -> None:
    world = world_with()
    batch = world.submit(spec("batch", gpus=8, priority=100))
    world.run()
    patient = world.submit(spec("patient", gpus=2, priority=1000, wait_before_preempt_seconds=3600.0))
    quick = world.submit(spec("quick", gpus=2, priority=1000))
    world.run()
    assert world.job(batch).preemptions == 1
    assert running(world, patient, quick) == [patient, quick], "it takes what the other one's victim left"


def test_the_wait_begins_when_the_image_is_there_and_outlives_a_restart_of_topod() -> None:
    world = world_with()
    batch = world.submit(spec("batch", gpus=8, priority=100))
    world.run()
    patient = world.submit(spec("p", gpus=4, priority=1000, wait_before_preempt_seconds=30.0, image="img"))
    world.now += 100
    world.run()
    assert world.job(patient).ready_at == world.now
    world.advance(20)
    world.crash()
    world.run()
    world.advance(9)
    assert running(world, batch) == [batch]
    world.advance(2)
    assert running(world, patient) == [patient]


def test_a_plan_that_fails_does_not_start_the_wait_anew() -> None:
    world = world_with()
    world.submit(spec("batch", gpus=8, priority=100))
    world.run()
    patient = world.submit(spec("p", gpus=4, priority=1000, wait_before_preempt_seconds=30.0))
    world.now += 30
    world.apply(ev.Tick())
    [create] = [e for e in world.lanes[patient] if isinstance(e, fx.Create)]
    world.lanes[patient].clear()
    world.apply(ev.CreateFailed(job=patient, attempt=create.attempt, error="engine is away", final=False))
    world.advance(10)
    assert running(world, patient) == [patient]


def test_a_preview_tells_of_the_wait() -> None:
    world = world_with()
    world.submit(spec("batch", gpus=8, priority=100))
    world.run()
    asked = spec(gpus=4, priority=1000, wait_before_preempt_seconds=30.0)
    told = dry_run(world.tables, world.state, asked, world.now)
    assert told.feasible
    assert told.details == ("first waits 30 s for free GPUs",)
    assert (
        dry_run(world.tables, world.state, replace(asked, wait_before_preempt_seconds=0.0), world.now).details
        == ()
    )


# --- moves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "moved"), [(1, 1), (2, 0)])
def test_moves_stop_no_more_of_a_service_at_a_time_than_it_can_spare(count: int, moved: int) -> None:
    world = world_with(budgets=(DisruptionBudget(label="service", min_running=2),))
    chat = replicas(world, 3, gpus=1)
    gpus = world.tables.topology.gpus
    places = [Allocation(gpus=(gpus[i].uuid,), gpu_indices=(i,)) for i in (7, 6)][:count]
    world.apply(ev.MovesRequested(moves=tuple(zip(chat, places, strict=False))))
    world.run()
    assert sum(world.job(job).moves for job in chat) == moved
    assert len(running(world, *chat)) == 3
    refused = [notice.text for notice in world.notices if notice.name == "host.not-rebalanced"]
    assert refused == ([] if moved else ["no job is moved: service=chat must keep 2 running"])


def test_a_replica_that_is_to_be_stopped_is_kept_when_another_went_meanwhile() -> None:
    world = world_with(budgets=(DisruptionBudget(label="service", min_running=1),))
    chat = {"labels": {"service": "chat"}, "priority": 100}
    kept, other = (world.submit(spec("chat", gpus=gpus, **chat)) for gpus in (2, 6))
    world.run()
    first = world.submit(spec("serve", gpus=1, priority=500))
    assert world.job(first).victims == (kept,)
    world.apply(ev.Exited(job=other, attempt=1, exit_code=0))
    # To stop it was within the budget when the first one was placed, and now it is not: for nobody.
    second = world.submit(spec("large", gpus=7, priority=500))
    world.run()
    world.advance(60.0)
    assert world.job(kept).state is JobState.RUNNING
    assert world.job(kept).preemptions == 0
    assert world.job(first).state is JobState.RUNNING
    assert "service=chat must keep 1 running" in world.job(second).reason
