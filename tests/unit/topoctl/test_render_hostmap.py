"""The map of a host as text."""

from topoctl.render.hostmap import HostMap, host_map, pinned, views
from topoctl.render.style import Style
from topod.discovery.library import host_names, load_library_host
from topod.model.cpuset import CpuSet
from topod.model.occupancy import Block, Holder, Occupancy
from topod.protocol.views import GpuView

OCCUPANCY = Occupancy(
    holders=(
        Holder(job="17", priority=1000, gpus=0b1001, cpus=CpuSet.parse("0-19,40-59")),
        Holder(job="18", priority=100, gpus=0b10000, cpus=CpuSet.parse("20-23")),
    ),
    blocks=(
        Block(reason="unhealthy: Xid 79", gpus=1 << 6),
        Block(reason="foreign: pid 4711 (bob)", gpus=1 << 7),
    ),
)
DGX1 = """\
dgx1
8 x Tesla V100-SXM2-32GB, 2 sockets, 2 NUMA nodes, 80 CPUs

socket 0
  NUMA 0  CPUs 0-19,40-59    0/40 free  ▮
    GPU0 ▮17 high   GPU1 ▯ free     GPU2 ▯ free     GPU3 ▮17 high

socket 1
  NUMA 1  CPUs 20-39,60-79  36/40 free  ▥
    GPU4 ▮18 low       GPU5 ▯ free        GPU6 ✗ unhealthy   GPU7 ✗ foreign

links    0   1   2   3   4   5   6   7
GPU0     - NV1 NV1 NV2 NV2 SYS SYS SYS
GPU1   NV1   - NV2 NV1 SYS NV2 SYS SYS
GPU2   NV1 NV2   - NV2 SYS SYS NV1 SYS
GPU3   NV2 NV1 NV2   - SYS SYS SYS NV1
GPU4   NV2 SYS SYS SYS   - NV1 NV1 NV2
GPU5   SYS NV2 SYS SYS NV1   - NV2 NV1
GPU6   SYS SYS NV1 SYS NV1 NV2   - NV2
GPU7   SYS SYS SYS NV1 NV2 NV1 NV2   -

GPU6 unhealthy: Xid 79
GPU7 foreign: pid 4711 (bob)

GPUs: ▮job priority, ▯ free; core groups: ▯ free, ▥ partly pinned, ▮ pinned
"""


def _map(name: str, occupancy: Occupancy | None = None) -> HostMap:
    topology = load_library_host(name).topology
    return HostMap(topology=topology, gpus=views(topology, occupancy), pinned=pinned(occupancy))


def test_the_map_of_a_dgx1_shows_holders_states_cpus_and_links() -> None:
    assert host_map(_map("dgx1", OCCUPANCY), Style()) == DGX1


def test_every_emulated_host_fits_80_columns() -> None:
    for name in host_names():
        for line in host_map(_map(name), Style()).splitlines():
            assert len(line) <= 80, (name, line)


def test_without_unicode_the_map_is_ascii_and_says_the_same() -> None:
    text = host_map(_map("dgx1", OCCUPANCY), Style(unicode=False))
    assert text.isascii()
    assert "GPU0 #17 high" in text
    assert "GPU6 ! unhealthy" in text


def test_equal_links_take_one_line() -> None:
    text = host_map(_map("dgx2"), Style())
    assert "links  NV6 between all GPUs\n" in text
    assert "GPU0   " not in text.split("links")[1]


def test_gpus_in_a_preemption_show_who_leaves_and_who_comes() -> None:
    topology = load_library_host("rtx3090x2").topology
    gpus = [
        GpuView(
            index=0, uuid="a", name="", numa_node=0, state="releasing", job=17, next_job=18, priority=100
        ),
        GpuView(
            index=1,
            uuid="b",
            name="",
            numa_node=0,
            state="reserved",
            job=18,
            priority=1000,
            reason="drained: fan",
        ),
    ]
    text = host_map(HostMap(topology=topology, gpus=gpus, notes=["drained: all"]), Style())
    assert "GPU0 ▮17→18 low" in text
    assert "GPU1 ▯→18 high" in text
    assert "\nGPU1 drained: fan\ndrained: all\n" in text


def test_jobs_of_arrays_have_the_names_that_the_command_line_takes() -> None:
    topology = load_library_host("rtx3090x2").topology
    leaving = GpuView(
        index=0,
        uuid="a",
        name="",
        numa_node=0,
        state="releasing",
        job=18,
        ident="17[1]",
        next_job=25,
        next_ident="21[4]",
        priority=100,
    )
    ill = GpuView(
        index=1, uuid="b", name="", numa_node=0, state="unhealthy", job=19, ident="17[2]", marks=["unhealthy"]
    )
    text = host_map(HostMap(topology=topology, gpus=[leaving, ill]), Style())
    assert "GPU0 ▮17[1]→21[4] low" in text
    assert "GPU1 ✗ unhealthy ▮17[2]" in text
