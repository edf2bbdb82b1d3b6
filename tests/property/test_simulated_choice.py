"""The simulation's way to ask the planner gives what the coordinator's decision gives, in every state."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.simulate.scenes import HALVES, PAIRS, host, machine
from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.fleet.pick.cost import Chosen
from topod.fleet.pick.fleet import Fleet
from topod.model.cpuset import CpuSet
from topod.model.request import AUTO, Affinity, Policy, ResourceRequest
from topod.simulate.jobs import Run, SimJob, Waiting
from topod.simulate.machines import Machine, bits, lowest
from topod.simulate.policies.exact import Exact

KINDS = (host(HALVES), host(PAIRS))
NOW = 1000.0

requests = st.builds(
    ResourceRequest,
    gpus=st.integers(1, 5),
    affinity=st.sampled_from(Affinity),
    policy=st.sampled_from(Policy),
    cpus=st.sampled_from((0, 3, AUTO)),
    priority=st.sampled_from((100, 500, 1000)),
)


@st.composite
def machines(draw: st.DrawFn) -> list[Machine]:
    """Return a few hosts with random jobs."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        made = machine(draw(st.sampled_from(KINDS)), number=number)
        for ident in range(draw(st.integers(0, 5))):
            count = min(draw(st.integers(1, 3)), made.free_gpus.bit_count())
            order = draw(st.permutations(bits(made.free_gpus)))
            cpus = lowest(made.free_cpus, min(draw(st.integers(0, 4)), made.free_cpus.bit_count()))
            asked = ResourceRequest(gpus=count, priority=draw(st.sampled_from((100, 300, 900))))
            job = SimJob(
                ident=number * 10 + ident, submit=0.0, run=1e6, request=asked, preemptible=draw(st.booleans())
            )
            begun = float(draw(st.integers(0, 900)))
            gpus = sum(1 << gpu for gpu in order[:count])
            if gpus or cpus:
                waiting = Waiting(job=job, left=1e6, since=0.0)
                made.take(Run(waiting=waiting, gpus=gpus, cpus=cpus, placed=begun, begun=begun))
        found.append(made)
    return found


def decided(hosts: list[Machine], request: ResourceRequest) -> tuple[str, int, int, set[str]] | None:
    """Return what the product's decision over a fleet is."""
    fleet = Fleet()
    for one in hosts:
        held = tuple(
            HeldBy(
                job=str(ident),
                priority=run.job.request.priority,
                gpus=run.gpus,
                cpus=CpuSet(run.cpus),
                evictable_from=0.0 if run.job.preemptible else None,
                work_since=run.begun,
                work_gpus=run.gpus.bit_count(),
            )
            for ident, run in one.runs.items()
        )
        fleet.put(HostSnapshot(host=one.name, generation=1, holders=held), one.tables)
    chosen = fleet.decide(request, NOW)
    if not isinstance(chosen, Chosen):
        return None
    plan = chosen.plan
    return chosen.host, sum(1 << gpu for gpu in plan.gpus), plan.cpus.mask, set(plan.victims)


@given(machines(), requests)
@settings(max_examples=150, deadline=None)
def test_the_simulation_decides_as_the_coordinator_does(
    hosts: list[Machine], request: ResourceRequest
) -> None:
    policy = Exact()
    policy.look(hosts, NOW)
    placement = policy.place(request, hosts, NOW) or policy.preempt(request, hosts, NOW)
    mine = placement and (
        placement.machine.name,
        placement.gpus,
        placement.cpus,
        {str(victim) for victim in placement.victims},
    )
    assert mine == decided(hosts, request)
