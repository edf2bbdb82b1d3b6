"""Random small hosts, states and requests for the planner's property tests."""

import random
from dataclasses import replace

from topod.model.cpuset import CpuSet
from topod.model.links import Link, LinkClass
from topod.model.occupancy import Block, Budget, Holder, Occupancy, Room
from topod.model.request import Affinity, CpuAffinity, Policy, ResourceRequest
from topod.model.topology import Core, CoreGroup, Gpu, NumaNode, Socket, Topology

CUBE_MESH = {(0, 1): 1, (0, 2): 1, (0, 3): 2, (0, 4): 2, (1, 2): 2, (1, 3): 1, (1, 5): 2, (2, 3): 2, (2, 6): 1,
             (3, 7): 1, (4, 5): 1, (4, 6): 1, (4, 7): 2, (5, 6): 2, (5, 7): 1, (6, 7): 2}  # fmt: skip
"""NVLinks of a DGX-1 V100, as in `nvidia-smi topo -m`."""


def make_host(
    *,
    nodes: list[int | None],
    nvlinks: dict[tuple[int, int], int],
    pcie: dict[tuple[int, int], LinkClass] | None = None,
    cpus_per_node: int = 8,
    threads: int = 2,
    group: int = 4,
    nodes_per_socket: int = 1,
    know: frozenset[str] = frozenset({"sockets", "nodes", "cores", "groups"}),
    gpu_cpus: list[CpuSet | None] | None = None,
    extra_nodes: int = 0,
) -> Topology:
    """Return a host whose GPU i sits on NUMA node `nodes[i]`; links not given follow from the nodes."""
    count = len(nodes)
    node_count = max((node for node in nodes if node is not None), default=0) + 1 + extra_nodes
    rows: list[tuple[Link | None, ...]] = []
    for i in range(count):
        row: list[Link | None] = []
        for j in range(count):
            pair = (min(i, j), max(i, j))
            if i == j:
                row.append(None)
            elif pair in nvlinks:
                row.append(Link(LinkClass.NVLINK, nvlinks[pair]))
            elif pcie and pair in pcie:
                row.append(Link(pcie[pair]))
            else:
                row.append(Link(LinkClass.NODE if nodes[i] == nodes[j] else LinkClass.SYS))
        rows.append(tuple(row))
    total = node_count * cpus_per_node

    def pieces(size: int) -> list[CpuSet]:
        return [CpuSet.of(range(at, min(at + size, total))) for at in range(0, total, size)]

    return Topology(
        name="random",
        gpus=tuple(
            Gpu(index=i, uuid=f"GPU-{i}", numa_node=node, cpus=gpu_cpus[i] if gpu_cpus else None)
            for i, node in enumerate(nodes)
        ),
        links=tuple(rows),
        sockets=tuple(
            Socket(id=i, cpus=cpus) for i, cpus in enumerate(pieces(cpus_per_node * nodes_per_socket))
        )
        if "sockets" in know
        else (),
        numa_nodes=tuple(NumaNode(id=i, cpus=cpus) for i, cpus in enumerate(pieces(cpus_per_node)))
        if "nodes" in know
        else (),
        cores=tuple(Core(id=i, cpus=cpus) for i, cpus in enumerate(pieces(threads)))
        if "cores" in know
        else (),
        core_groups=tuple(CoreGroup(id=i, cpus=cpus) for i, cpus in enumerate(pieces(group)))
        if "groups" in know and cpus_per_node % group == 0
        else (),
    )


def random_host(rng: random.Random, largest: int = 8) -> Topology:
    """Return a host of 1 to `largest` GPUs: meshes, bridges, switches, NPS4, with and without NUMA knowledge."""
    count = rng.randint(1, largest)
    node_count = rng.choice([1, 2, 2, 4, 8])
    kind = rng.choice(["mesh", "bridges", "switch", "none", "cube", "islands"])
    if kind == "cube":
        count, node_count = min(8, largest), 2
    nodes: list[int | None] = [i * node_count // count for i in range(count)]
    if rng.random() < 0.2:
        nodes = [rng.randrange(node_count) for _ in range(count)]
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    density = rng.random()
    nvlinks = {
        "mesh": {pair: rng.randint(1, 3) for pair in pairs if rng.random() < density},
        "bridges": {(i, i + 1): 4 for i in range(0, count - 1, 2) if rng.random() < 0.8},
        "switch": dict.fromkeys(pairs, 12),
        "none": {},
        "cube": {pair: lanes for pair, lanes in CUBE_MESH.items() if pair[1] < count},
        "islands": {pair: 4 for pair in pairs if pair[0] // 4 == pair[1] // 4},
    }[kind]
    size = rng.choice([1, 2, 2, 4])
    near = [LinkClass.PIX, LinkClass.PXB, LinkClass.PHB]
    pcie = {pair: rng.choice(near) for pair in pairs if pair[0] // size == pair[1] // size}
    if rng.random() < 0.15:
        pcie = {pair: LinkClass(rng.randint(1, 5)) for pair in pairs}
    cpus_per_node = rng.choice([4, 6, 8])
    gpu_cpus: list[CpuSet | None] | None = None
    if rng.random() < 0.35:
        total = max(node for node in nodes if node is not None) * cpus_per_node + cpus_per_node
        width = rng.choice([2, 4, cpus_per_node])
        starts = [rng.randrange(0, max(total - width, 0) + 1, width) for _ in range(count)]
        gpu_cpus = [CpuSet.of(range(at, at + width)) if rng.random() < 0.8 else None for at in starts]
    if rng.random() < 0.3:
        forget = rng.choice([0.3, 1.0])
        nodes = [None if rng.random() < forget else node for node in nodes]
    know = frozenset(part for part in ("sockets", "nodes", "cores", "groups") if rng.random() < 0.85)
    return make_host(
        nodes=nodes,
        nvlinks=nvlinks,
        pcie=pcie,
        cpus_per_node=cpus_per_node,
        threads=rng.choice([1, 2, 2]),
        group=rng.choice([2, 4]),
        nodes_per_socket=rng.choice([1, 1, 2, 4]),
        know=know,
        gpu_cpus=gpu_cpus,
        extra_nodes=rng.choice([0, 0, 1]),
    )


def random_occupancy(rng: random.Random, topology: Topology, jobs: int = 7) -> Occupancy:
    """Return a state with at most `jobs` jobs: on GPUs, on CPUs, on both; some kept, some GPUs blocked."""
    gpus = [gpu.index for gpu in topology.gpus]
    if rng.random() < 0.6:
        rng.shuffle(gpus)
    cpus = list(topology.cpus) or sorted({c for gpu in topology.gpus for c in gpu.cpus or ()})
    if rng.random() < 0.6:
        rng.shuffle(cpus)
    blocks = []
    for reason in ("foreign: pid 4711", "unhealthy: Xid 79", "reserved for job 12"):
        if rng.random() < 0.15:
            mask = 1 << rng.choice(gpus) if rng.random() < 0.8 else 0
            blocks.append(
                Block(
                    reason=reason,
                    gpus=mask,
                    cpus=CpuSet.of(rng.sample(cpus, min(len(cpus), rng.randint(0, 3)))),
                )
            )
    levels = rng.choice([[100], [100, 500], [100, 300, 500, 900]])
    works = rng.choice([[0], [10, 20], [1, 10**6, 7 * 10**12]])
    busy, tight = rng.random() * 1.3, rng.choice([0, 1, 2, 6])
    holders = []
    for number in range(jobs):
        mask = 0
        if rng.random() < busy:
            for _ in range(min(len(gpus), rng.choice([1, 1, 1, 2, 2, 3, 4]))):
                mask |= 1 << gpus.pop()
        taken = [cpus.pop() for _ in range(min(len(cpus), rng.randint(0, 2 * tight)))]
        if mask or taken:
            evictable = rng.random() < 0.88
            holders.append(
                Holder(
                    job=f"j{number}",
                    priority=rng.choice(levels),
                    gpus=mask,
                    cpus=CpuSet.of(taken),
                    evictable=evictable,
                    protection="" if evictable else "not preemptible",
                    work=rng.choice(works),
                )
            )
    return Occupancy(holders=tuple(holders), blocks=tuple(blocks))


def random_request(rng: random.Random, topology: Topology) -> ResourceRequest:
    """Return a request that often needs victims and is often feasible."""
    count = len(topology.gpus)
    gpus = rng.choice([0, 1, 2, 2, 3, 4, 4, count, count + 1 if rng.random() < 0.1 else 1])
    cpus = rng.choice([0, 0, None, 1, 3, 5, 8, 12, 17])
    return ResourceRequest(
        gpus=min(gpus, count + 1),
        affinity=rng.choice(list(Affinity)),
        policy=rng.choice(list(Policy)),
        cpus="auto" if cpus is None else cpus,
        cpu_affinity=rng.choice(list(CpuAffinity)),
        priority=rng.choice([300, 500, 1000, 1000, 1000]),
    )


def alike_occupancy(rng: random.Random, topology: Topology, jobs: int = 9) -> Occupancy:
    """Return a state of jobs that are much alike, so that plans tie: equal priority, no work, CPUs nearby."""
    order = list(range(len(topology.gpus)))
    if rng.random() < 0.5:
        rng.shuffle(order)
    free = {node.id: list(node.cpus) for node in topology.numa_nodes} or {0: list(topology.cpus)}
    size, each, small = rng.choice([1, 1, 2]), rng.choice([1, 2, 3]), rng.choice([1, 2])
    holders: list[Holder] = []
    gpu_jobs = rng.randint(3, jobs - 1)
    while order and len(holders) < gpu_jobs:
        gpus = [order.pop() for _ in range(min(size, len(order)))]
        cpus = []
        for i in gpus:
            pool = free.get(topology.gpus[i].numa_node or 0, [])
            cpus += [pool.pop() for _ in range(min(each, len(pool)))]
        mask = sum(1 << i for i in gpus)
        holders.append(Holder(job=f"g{len(holders)}", priority=100, gpus=mask, cpus=CpuSet.of(cpus)))
    while len(holders) < jobs and any(free.values()):
        pool = rng.choice([pool for pool in free.values() if pool])
        cpus = [pool.pop() for _ in range(min(small, len(pool)))]
        holders.append(Holder(job=f"c{len(holders)}", priority=100, cpus=CpuSet.of(cpus)))
    rng.shuffle(holders)
    blocks = (Block(reason="unhealthy: Xid 79", gpus=1 << rng.randrange(len(topology.gpus))),)
    return Occupancy(holders=tuple(holders), blocks=blocks if rng.random() < 0.3 else ())


def large_host(rng: random.Random) -> Topology:
    """Return a host of 16 GPUs: all linked, in two halves or in pairs, on 1 to 4 NUMA nodes."""
    pairs = [(i, j) for i in range(16) for j in range(i + 1, 16)]
    size = rng.choice([2, 8, 16])
    node_count = rng.choice([1, 2, 2, 4])
    return make_host(
        nodes=[i * node_count // 16 for i in range(16)],
        nvlinks={pair: 6 for pair in pairs if pair[0] // size == pair[1] // size},
        pcie={pair: LinkClass.PIX for pair in pairs if pair[0] // 4 == pair[1] // 4},
        cpus_per_node=32 // node_count,
        nodes_per_socket=rng.choice([1, 2]),
    )


def full_occupancy(rng: random.Random, topology: Topology) -> Occupancy:
    """Return a state with nothing free: a few jobs of 2 to 8 GPUs, and 2 to 4 that hold CPUs only.

    Few enough that every set of victims can be tried, yet the GPU sets are those of a large host.
    """
    order = [gpu.index for gpu in topology.gpus]
    if rng.random() < 0.4:
        rng.shuffle(order)
    near = {node.id: list(node.cpus) for node in topology.numa_nodes}
    alike = rng.random() < 0.4
    levels = [100] if alike else [100, 100, 500]
    holders: list[Holder] = []
    while order:
        size = min(len(order), 4 if alike else rng.choice([2, 2, 4, 4, 8]))
        if len(holders) == 5:
            size = len(order)
        gpus = [order.pop() for _ in range(size)]
        cpus = []
        for i in gpus:
            pool = near[topology.gpus[i].numa_node or 0]
            cpus += [pool.pop() for _ in range(1 if alike else rng.randint(0, min(2, len(pool))))]
        work = 0 if alike else rng.choice([5, 10**9])
        holders.append(
            Holder(
                job=f"g{len(holders)}",
                priority=rng.choice(levels),
                gpus=sum(1 << i for i in gpus),
                cpus=CpuSet.of(cpus),
                work=work,
            )
        )
    rest = [cpu for pool in near.values() for cpu in pool]
    if rng.random() < 0.3:
        rng.shuffle(rest)  # jobs whose CPUs lie on several nodes
    count = rng.randint(2, 4)
    for number in range(count):
        cpus = rest[number * len(rest) // count : (number + 1) * len(rest) // count]
        if cpus:
            holders.append(Holder(job=f"c{number}", priority=rng.choice(levels), cpus=CpuSet.of(cpus)))
    rng.shuffle(holders)
    return Occupancy(holders=tuple(holders))


def with_gangs(rng: random.Random, occupancy: Occupancy) -> Occupancy:
    """Return the state with some of its jobs part of jobs over several hosts, and GPUs that others left."""
    some = rng.choice([0.3, 0.7, 1.0])
    holders = []
    for holder in occupancy.holders:
        size = rng.choice([2, 2, 3, 4]) if rng.random() < some else 1
        lost = rng.choice([0, (size - 1) * holder.gpus.bit_count(), 5]) if size > 1 else 0
        holders.append(replace(holder, stops=size, elsewhere=lost, work=holder.work * size))
    spoils = rng.getrandbits(8) & rng.getrandbits(8) if rng.random() < 0.5 else 0
    return replace(occupancy, holders=tuple(holders), spoils=spoils)


def with_rules(rng: random.Random, occupancy: Occupancy) -> Occupancy:
    """Return the state with what a site's rules add: disruption budgets, sometimes a quota or no victims at all."""
    names = ["a", "b", "c"][: rng.choice([1, 1, 2, 3])]
    many = 0.4 + 0.6 * rng.random()
    counted = {name: [h.job for h in occupancy.holders if rng.random() < many] for name in names}
    return replace(
        occupancy,
        holders=tuple(
            replace(h, budgets=tuple(name for name in names if h.job in counted[name]))
            for h in occupancy.holders
        ),
        budgets=tuple(
            Budget(name=name, stops=rng.choice([0, 1, 1, 1, 1, 2, 2, 3]), reason=f"{name} must keep some")
            for name in names
        ),
        room=Room(gpus=rng.randint(0, 4), reason="user ann is at her quota") if rng.random() < 0.08 else None,
        may_evict=rng.random() > 0.08,
        evict_reason="waits 28 s more",
    )
