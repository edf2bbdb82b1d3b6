"""A host of a fleet as a line: tiles in their groups, free groups in words, filter and order."""

import pytest

from topod.coordinator.rows import kind_of
from topod.discovery.library import load_library_host
from topod.flextopo.tables import TopologyTables
from topod.protocol.views import BlockedGpus, FleetRow, FreeGroup, HeldGpus
from topotui.fleet_lines import columns_for, fits, fleet_words, line_of, order
from topotui.fleet_tiles import Layout, groups_text, layout_of

WHOLE = [FreeGroup("nvlink", 8, 1)]


def layout(host: str) -> Layout:
    return layout_of(kind_of(host, TopologyTables(load_library_host(host).topology)))


def row(name: str = "n1", **more: object) -> FleetRow:
    return FleetRow(**{"name": name, "state": "ready", "kind": "k", "gpus": 8, **more})  # type: ignore[arg-type]


def told(one: FleetRow, width: int, kind: str = "dgx1", now: float = 0.0) -> str:
    drawn = layout(kind)
    return "".join(
        segment.text for segment in line_of(one, {"k": drawn}, columns_for(width, 6, [drawn]), now)
    )


@pytest.mark.parametrize(
    ("host", "drawn"),
    [
        ("dgx1", "[0123][4567]"),
        ("dgx-a100", "[01|23|45|67]"),
        ("l40s-x8", "01 23|45 67"),
        ("rtx4090x8", "0|1|2|3|4|5|6|7"),
        ("a100-pcie-x4", "[01][23]"),
    ],
)
def test_brackets_join_what_nvlink_does_bars_part_nodes_and_gaps_switches(host: str, drawn: str) -> None:
    assert "".join(map(str, layout(host).parts)) == drawn


def test_each_gpu_has_a_letter_whoever_has_it() -> None:
    held = [
        HeldGpus("3", 1000, 0b11, 3),
        HeldGpus("4", 100, 0b100, 4),
        HeldGpus("5", 500, 0b1000, 5, "reserved"),
    ]
    blocked = [BlockedGpus("unhealthy", 1 << 4, "Xid 79"), BlockedGpus("reserved", 1 << 5, "kept for job 9")]
    one = row(held=held, blocked=blocked, free=[FreeGroup("nvlink", 2, 1)], jobs=3, waiting=1)
    line = told(one, 80)
    assert "[HHLn][✗k··]" in line
    assert "1x2 NVLink" in line
    assert " 3+1 " in line
    assert "GPU4 unhealthy: Xid 79"[:10] in line
    assert "[H3   H3   L4   n5   ][✗    k    ·    ·    ]" in told(one, 200)
    assert len(told(one, 80)) <= 80


def test_a_host_that_is_not_heard_of_shows_how_it_was_and_since_when() -> None:
    line = told(row(state="silent", heard_at=100.0, free=WHOLE), 120, now=112.4)
    assert "✗ silent" in line
    assert "[····][····]" in line.replace(" ", "")
    assert "not heard of for 12 s" in line
    assert "NVLink" not in line


def test_free_groups_in_words() -> None:
    groups = [FreeGroup("nvlink", 4, 2), FreeGroup("numa", 2, 1), FreeGroup("any", 1, 3)]
    assert groups_text(groups) == "2x4 NVLink, 1x2 NUMA, 3x1"


def test_lines_are_found_by_words_and_sorted_by_a_column() -> None:
    rows = {
        one.name: one
        for one in (
            row("gpu-10", labels={"rack": "b"}, free=[FreeGroup("nvlink", 2, 1)]),
            row(
                "gpu-9",
                labels={"rack": "a"},
                free=[FreeGroup("any", 1, 3)],
                held=[HeldGpus("12[3]", 500, 1, 14)],
            ),
            row("gpu-1", state="silent", labels={"rack": "a"}, heard_at=1.0),
        )
    }
    assert order(rows, "", "host", backwards=False) == ["gpu-1", "gpu-9", "gpu-10"]
    assert order(rows, "rack=a ready", "host", backwards=False) == ["gpu-9"]
    assert order(rows, "", "state", backwards=False) == ["gpu-1", "gpu-9", "gpu-10"]
    assert order(rows, "", "free", backwards=False) == ["gpu-9", "gpu-10", "gpu-1"]
    assert order(rows, "", "group", backwards=False) == ["gpu-10", "gpu-9", "gpu-1"]
    assert order(rows, "", "host", backwards=True) == ["gpu-10", "gpu-9", "gpu-1"]
    assert fits(rows["gpu-9"], ["job:12[3]"])
    assert not fits(rows["gpu-9"], ["job:12"])


def test_the_first_line_counts_what_takes_jobs() -> None:
    rows = {
        one.name: one
        for one in (row("a", free=WHOLE), row("b", free=WHOLE), row("c", state="drained", free=WHOLE))
    }
    assert fleet_words(rows) == ("3 hosts: 1 drained, 2 ready · 16/16 GPUs free", "2x8 NVLink")
