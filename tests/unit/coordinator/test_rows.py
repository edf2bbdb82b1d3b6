"""What who watches a fleet is told of a host: who holds its GPUs, what was promised, kept and set aside."""

from dataclasses import replace

from tests.fakes.fleet_world import FleetWorld, job_spec
from topod.coordinator.rows import row_of
from topod.fleet.jobtable import jobs_on
from topod.fleet.states import FleetJob, FleetJobId, FleetRequest, HostRecord, Target
from topod.model.occupancy import Block
from topod.model.rules import NO_RULES
from topod.protocol.views import BlockedGpus, FleetRow, FreeGroup


def row(world: FleetWorld, name: str, *, kept: tuple[tuple[FleetJob, Target], ...] = ()) -> FleetRow:
    state, view = world.leader.state, world.leader.view
    jobs = jobs_on(state.jobs, name)
    return row_of(state.hosts[name], view.hosts.get(name), jobs, kept, NO_RULES, emulated=False)


def test_what_is_promised_is_reserved_until_the_host_has_it() -> None:
    world = FleetWorld(["a100-pcie-x4"])
    world.advance(5)
    (name,) = world.leader.state.hosts
    assert row(world, name).free == [FreeGroup("nvlink", 2, 2)]
    job = world.submit(job_spec(gpus=2, priority=700))
    (promised,) = row(world, name).held
    assert (promised.ident, promised.priority, promised.job) == (str(job), 700, job)
    assert promised.state == "reserved"
    assert row(world, name).free == [FreeGroup("nvlink", 2, 1)]
    world.advance(5)
    (held,) = row(world, name).held
    assert (held.gpus, held.job, held.state) == (promised.gpus, job, "held")
    assert row(world, name).jobs == 1


def test_what_is_set_aside_or_kept_is_told_with_its_reason() -> None:
    world = FleetWorld(["a100-pcie-x4"])
    world.advance(5)
    (name,) = world.leader.state.hosts
    seen = world.leader.view.hosts[name]
    assert seen.snapshot is not None
    blocks = (
        Block(reason="unhealthy: Xid 79", gpus=1),
        Block(reason="held by job 4 (x), which does not stop", gpus=2),
    )
    seen = replace(seen, snapshot=replace(seen.snapshot, blocks=blocks))
    waiting = FleetJob(id=FleetJobId(9), request=FleetRequest(spec=job_spec(gpus=2)), submitted_at=0.0)
    kept = ((waiting, Target(host=name, gpus=0b1100)),)
    found = row_of(HostRecord(name=name, known_since=0.0), seen, [], kept, NO_RULES, emulated=True)
    assert found.blocked == [
        BlockedGpus("unhealthy", 1, "Xid 79"),
        BlockedGpus("blocked", 2, "held by job 4 (x), which does not stop"),
        BlockedGpus("reserved", 0b1100, f"kept for {waiting.label}"),
    ]
    assert not found.free
    assert found.emulated


def test_a_host_that_has_not_reported_is_away() -> None:
    found = row_of(HostRecord(name="n", known_since=0.0), None, [], (), NO_RULES, emulated=False)
    assert (found.state, found.gpus, found.free) == ("away", None, [])
