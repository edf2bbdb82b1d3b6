"""Hosts of eight GPUs for tests of ways to choose, as the peers' measurements had them."""

from collections.abc import Mapping, Sequence
from random import Random

from topod.flextopo.tables import TopologyTables
from topod.model.cpuset import CpuSet
from topod.model.links import Link
from topod.model.request import Affinity, Policy, ResourceRequest
from topod.model.topology import Core, CoreGroup, Gpu, NumaNode, Socket, Topology
from topod.simulate.jobs import Run, SimJob, Waiting
from topod.simulate.machines import Machine

HALVES = ((0, 1, 2, 3), (4, 5, 6, 7))
PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7))


def host(groups: Sequence[Sequence[int]], *, cores: int = 32) -> TopologyTables:
    """Return a host of two sockets with four GPUs each, of which those in a group have NVLinks."""
    of = {gpu: at for at, group in enumerate(groups) for gpu in group}

    def link(a: int, b: int) -> Link | None:
        if a == b:
            return None
        return Link.parse("NV4" if of[a] == of[b] else "NODE" if a // 4 == b // 4 else "SYS")

    half = cores // 2
    areas = [CpuSet(((1 << half) - 1) << half * node) for node in range(2)]
    return TopologyTables(
        Topology(
            name="g1",
            gpus=tuple(
                Gpu(index=gpu, uuid=f"GPU-{gpu}", numa_node=gpu // 4, cpus=areas[gpu // 4])
                for gpu in range(8)
            ),
            links=tuple(tuple(link(a, b) for b in range(8)) for a in range(8)),
            sockets=tuple(Socket(id=at, cpus=area) for at, area in enumerate(areas)),
            numa_nodes=tuple(NumaNode(id=at, cpus=area) for at, area in enumerate(areas)),
            core_groups=tuple(CoreGroup(id=at, cpus=area) for at, area in enumerate(areas)),
            cores=tuple(Core(id=cpu, cpus=CpuSet(1 << cpu)) for cpu in range(cores)),
        )
    )


def machine(tables: TopologyTables, *runs: Run, number: int = 0) -> Machine:
    """Return a host on which these run."""
    made = Machine(number=number, name=f"host-{number:03}", tables=tables)
    for run in runs:
        made.take(run)
    return made


def running(
    ident: int, gpus: Sequence[int], *, priority: int = 100, since: float = 0.0, cpus: int = 0, **job: object
) -> Run:
    """Return a job that holds GPUs since then; `cpus` is a mask."""
    asked = ResourceRequest(gpus=len(gpus), priority=priority)
    made = SimJob(ident=ident, submit=since, run=1e6, request=asked, **job)  # type: ignore[arg-type]
    waiting = Waiting(job=made, left=made.run, since=since)
    return Run(waiting=waiting, gpus=sum(1 << gpu for gpu in gpus), cpus=cpus, placed=since, begun=since)


def wanted(gpus: int, affinity: Affinity = Affinity.NUMA, *, priority: int = 1000) -> ResourceRequest:
    """Return what the high-priority job asks for."""
    policy = Policy.BEST_EFFORT if affinity is Affinity.ANY else Policy.GUARANTEED
    return ResourceRequest(gpus=gpus, affinity=affinity, policy=policy, priority=priority)


def recorded(tables: TopologyTables, scene: Mapping[str, object]) -> tuple[Machine, dict[int, str]]:
    """Return the host of a recorded scenario, and the names of its jobs."""
    jobs = sorted(scene["running"], key=lambda job: job["order"])  # type: ignore[call-overload]
    runs = [
        running(job["order"], job["gpus"], priority=100 + job["priority"], since=job["order"]) for job in jobs
    ]
    return machine(tables, *runs), {job["order"]: job["id"] for job in jobs}


def random_scene(
    chance: Random, tables: TopologyTables, groups: Sequence[Sequence[int]], want: int
) -> Machine:
    """Return a nearly full host, its jobs laid out as in the peers' measurements."""
    of = {gpu: at for at, group in enumerate(groups) for gpu in group}
    while True:
        left = list(range(8))
        chance.shuffle(left)
        free = sorted(left[: chance.choice((0, 0, 1, 2) if want > 2 else (0, 0, 1))])
        left = left[len(free) :]
        held: list[list[int]] = []
        while left:
            gpu = left.pop(0)
            if left and chance.random() < 0.45:
                same = [other for other in left if of[other] == of[gpu]]
                other = chance.choice(same) if same and chance.random() < 0.5 else chance.choice(left)
                left.remove(other)
                held.append(sorted([gpu, other]))
            else:
                held.append([gpu])
        whole = any(set(group) <= set(free) for group in groups)
        if whole or len(free) >= want or not any(len(gpus) == 2 for gpus in held):
            continue
        chance.shuffle(held)
        return machine(
            tables,
            *(running(at, gpus, priority=100, since=at) for at, gpus in enumerate(held)),
        )
