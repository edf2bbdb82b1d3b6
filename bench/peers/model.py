"""What `topoctl simulate` says that Slurm would do in the same states. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.peers.scenario import Part, State, waves
from bench.peers.scoring import Outcome
from topod.flextopo.tables import TopologyTables
from topod.model.request import PRIORITIES, ResourceRequest
from topod.simulate.jobs import Run, SimJob, Waiting
from topod.simulate.machines import Machine
from topod.simulate.policies.slurm import Slurm


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near the model of a scheduler comes to what was measured."""

    states: int
    same_victims: int
    same_gpus: int
    """On the same host, of those with the same victims."""
    victims: float
    """On average, by the model."""
    measured: float


def predicted(part: Part, state: State, tables: TopologyTables, *, bind: bool) -> Outcome:
    """Return what the model of Slurm does in a state."""
    machines = {
        host: Machine(number=number, name=host, tables=tables) for number, host in enumerate(state.free)
    }
    names = {}
    for ident, filler in enumerate(filler for wave in waves(state) for filler in wave):
        gpus = filler.gpus.bit_count()
        request = ResourceRequest(gpus=gpus, priority=PRIORITIES["low"])
        job = SimJob(ident=ident, submit=float(ident), run=1e9, request=request)
        waiting = Waiting(job=job, left=job.run, since=job.submit)
        machines[filler.host].take(
            Run(waiting=waiting, gpus=filler.gpus, cpus=0, placed=job.submit, begun=job.submit)
        )
        names[ident] = filler.name
    asked = ResourceRequest(gpus=part.gpus, affinity=part.affinity, priority=PRIORITIES["high"])
    found = Slurm(bind=bind).preempt(asked, list(machines.values()), float(len(names)))
    if found is None:
        return Outcome(state.name, frozenset(), None, 0)
    return Outcome(state.name, frozenset(names[one] for one in found.victims), found.machine.name, found.gpus)


def nearness(model: Sequence[Outcome], measured: Sequence[Outcome]) -> Nearness:
    """Compare, state by state."""
    both = list(zip(model, measured, strict=True))
    same = [(one, other) for one, other in both if one.victims == other.victims]
    return Nearness(
        states=len(both),
        same_victims=len(same),
        same_gpus=sum((one.host, one.gpus) == (other.host, other.gpus) for one, other in same),
        victims=sum(len(one.victims) for one in model) / len(both),
        measured=sum(len(one.victims) for one in measured) / len(both),
    )
