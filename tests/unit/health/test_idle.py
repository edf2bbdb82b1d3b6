"""A GPU that a job holds and does not use is told with since when."""

from tests.fakes.world import World, spec
from topod.discovery.gpufacts import GpuLive, LiveFacts
from topod.discovery.library import load_library_host
from topod.health.idle import IdleClock

TOPOLOGY = load_library_host("rtx3090x2").topology
FIRST, SECOND = (gpu.uuid for gpu in TOPOLOGY.gpus)


def reading(first: int | None, second: int | None = 0) -> LiveFacts:
    gpus = ((FIRST, first), (SECOND, second))
    return LiveFacts(gpus=tuple(GpuLive(uuid=uuid, utilisation_percent=use) for uuid, use in gpus))


def running(world: World) -> int:
    job = world.submit(spec(gpus=1))
    world.run()
    assert world.job(job).allocation is not None
    return job


def test_idle_counts_from_the_first_look_at_0_and_ends_with_use() -> None:
    world, clock = World(TOPOLOGY), IdleClock()
    running(world)
    assert clock.look(world.state, reading(0), 100.0) == {FIRST: 100.0}
    assert clock.look(world.state, reading(0), 200.0) == {FIRST: 100.0}
    assert clock.look(world.state, reading(35), 300.0) == {}
    assert clock.look(world.state, reading(0), 400.0) == {FIRST: 400.0}
    assert clock.look(world.state, reading(None), 500.0) == {}


def test_a_free_gpu_is_not_idle_and_the_next_job_starts_anew() -> None:
    world, clock = World(TOPOLOGY), IdleClock()
    assert clock.look(world.state, reading(0), 100.0) == {}
    job = running(world)
    assert clock.look(world.state, reading(0), 200.0) == {FIRST: 200.0}
    world.exit(job)
    world.run()
    running(world)
    assert clock.look(world.state, reading(0), 300.0) == {FIRST: 300.0}
