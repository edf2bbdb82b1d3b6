"""The reader stays inside its tree and its bounds, whatever lies there."""

import os
from pathlib import Path

import pytest

from topod.adapters import sysfs_reader
from topod.adapters.sysfs_reader import MAX_FILE_BYTES, read_sysfs, this_machine
from topod.errors import ProbeError

CPU = "sys/devices/system/cpu"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for number in (0, 1):
        (root / CPU / f"cpu{number}" / "topology").mkdir(parents=True)
    (root / CPU / "online").write_bytes(b"0-1\n\0\0\0")
    return root


def test_nul_bytes_at_the_end_of_a_file_are_dropped(tree: Path) -> None:
    assert read_sysfs(tree).files[f"{CPU}/online"] == "0-1"


def test_a_link_out_of_the_tree_is_not_followed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("0")
    (tree / CPU / "cpu0" / "online").symlink_to(tmp_path / "secret")
    (tree / CPU / "cpu1" / "online").symlink_to("../../../../../../secret")
    raw = read_sysfs(tree)
    assert f"{CPU}/cpu0/online" not in raw.files
    assert f"{CPU}/cpu1/online" not in raw.files
    assert f"{CPU}/cpu0/online not read: it leads out of the tree" in raw.skipped


def test_a_folder_that_leads_out_of_the_tree_is_empty(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "root-of-another" / "node0"
    outside.mkdir(parents=True)
    (outside / "cpulist").write_text("0")
    (tree / "sys/devices/system/node").symlink_to(outside.parent)
    raw = read_sysfs(tree)
    assert "sys/devices/system/node" not in raw.folders
    assert not [path for path in raw.files if "node" in path]


def test_a_link_inside_of_the_tree_is_followed(tree: Path) -> None:
    (tree / CPU / "cpu0" / "off").write_text("0")
    (tree / CPU / "cpu1" / "online").symlink_to("../cpu0/off")
    assert str(this_machine(tree).offline) == "1"


def test_links_in_a_circle_are_missing_files(tree: Path) -> None:
    (tree / CPU / "cpu1" / "online").symlink_to("online")
    assert str(this_machine(tree).online) == "0-1"


def test_a_pipe_in_the_place_of_a_file_does_not_hang_the_reader(tree: Path) -> None:
    os.mkfifo(tree / CPU / "cpu0" / "online")
    (tree / CPU / "cpu1" / "online").mkdir()
    assert not [path for path in read_sysfs(tree).files if path.endswith("/online") and "cpu/cpu" in path]
    assert str(this_machine(tree).online) == "0-1"


def test_a_file_beyond_the_bound_is_not_read_and_is_named(tree: Path) -> None:
    (tree / "proc").mkdir()
    (tree / "proc/meminfo").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    raw = read_sysfs(tree)
    assert "proc/meminfo" not in raw.files
    assert raw.skipped == (f"proc/meminfo not read: larger than {MAX_FILE_BYTES} bytes",)


@pytest.mark.parametrize(("bound", "value"), [("MAX_FILES", 0), ("MAX_BYTES", -1)])
def test_a_tree_beyond_all_bounds_is_an_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr(sysfs_reader, bound, value)
    with pytest.raises(ProbeError, match="sysfs is larger than"):
        read_sysfs(tree)


def test_a_folder_with_too_many_names_is_an_error(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysfs_reader, "MAX_NAMES", 2)
    with pytest.raises(ProbeError, match="has 3 entries"):
        read_sysfs(tree)


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_root_that_is_no_folder_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProbeError, match="not a folder"):
        this_machine(tmp_path / name)


def test_an_empty_root_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="no online CPU") as caught:
        this_machine(tmp_path)
    assert caught.value.hint == "is sysfs mounted at /sys?"


def test_the_machine_of_this_test_has_the_cpus_that_python_may_use() -> None:
    facts = this_machine()
    assert os.sched_getaffinity(0) <= set(facts.online)
    assert sum(len(core.cpus) for core in facts.cores) == len(facts.online)
