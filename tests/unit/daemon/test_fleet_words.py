"""What a fleet reads of a host's reasons: the fleet's numbers, and whose job it was."""

import pytest

from tests.fakes.world import World, spec
from topod.daemon.fleet_report import fleet_jobs
from topod.daemon.fleet_words import to_the_fleet
from topod.discovery.library import load_library_host
from topod.model.assignment import FleetTag, Place


@pytest.fixture
def world() -> World:
    world = World(load_library_host("hgx-h100").topology)
    world.submit(spec("own", gpus=1))
    world.assign(spec("serve", gpus=1), Place(gpus=(1,)), FleetTag(job=105, fence=3))
    world.run()
    return world


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("preempted by job 2 (serve), priority 1000", "preempted by job 105 (serve), priority 1000"),
        ("requeued; it was preempted by job 2", "requeued; it was preempted by job 105"),
        (
            "preempted by job 1 (own), priority 900",
            "preempted by job 1 (own) of the host's own, priority 900",
        ),
        ("waits for job 2 (else)", "waits for job 2 (else)"),
        ("gone with job 99 (serve)", "gone with job 99 (serve)"),
        ("exit code 3", "exit code 3"),
    ],
)
def test_jobs_are_named_as_the_fleet_names_them(world: World, here: str, there: str) -> None:
    assert to_the_fleet(world.state, here) == there


def test_a_job_that_is_given_back_says_for_whom(world: World) -> None:
    victim = world.assign(
        spec("train", gpus=6, priority=100), Place(gpus=tuple(range(2, 8))), FleetTag(job=98, fence=5)
    )
    world.run()
    for_whom = FleetTag(job=107, fence=6)
    world.assign(
        spec("big", gpus=6, priority=900), Place(gpus=tuple(range(2, 8)), victims=(str(victim),)), for_whom
    )
    world.run()
    (told,) = (report for report in fleet_jobs(world.state) if report.job == 98)
    assert (told.state, told.reason) == ("returned", "preempted by job 107 (big), priority 900")
