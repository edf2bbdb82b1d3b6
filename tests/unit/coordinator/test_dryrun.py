"""What `plan` asks of a fleet: the best hosts, the next one with the reason, and how many were looked at."""

from typing import Any

import pytest

from tests.fakes.fleet_world import FleetWorld, job_spec
from topod.coordinator.dryrun import dry_run
from topod.coordinator.picker import make_picker
from topod.fleet import events as ev
from topod.fleet.states import FleetRequest


@pytest.fixture
def world() -> FleetWorld:
    """Return four hosts of 4 GPUs: h0 has 2 free, h1 none, h2 is empty, h3 closed."""
    world = FleetWorld(["a100-pcie-x4"] * 4, picker=lambda: make_picker(spread=False))
    world.advance(5)
    world.apply(ev.HostCordoned(host="h3", reason="fan", requeue=False))
    world.submit(job_spec(gpus=2, priority=100, seconds=999))
    world.submit(job_spec(gpus=4, priority=200, seconds=999))
    world.advance(5)
    return world


def planned(world: FleetWorld, **asked: Any) -> dict[str, Any]:
    hosts = asked.pop("hosts", 1)
    state, tables = world.leader.state, {name: host.tables for name, host in world.hosts.items()}
    request = FleetRequest(spec=job_spec(**asked), hosts=hosts)
    told = dry_run(world.board, state, tables, request, world.now)
    assert told.feasible, told
    return told.plan


def test_the_next_host_is_told_with_what_decided_and_of_how_many_it_is(world: FleetWorld) -> None:
    plan = planned(world, gpus=2)
    assert (plan["host"], plan["next_host"]["host"]) == ("h0", "h2")
    assert plan["next_host"]["decided_by"].startswith("fuller hosts first: 2 GPUs and ")
    assert plan["looked"] == {"hosts": 3, "room": 2, "fleet": 4}
    lone = planned(world, gpus=4)
    assert (lone["host"], lone["next_host"]["host"], lone["looked"]["room"]) == ("h2", "h0", 1)
    assert (lone["next_host"]["victims"], lone["next_host"]["decided_by"]) == (
        ["1"],
        "victims: none, instead of 1 of priority 100",
    )


def test_the_next_host_of_several_takes_the_place_of_the_dearest(world: FleetWorld) -> None:
    plan = planned(world, gpus=4, hosts=2)
    assert [one["host"] for one in plan["hosts"]] == ["h2", "h0"]
    other = plan["next_host"]
    assert (other["host"], other["in_place_of"], other["victims"]) == ("h1", "h0", ["2"])
    assert other["decided_by"] == "victims: 1 of priority 100, instead of 1 of priority 200"
    assert planned(world, gpus=4, hosts=3)["next_host"] is None
