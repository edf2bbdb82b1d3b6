"""What both schedulers are brought into and asked: states of one host, and a request in each. Pure.

A file of scenarios is JSON: `{"scenarios": [...]}`, each with `name`, `host` (an emulated host by name),
`jobs` (which GPUs each running job holds, the oldest first; all are of one low priority), and what is asked
with high priority: `gpus` and `affinity`. `python -m bench.peers.scenario` makes `scenarios.json` anew.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from topod.discovery.library import load_library_host
from topod.errors import DataError
from topod.flextopo.tables import TopologyTables
from topod.model.plan import Plan
from topod.model.request import Affinity, Policy, ResourceRequest
from topod.preemption.search import plan
from topod.simulate.jobs import Run, SimJob, Waiting
from topod.simulate.machines import Machine, bits

FILE: Final = Path(__file__).with_name("scenarios.json")
KINDS: Final = (("hgx-h100", 4, Affinity.NUMA, 10), ("l40s-x8", 2, Affinity.PCIE, 10))
"""Host, GPUs and affinity that are asked for, and how many states are made."""
LOW, HIGH = 100, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One state and the request that is made in it."""

    name: str
    host: str
    jobs: tuple[tuple[int, ...], ...]
    gpus: int
    affinity: Affinity

    @property
    def free(self) -> list[int]:
        """The GPUs that nobody holds."""
        held = {gpu for job in self.jobs for gpu in job}
        return [gpu for gpu in range(tables_of(self.host).count) if gpu not in held]

    def machine(self) -> Machine:
        """Return the state as the simulation knows it; jobs are numbered from 0."""
        machine = Machine(number=0, name=self.host, tables=tables_of(self.host))
        for ident, gpus in enumerate(self.jobs):
            asked = ResourceRequest(gpus=len(gpus), cpus=0, priority=LOW)
            job = SimJob(ident=ident, submit=float(ident), run=1e9, request=asked)
            waiting = Waiting(job=job, left=1e9, since=float(ident))
            mask = sum(1 << gpu for gpu in gpus)
            machine.take(Run(waiting=waiting, gpus=mask, cpus=0, placed=float(ident), begun=float(ident)))
        return machine

    def request(self, affinity: Affinity) -> ResourceRequest:
        """Return what is asked for, with that affinity."""
        return ResourceRequest(
            gpus=self.gpus, affinity=affinity, policy=Policy.GUARANTEED, cpus=0, priority=HIGH
        )

    def fewest(self, affinity: Affinity) -> int:
        """Return how many have to be stopped at least."""
        found = plan(tables_of(self.host), self.machine().occupancy(1e6), self.request(affinity))
        assert isinstance(found, Plan)
        return len(found.victims)

    def satisfied(self, gpus: Sequence[int]) -> bool:
        """Say whether these GPUs are as close as was asked for."""
        return bool(tables_of(self.host).satisfies(self.affinity)[sum(1 << gpu for gpu in gpus)])


@cache
def tables_of(host: str) -> TopologyTables:
    """Return the tables of an emulated host."""
    return TopologyTables(load_library_host(host).topology)


def read(path: Path) -> list[Scenario]:
    """Return the scenarios of a file. Raises `DataError`."""

    class Scenarios(msgspec.Struct, forbid_unknown_fields=True):
        scenarios: list[Scenario]

    try:
        found = msgspec.json.decode(path.read_bytes(), type=Scenarios).scenarios
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{path}: {error}") from None
    for one in found:
        gpus = [gpu for job in one.jobs for gpu in job]
        if len(set(gpus)) < len(gpus) or not set(gpus) <= set(range(tables_of(one.host).count)):
            raise DataError(f"{path}: {one.name}: two jobs hold one GPU, or one that {one.host} has not")
    return found


def make(seed: int) -> Iterator[Scenario]:
    """Yield states in which somebody has to be stopped: jobs of one to three GPUs, put anywhere."""
    for host, gpus, affinity, many in KINDS:
        made = 0
        chance = Random(f"{seed}/{host}")
        while made < many:
            order = list(range(tables_of(host).count))
            chance.shuffle(order)
            del order[: chance.choice((0, 0, 1, 2))]
            jobs = []
            while order:
                size = min(len(order), chance.choice((1, 1, 2, 2, 3)))
                jobs.append(tuple(sorted(order[:size])))
                del order[:size]
            one = Scenario(
                name=f"{host}-{made + 1:02}", host=host, jobs=tuple(jobs), gpus=gpus, affinity=affinity
            )
            if len(one.free) < gpus:
                made += 1
                yield one


def mask_to_gpus(mask: int) -> list[int]:
    """Return the GPUs of a mask."""
    return bits(mask)


if __name__ == "__main__":
    text = ",\n".join(f"  {json.dumps(asdict(one))}" for one in make(1))
    FILE.write_text(f'{{"scenarios": [\n{text}\n]}}\n', encoding="utf-8")
