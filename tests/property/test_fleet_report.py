"""What a host tells its coordinator once is what its own planner sees, now and later, while nothing happens."""

from dataclasses import replace

import msgspec
import pytest

from tests.fakes.world import World
from tests.property.test_lifecycle import fleet_day, one_day
from topod.daemon.fleet_report import fleet_jobs, host_snapshot
from topod.fleet.hosts import HostSnapshot, occupancy_at
from topod.lifecycle.holdings import occupancy, unknown_health
from topod.lifecycle.states import JobState
from topod.protocol.codec import encode, from_plain

SEEDS = 24
LATER = (0.0, 0.4, 3.0, 49.9, 50.0, 61.0, 1000.0)

decoder = msgspec.json.Decoder(HostSnapshot, dec_hook=from_plain)


class Told(World):
    """A world that looks at every state what would be told of it."""

    seen: int = 0

    def check(self) -> None:
        super().check()
        topology = self.tables.topology
        told = decoder.decode(encode(host_snapshot(self.tables, self.state, self.now, self.rules)))
        for seconds in LATER:
            then = self.now + seconds
            assert occupancy_at(told, then) == occupancy(topology, self.state, then, self.rules), seconds
        self.seen += len(told.holders)


@pytest.mark.parametrize("chunk", range(3))
def test_a_snapshot_is_what_the_planner_sees_at_any_later_moment(chunk: int) -> None:
    for seed in range(chunk * SEEDS // 3, (chunk + 1) * SEEDS // 3):
        world = one_day(seed, Told)
        assert isinstance(world, Told)
        assert world.seen


def test_every_assignment_is_told_until_it_is_settled() -> None:
    for seed in range(6):
        world, _ = fleet_day(seed)
        fleet = [job for job in world.state.jobs.values() if job.tag is not None]
        told = fleet_jobs(world.state)
        assert [one.local for one in told] == sorted(job.id for job in fleet)
        for one, job in zip(told, sorted(fleet, key=lambda job: job.id), strict=True):
            assert job.tag is not None
            assert (one.job, one.fence) == (job.tag.job, job.tag.fence)
            assert one.state == job.state.value or (one.state == "refused" and not job.starts)
            assert not one.ready or (job.state is JobState.STARTING and job.in_gang)


def test_a_blind_host_blocks_its_gpus_and_a_drained_one_is_closed() -> None:
    world = one_day(3)
    state = world.state
    told = host_snapshot(world.tables, replace(state, blind="NVML hangs", drain=None), world.now)
    assert told.closed is None
    assert told.blocks[-1].gpus == world.tables.all_gpus
    assert told.blocks[-1].reason == unknown_health("NVML hangs")
    told = host_snapshot(world.tables, replace(state, drain="fan"), world.now, closed="other")
    assert told.closed == "the host is drained: fan"
    told = host_snapshot(world.tables, replace(state, drain=None), world.now, closed="other")
    assert told.closed == "other"
