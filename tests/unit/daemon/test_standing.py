from tests.fakes.world import World
from topod.daemon.standing import standing_line
from topod.discovery.library import load_library_host
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest


def test_the_line_counts_gpus_held_and_jobs() -> None:
    topology = load_library_host("hgx-h100").topology
    world = World(topology)
    for gpus in (4, 2, 8):
        world.submit(JobSpec(name="t", command=("true",), request=ResourceRequest(gpus=gpus)))
    world.run()
    line = standing_line(topology, world.state, recovered=True)
    assert line == "6 of 8 GPUs held, 2 jobs running, 1 waiting"
