"""The picture of a machine, as text."""

import pytest
from rich.cells import cell_len

from tests.unit.topotui.hosts import hold, picture_of, reading, without_gpus
from topod.model.cpuset import CpuSet
from topod.model.links import LinkClass
from topod.protocol.views import GpuView, HostNow
from topotui.blocks import text_of
from topotui.cores import core_map, holders
from topotui.islands import island_lines, islands, switches
from topotui.links import matrix
from topotui.machine import machine
from topotui.picture import Picture
from topotui.tiles import Marks

HOSTS = ["dgx1", "dgx2", "dgx-a100", "hgx-h100", "rtx4090x8", "a100-pcie-x4", "l40s-x8", "ac922", "gh200", "one-gpu"]  # fmt: skip


def drawn(picture: Picture, width: int = 78, height: int = 19, marks: Marks | None = None) -> str:
    return machine(picture, width, height, marks or Marks()).plain


def test_a_pair_of_gpus_with_a_bridge_and_a_job_on_one() -> None:
    picture = picture_of("rtx3090x2")
    hold(picture, 7, "fine-tune", [1], priority=1000, cpus="0-1,6")
    picture.readings[1] = reading(1, 87, 12, 61)
    assert drawn(picture, 60, 0).splitlines() == [
        "━━ socket 0 " + "━" * 48,
        " NUMA 0  CPUs 0-23  21 of 24 free  64 GiB",
        " ▥▥▯▯▯▯ ▥▯▯▯▯▯",
        " ┌─ GPU0 ───── A ─┐ ┌─ GPU1 ───── A ─┐",
        " │▯ free          │ │▮ 7 high fine-t…│",
        " │24 GiB          │ │87% 12/80G 61°  │",
        " └─────────── ok ─┘ └─────────── ok ─┘",
        "NVLink A  GPUs 0-1: a pair, NV4",
    ]


def test_where_there_is_room_tiles_are_large_and_islands_are_underlined() -> None:
    picture = picture_of("rtx3090x2")
    hold(picture, 7, "fine-tune", [1], priority=1000)
    picture.readings[1] = reading(1, 50, 20, 61)
    assert drawn(picture, 60, 30).splitlines()[3:10] == [
        " ┌─ GPU0 ───────── A ─┐ ┌─ GPU1 ───────── A ─┐",
        " │▯ free              │ │▮ 7 high            │",
        " │                    │ │  fine-tune         │",
        " │24 GiB              │ │████░░░░  50%   61°C│",
        " │                    │ │██░░░░░░ 20/80G     │",
        " └─────────────── ok ─┘ └─────────────── ok ─┘",
        " ╘══════════════ NVLink A NV4 ═══════════════╛",
    ]


@pytest.mark.parametrize("width", [78, 97])
@pytest.mark.parametrize("host", HOSTS)
def test_every_gpu_nic_and_node_is_drawn_and_nothing_is_wider_than_the_screen(host: str, width: int) -> None:
    picture = picture_of(host)
    assert picture.topology is not None
    for height in (0, 45):
        lines = drawn(picture, width, height).splitlines()
        words = " ".join(lines).split()
        assert max(cell_len(line) for line in lines) <= width
        assert {f"GPU{gpu.index}" for gpu in picture.topology.gpus} <= {*words}
        assert {nic.name for nic in picture.topology.nics} <= {*words}
        assert [line.count("NUMA ") for line in lines if "NUMA " in line]
    maps = text_of(core_map(picture.topology, [], {}, width)).plain
    assert max(cell_len(line) for line in maps.splitlines()) <= width
    assert maps.split("letter: a job")[0].count("·") == len(picture.topology.cores)
    links = text_of(matrix(picture.topology, width)).plain
    assert max(cell_len(line) for line in links.splitlines()) <= width


def test_a_host_without_gpus_shows_its_cores() -> None:
    picture = picture_of(without_gpus("one-gpu"))
    assert drawn(picture).splitlines()[1:] == [
        " NUMA 0  CPUs 0-31  32 of 32 free  64 GiB",
        " ▯▯▯▯▯▯▯▯ ▯▯▯▯▯▯▯▯",
        "no GPUs",
    ]
    assert picture.topology is not None
    assert text_of(matrix(picture.topology, 80)).plain == "no GPUs, no links"


def test_a_plan_shows_what_it_takes_and_whom_it_stops_by_signs() -> None:
    picture = picture_of("a100-pcie-x4")
    hold(picture, 3, "eval", [0, 1], priority=100)
    marks = Marks(taken=frozenset({0}), stopped=frozenset({0, 1}), cpus=CpuSet.parse("0-1"))
    text = drawn(picture, 78, 0, marks)
    assert "╔═ GPU0 ★ ═══ A ═╗ ┌─ GPU1 ───── A ─┐" in text
    assert "╔═ GPU0 ★ takes ═ A ═╗" in drawn(picture, 97, 45, marks)
    assert text.count("✗ stops 3 low") == 2
    assert " ★★▯▯" in text
    assert text.endswith("★ what the job takes   ✗ stopped for it")


def test_what_is_wrong_with_a_gpu_is_said_on_its_tile_and_below() -> None:
    picture = picture_of("a100-pcie-x4")
    picture.gpus[2] = GpuView(
        index=2,
        uuid="x",
        name="",
        numa_node=1,
        state="unhealthy",
        marks=["unhealthy"],
        reason="unhealthy: MIG mode is on",
    )
    picture.readings[3] = reading(3, 99, 70, 91, slowdown="heat")
    text = drawn(picture, 78, 0)
    assert "│✗ unhealthy     │" in text
    assert "└─────── ! slow ─┘" in text
    assert "✗ GPU2 unhealthy: MIG mode is on\n! GPU3 is slowed down: heat" in text


def test_names_of_others_cannot_steer_the_terminal_and_wide_letters_keep_the_frame() -> None:
    picture = picture_of("one-gpu")
    hold(picture, 1, "\x1b[2J学習ジョブの名前", [0])
    lines = drawn(picture, 78, 0).splitlines()
    tile = [line for line in lines if "│" in line]
    assert len(tile) == 2
    assert {cell_len(line) for line in tile} == {19}
    assert "\x1b" not in "".join(lines)


def test_the_islands_of_a_cube_mesh_of_nvswitch_and_of_bridges() -> None:
    def told(host: str) -> list[str]:
        topology = picture_of(host).topology
        assert topology is not None
        return island_lines(topology)

    assert told("dgx1") == [
        "NVLink A  GPUs 0-3: each to each, NV1 and NV2",
        "NVLink B  GPUs 4-7: each to each, NV1 and NV2",
        "NVLink A to B  0-4 NV2, 1-5 NV2, 2-6 NV1, 3-7 NV1",
    ]
    assert told("dgx2") == ["NVLink A  GPUs 0-15: each to each through NVSwitch, NV6"]
    assert told("hgx-h100") == ["NVLink A  GPUs 0-7: each to each through NVSwitch, NV18"]
    assert told("ac922") == ["NVLink A  GPUs 0-1: a pair, NV3", "NVLink B  GPUs 2-3: a pair, NV3"]
    assert told("rtx4090x8") == []


def test_a_nic_shows_which_gpus_share_its_switch_also_where_nvlink_hides_it() -> None:
    topology = picture_of("dgx1").topology
    assert topology is not None
    assert [(one.gpus, one.nics) for one in switches(topology, LinkClass.PIX)] == [
        ((0, 1), ("mlx5_0",)),
        ((2, 3), ("mlx5_1",)),
        ((4, 5), ("mlx5_2",)),
        ((6, 7), ("mlx5_3",)),
    ]
    assert len(islands(topology)) == 2


def test_the_matrix_of_16_gpus_is_whole_on_80_columns() -> None:
    topology = picture_of("dgx2").topology
    assert topology is not None
    lines = text_of(matrix(topology, 78)).plain.splitlines()
    assert lines[0].split() == ["GPU", *map(str, range(16))]
    assert lines[16].split() == ["GPU15", *["NV6"] * 15, "·"]


def test_classes_are_shortened_before_columns_go_below() -> None:
    topology = picture_of("l40s-x8").topology
    assert topology is not None
    wide, narrow, tiny = (text_of(matrix(topology, width)).plain.splitlines() for width in (78, 40, 30))
    assert wide[1].split() == ["GPU0", "·", "PIX", "NODE", "NODE", "SYS", "SYS", "SYS", "SYS"]
    assert narrow[1].split() == ["GPU0", "·", "PIX", "NOD", "NOD", "SYS", "SYS", "SYS", "SYS"]
    assert tiny[0].split() == ["GPU", "0", "1", "2", "3", "4", "5"]
    assert tiny[10].split() == ["GPU", "6", "7"]


def test_the_map_of_cores_names_each_holder_by_a_letter_that_no_island_has() -> None:
    picture = picture_of("rtx3090x2")
    hold(picture, 4, "train", [0], priority=1000, cpus="0-2,12-13")
    hold(picture, 5, "notebook", [1], priority=100)
    hold(picture, 6, "etl", [], priority=100, cpus="14")
    picture.about = HostNow(foreign_cpus={"5": "pid 4711 (stress)"})
    assert picture.topology is not None
    foreign = picture.about.foreign_cpus
    text = text_of(core_map(picture.topology, picture.running(), foreign, 78)).plain
    assert "   0-5,12-17  BB+··!  6-11,18-23 ······" in text
    assert "17 of 24 free" in text
    known = picture.topology, picture.running(), foreign
    assert text_of(holders(*known, letters=True)).plain.splitlines() == [
        "B job 4     train            high    GPU 0         CPUs 0-2,12-13",
        "  job 5     notebook         low     GPU 1         CPUs shared",
        "C job 6     etl              low     no GPUs       CPUs 14",
        "! foreign: pid 4711 (stress)  CPUs 5",
    ]
    without = text_of(holders(*known, letters=False)).plain
    assert "job 4     train            high    GPU 0         CPUs 0-2,12-13" in without.splitlines()


def test_nodes_without_gpus_stand_below_those_with_gpus_in_the_same_columns() -> None:
    lines = drawn(picture_of("dgx-a100"), 78, 0).splitlines()
    assert [" ".join(line.split()) for line in lines if "NUMA" in line][:2] == [
        "NUMA 1 32/32 free NUMA 3 32/32 free",
        "NUMA 0 32/32 free NUMA 2 32/32 free",
    ]
    assert {line.index("NUMA", 5) for line in lines if "NUMA" in line} == {39}
