"""Random hosts and occupancies with every field in use."""

import itertools

from hypothesis import strategies as st

from topod.model.cpuset import CpuSet
from topod.model.links import Link, LinkClass
from topod.model.occupancy import Block, Holder, Occupancy
from topod.model.topology import Core, CoreGroup, Fact, Gpu, Nic, NumaNode, Socket, Topology

words = st.text(max_size=12)
numbers = st.integers(0, 2**53)
cpu_sets = st.frozensets(st.integers(0, 200), max_size=12).map(CpuSet.of)
links = st.one_of(
    st.sampled_from([kind for kind in LinkClass if kind is not LinkClass.NVLINK]).map(Link),
    st.integers(1, 18).map(lambda lanes: Link(LinkClass.NVLINK, lanes)),
)


@st.composite
def gpus(draw: st.DrawFn, index: int, nodes: int) -> Gpu:
    cpus = draw(st.none() | cpu_sets)
    text = draw(
        st.sampled_from([None, "0-3", "0,2,4,6,8,10", "0-0,8-8", "N/A", "" if cpus is None else str(cpus)])
    )
    return Gpu(
        index=index,
        uuid=f"GPU-{draw(words)}-{index}",
        name=draw(words),
        pci_address=draw(st.none() | words),
        memory_bytes=draw(st.none() | numbers),
        numa_node=draw(st.none() | st.integers(0, nodes - 1)),
        cpus=cpus,
        cpus_text=text,
    )


def disjoint(draw: st.DrawFn) -> list[tuple[int, CpuSet]]:
    cpus = draw(st.permutations(range(12)))
    cuts = sorted(draw(st.lists(st.integers(0, 12), max_size=4)))
    ends = [0, *cuts, 12]
    return [(n, CpuSet.of(cpus[a:b])) for n, (a, b) in enumerate(itertools.pairwise(ends))]


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    count, nics = draw(st.integers(0, 5)), draw(st.integers(0, 3))
    nodes = disjoint(draw)
    upper = {(i, j): draw(links) for i in range(count) for j in range(i)}
    return Topology(
        name=draw(words),
        gpus=tuple(draw(gpus(index, len(nodes))) for index in range(count)),
        links=tuple(
            tuple(None if i == j else upper[max(i, j), min(i, j)] for j in range(count)) for i in range(count)
        ),
        nics=tuple(
            Nic(
                name=f"NIC{n}",
                device=draw(st.none() | words),
                pci_address=draw(st.none() | words),
                numa_node=draw(st.none() | st.integers(0, 3)),
            )
            for n in range(nics)
        ),
        nic_links=draw(
            st.just(())
            | st.tuples(*[st.tuples(*[st.none() | links for _ in range(nics)]) for _ in range(count)])
        ),
        sockets=tuple(Socket(id=n, cpus=cpus) for n, cpus in disjoint(draw)),
        numa_nodes=tuple(
            NumaNode(id=n, cpus=cpus, memory_bytes=draw(st.none() | numbers), distances=((0, 10), (1, 21)))
            for n, cpus in nodes
        ),
        core_groups=tuple(CoreGroup(id=n, cpus=cpus) for n, cpus in disjoint(draw)),
        cores=tuple(Core(id=n, cpus=cpus) for n, cpus in disjoint(draw)),
        emulated=draw(st.booleans()),
        facts=tuple(
            Fact(subject=draw(words), source=draw(words), disagrees=(draw(words),)) for _ in range(2)
        ),
    )


@st.composite
def occupancies(draw: st.DrawFn, count: int) -> Occupancy:
    owners = [draw(st.integers(0, 4)) for _ in range(count)]
    masks = [sum(1 << gpu for gpu, owner in enumerate(owners) if owner == who) for who in range(5)]
    holders = tuple(
        Holder(
            job=f"job {n}",
            priority=draw(st.integers(-5, 2000)),
            gpus=masks[n],
            cpus=CpuSet.of(range(n * 10, n * 10 + draw(st.integers(0, 9)))),
            evictable=draw(st.booleans()),
            protection=draw(words),
            work=draw(numbers),
        )
        for n in range(4)
    )
    block = Block(reason=draw(words), gpus=masks[4], cpus=draw(cpu_sets))
    return Occupancy(holders=holders, blocks=(block,) if draw(st.booleans()) else ())
