"""A service over several hosts: only the coordinator has its replicas stopped, and never too many at once."""

import pytest

from tests.fakes.fleet_real_host import RealHost
from tests.fakes.fleet_world import FleetWorld, job_spec
from topod.coordinator.picker import make_picker
from topod.fleet.states import FleetJobId, FleetJobState
from topod.model.rules import DisruptionBudget, Rules

CHAT = {"service": "chat", "seconds": "1000", "code": "0"}
RULES = Rules(budgets=(DisruptionBudget(label="service", min_running=2),))


@pytest.fixture
def world() -> FleetWorld:
    """Three hosts, each full with a replica."""
    world = FleetWorld(
        ["a100-pcie-x4"] * 3, rules=RULES, picker=lambda: make_picker(spread=False), host=RealHost
    )
    world.advance(5)
    replicas = [world.submit(job_spec(gpus=4, priority=100, labels=CHAT)) for _ in range(3)]
    world.advance(20)
    assert [world.job(job).state for job in replicas] == [FleetJobState.RUNNING] * 3
    return world


def replicas(world: FleetWorld) -> list[FleetJobId]:
    running = [world.job(FleetJobId(ident)) for ident in (1, 2, 3)]
    return [job.id for job in running if job.state is FleetJobState.RUNNING]


def test_as_many_are_stopped_as_the_budget_spares_and_no_more(world: FleetWorld) -> None:
    urgent = [world.submit(job_spec(gpus=4, priority=1000, seconds=60)) for _ in range(2)]
    assert world.job(urgent[0]).members[0].place.victims
    assert world.job(urgent[1]).state is FleetJobState.PENDING
    assert "service=chat must keep 2 running in the fleet" in world.job(urgent[1]).reason
    for _ in range(40):
        world.advance(1)
        assert len(replicas(world)) >= 2
    assert world.job(urgent[0]).state is FleetJobState.RUNNING
    # A coordinator that was just started knows it from the reports.
    world.lead()
    world.advance(5)
    assert world.job(urgent[1]).state is FleetJobState.PENDING
    assert len(replicas(world)) == 2


def test_a_hosts_own_users_stop_no_replica_and_learn_why(world: FleetWorld) -> None:
    host = world.hosts["h0"]
    assert isinstance(host, RealHost)
    host.local_user(job_spec(gpus=4, priority=2000), world.now)
    world.advance(10)
    waits = [job for job in host.world.state.jobs.values() if job.tag is None]
    assert len(replicas(world)) == 3
    assert [job.state.value for job in waits] == ["pending"]
    assert "the fleet counts on it for service=chat" in waits[0].reason


def test_replicas_on_hosts_that_are_not_heard_of_do_not_count(world: FleetWorld) -> None:
    world.cut["h2"] = world.now + 1000
    world.advance(10)
    urgent = world.submit(job_spec(gpus=4, priority=1000))
    assert world.job(urgent).state is FleetJobState.PENDING
    assert "service=chat must keep 2 running" in world.job(urgent).reason
