"""The graph of a host: nodes, containment, locality and links."""

from topod.flextopo.graph import Edge, EdgeKind, NodeKind, graph
from topod.model.cpuset import CpuSet
from topod.model.links import Link, LinkClass
from topod.model.topology import Core, CoreGroup, Gpu, Nic, NumaNode, Socket, Topology


def _cpus(text: str) -> CpuSet:
    return CpuSet.parse(text)


HOST = Topology(
    name="h",
    gpus=(Gpu(index=0, uuid="GPU-a", numa_node=0), Gpu(index=1, uuid="GPU-b")),
    links=((None, Link(LinkClass.NVLINK, 4)), (Link(LinkClass.NVLINK, 4), None)),
    nics=(Nic(name="mlx5_0", numa_node=1),),
    nic_links=((Link(LinkClass.PIX),), (None,)),
    sockets=(Socket(id=0, cpus=_cpus("0-7")),),
    numa_nodes=(
        NumaNode(id=0, cpus=_cpus("0-3")),
        NumaNode(id=1, cpus=_cpus("4-7")),
        NumaNode(id=2, cpus=_cpus("")),
    ),
    core_groups=(CoreGroup(id=0, cpus=_cpus("0-3")), CoreGroup(id=4, cpus=_cpus("4-7"))),
    cores=tuple(Core(id=n, cpus=_cpus(f"{2 * n}-{2 * n + 1}")) for n in range(4)),
)


def _contained(topology: Topology) -> set[tuple[str, str]]:
    return {(edge.start, edge.end) for edge in graph(topology).edges if edge.kind is EdgeKind.CONTAINS}


def test_every_node_hangs_below_the_nearest_thing_around_it() -> None:
    assert _contained(HOST) == {
        ("socket0", "numa0"),
        ("socket0", "numa1"),
        ("numa0", "core-group0"),
        ("numa1", "core-group4"),
        *((f"core-group{n // 2 * 4}", f"core{n}") for n in range(4)),
        *((f"core{n // 2}", f"cpu{n}") for n in range(8)),
    }


def test_an_l3_cache_across_numa_nodes_keeps_cores_below_both() -> None:
    wide = Topology(
        name="h",
        gpus=(),
        links=(),
        sockets=HOST.sockets,
        numa_nodes=HOST.numa_nodes[:2],
        core_groups=(CoreGroup(id=0, cpus=_cpus("0-7")),),
        cores=HOST.cores,
    )
    edges = _contained(wide)
    assert ("socket0", "core-group0") in edges
    assert {("core-group0", "core0"), ("numa0", "core0"), ("numa1", "core3")} <= edges
    assert ("socket0", "core0") not in edges


def test_devices_are_local_to_known_numa_nodes_only() -> None:
    local = {(edge.start, edge.end) for edge in graph(HOST).edges if edge.kind is EdgeKind.LOCAL}
    assert local == {("numa0", "gpu0"), ("numa1", "nic0")}


def test_links_carry_their_class_and_the_number_of_nvlinks_once() -> None:
    links = [edge for edge in graph(HOST).edges if edge.kind is EdgeKind.LINK]
    assert links == [
        Edge(kind=EdgeKind.LINK, start="gpu0", end="gpu1", link=LinkClass.NVLINK, nvlinks=4),
        Edge(kind=EdgeKind.LINK, start="gpu0", end="nic0", link=LinkClass.PIX),
    ]


def test_nodes_have_unique_keys_and_gpus_are_named_by_uuid() -> None:
    nodes = graph(HOST).nodes
    assert len({node.key for node in nodes}) == len(nodes)
    assert [node.name for node in nodes if node.kind is NodeKind.GPU] == ["GPU-a", "GPU-b"]
    assert [node.kind for node in nodes].count(NodeKind.CPU) == 8
