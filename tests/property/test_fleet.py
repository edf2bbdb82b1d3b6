"""Random days of a fleet: bad networks, dead hosts, dead coordinators never break the rules of `FleetWorld`."""

from dataclasses import replace

import pytest

from tests.fakes.fleet_host import PretendHost
from tests.fakes.fleet_real_host import RealHost
from tests.fakes.fleet_world import FleetWorld, job_spec
from topod.fleet import events as ev
from topod.fleet.states import ENDED, FleetJobState, FleetRequest
from topod.model.arrays import ArrayPlan
from topod.model.job import AfterCondition, Dependency, JobId, JobSpec, OnHostLost, RestartPolicy
from topod.model.request import Affinity, Policy, ResourceRequest
from topod.model.rules import NO_RULES, DisruptionBudget, Quota, Rules, Scope

SEEDS = 40
FAIR = Rules(
    quotas=(Quota(scope=Scope.USER, value="alice", gpus=12),),
    budgets=(DisruptionBudget(label="service", min_running=1),),
    preemption_cap=1,
    hold_after_seconds=40.0,
)


def any_spec(world: FleetWorld) -> JobSpec:
    choose = world.random.choice
    spec = job_spec(
        priority=choose([100, 500, 500, 1000]),
        seconds=choose([5, 20, 60]),
        user=choose(["alice", "bob"]),
        code=choose([0, 0, 0, 1]),
        preemptible=world.random.random() < 0.9,
        on_host_lost=choose([OnHostLost.REQUEUE, OnHostLost.REQUEUE, OnHostLost.KEEP]),
        restart=choose(list(RestartPolicy)),
        wait_before_preempt_seconds=choose([0.0, 0.0, 0.0, 15.0]),
    )
    request = ResourceRequest(
        gpus=choose([0, 1, 1, 2, 4]),
        cpus=choose([0, 0, "auto", 4]),
        affinity=choose(list(Affinity)),
        policy=Policy.BEST_EFFORT,
        priority=spec.request.priority,
    )
    labels = {"service": choose(["chat", "code"])} if world.random.random() < 0.3 else {}
    return replace(spec, request=request, labels={**spec.labels, **labels})


def any_request(world: FleetWorld, gangs: bool) -> FleetRequest:
    choose = world.random.choice
    return FleetRequest(
        spec=any_spec(world),
        hosts=choose([1, 1, 2, 3]) if gangs else 1,
    )


def any_submit(world: FleetWorld, gangs: bool) -> ev.Submitted:
    choose, request = world.random.choice, any_request(world, gangs)
    array = ArrayPlan(indices=(0, 1, 2), limit=choose([None, 1, 2]))
    if world.leader.state.jobs and world.random.random() < 0.2:
        named = choose(sorted(world.leader.state.jobs))
        wanted = Dependency(job=JobId(named), condition=choose(list(AfterCondition)))
        request = replace(request, spec=replace(request.spec, after=(wanted,)))
    return ev.Submitted(request=request, array=array if world.random.random() < 0.15 else None)


def something_happens(world: FleetWorld, gangs: bool) -> None:  # noqa: C901, PLR0912 - one case for each thing
    rng = world.random
    name = rng.choice(sorted(world.hosts))
    host = world.hosts[name]
    match rng.randrange(16):
        case 0 | 1 | 2 | 3:
            world.apply(any_submit(world, gangs))
        case 4 if world.leader.state.jobs:
            asked = rng.choice((ev.CancelRequested, ev.RequeueRequested))
            world.apply(asked(job=rng.choice(sorted(world.leader.state.jobs))))
        case 5 if world.leader.state.jobs:
            job = rng.choice(sorted(world.leader.state.jobs))
            world.apply(ev.PriorityChanged(job=job, priority=rng.choice([50, 500, 2000])))
        case 6:
            world.lead()
        case 7:
            world.fail_over()
        case 8:
            world.cut[name] = world.now + rng.choice([3.0, 15.0, 100.0])
        case 9 if host.up:
            host.crash()
            # Its unit restarts it soon: see docs/limits.md for what happens when it does not.
            world.back[name] = (world.now + rng.choice([1.0, 5.0, 10.0]), rng.random() < 0.5)
        case 10 if host.up and rng.random() < 0.5:
            world.wipe(name) if rng.random() < 0.3 else host.power_off()
            world.back[name] = (world.now + rng.choice([5.0, 60.0]), False)
        case 11:
            host.local_user(job_spec(gpus=rng.choice([1, 2]), priority=rng.choice([100, 2000])), world.now)
        case 12:
            if rng.random() < 0.5:
                world.apply(ev.HostCordoned(host=name, reason="fan", requeue=rng.random() < 0.5))
            else:
                world.apply(ev.HostResumed(host=name))
        case 13 if not host.power:
            world.apply(ev.HostRemoved(host=name, dead=True))
        case 14:
            host.moody = rng.choice([0.0, 0.0, 0.5])
        case _:
            world.trouble = rng.choice([0.0, 0.1, 0.4])


def one_day(seed: int, *, gangs: bool = False, host: type[PretendHost] = PretendHost) -> FleetWorld:
    kinds = ["rtx4090x8", "a100-pcie-x4", "a100-pcie-x4", "rtx3090x2"]
    world = FleetWorld(kinds, seed, FAIR if seed % 2 else NO_RULES, host=host)
    world.trouble = 0.1
    for _ in range(120):
        if world.random.random() < 0.6:
            something_happens(world, gangs)
        world.advance(world.random.choice([1, 1, 2, 4]))
    return world


def comes_to_rest(world: FleetWorld) -> None:
    """Without further faults every job ends, and nothing is left of it anywhere."""
    world.trouble = 0.0
    world.wire.clear()
    world.cut.clear()
    for name, host in world.hosts.items():
        host.moody = 0.0
        if not host.up:
            world.back[name] = (world.now, False)
        if name in world.leader.state.hosts:
            world.apply(ev.HostResumed(host=name))
    for _ in range(60):
        world.advance(20)
        if not world.leader.state.jobs and not any(h.disk for h in world.hosts.values()):
            break
    left = [
        f"{job.label}: {job.state} {job.reason} {world.on(job.id)}"
        for job in world.leader.state.jobs.values()
    ]
    assert not left
    for job in world.store.jobs.values():
        assert job.state in ENDED
        assert job.state is not FleetJobState.PENDING
    for host in world.hosts.values():
        assert not [local for local in host.disk.values() if local.tag is not None]
    assert set(world.store.jobs) == set(range(1, world.store.next_job)), "a job was lost"


@pytest.mark.parametrize("chunk", range(10))
def test_no_job_runs_twice_and_every_job_ends(chunk: int) -> None:
    for seed in range(chunk * SEEDS // 10, (chunk + 1) * SEEDS // 10):
        comes_to_rest(one_day(seed))


@pytest.mark.parametrize("chunk", range(10))
def test_jobs_over_several_hosts_start_and_end_together(chunk: int) -> None:
    for seed in range(chunk * SEEDS // 10, (chunk + 1) * SEEDS // 10):
        comes_to_rest(one_day(seed, gangs=True))


@pytest.mark.parametrize("chunk", range(5))
def test_the_life_cycle_of_a_real_host_and_the_coordinator_understand_each_other(chunk: int) -> None:
    for seed in range(chunk * 4, chunk * 4 + 4):
        comes_to_rest(one_day(seed, gangs=bool(seed % 2), host=RealHost))
