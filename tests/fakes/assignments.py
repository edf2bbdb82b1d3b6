"""Assignments of a fleet as a test gives them to a host."""

from dataclasses import replace

from tests.fakes.world import World, spec
from topod.lifecycle import events as ev
from topod.lifecycle.states import JobState
from topod.model.assignment import FleetTag, Place
from topod.model.job import (
    JobId,
    JobSpec,
)

FLEET_JOB = 70


ALL = tuple(range(8))


def tag(fence: int = 5, **changes: object) -> FleetTag:
    return replace(FleetTag(job=FLEET_JOB, fence=fence), **changes)  # type: ignore[arg-type] # a test builder


def train(gpus: int = 8, priority: int = 500, **changes: object) -> JobSpec:
    return spec("train", gpus=gpus, priority=priority, **changes)


def assign(
    world: World,
    job: JobSpec | None = None,
    *,
    gpus: tuple[int, ...] = ALL,
    victims: tuple[int, ...] = (),
    **changes: object,
) -> JobId:
    place = Place(gpus=gpus, victims=tuple(map(str, victims)))
    return world.assign(job or train(len(gpus)), place, tag(**changes))  # type: ignore[arg-type] # a test builder


def running(world: World, gpus: int = 4, **changes: object) -> JobId:
    job = world.submit(spec("local", gpus=gpus, **({"priority": 100} | changes)))
    world.run()
    assert world.job(job).state is JobState.RUNNING
    return job


def taken(world: World, job: JobId) -> bool:
    assignment = world.job(job).assignment
    assert assignment is not None
    return assignment.taken


def settle(world: World, fence: int = 5) -> None:
    world.apply(ev.Settled(job=FLEET_JOB, fence=fence))
