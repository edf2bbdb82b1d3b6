from pathlib import Path

import pytest

from fixtures.builders import Machine
from fixtures.machines import MACHINES
from topod.discovery import library
from topod.discovery.library import host_names, load_library_host
from topod.errors import DataError, NotFoundError


def test_every_emulated_host_can_be_named() -> None:
    assert host_names() == tuple(sorted(machine.name for machine in MACHINES))


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_a_name_loads_the_host_of_that_name(machine: Machine) -> None:
    topology = load_library_host(machine.name).topology
    assert topology.name == machine.name
    assert topology.emulated
    assert len(topology.gpus) == len(machine.gpus)


def test_a_path_loads_the_document_at_that_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes((library._folder() / "dgx1.json").read_bytes())
    assert load_library_host(path) == load_library_host("dgx1")
    assert load_library_host(str(path)) == load_library_host("dgx1")


def test_a_name_wins_over_a_file_and_a_dot_slash_means_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dgx1").write_text("not a host", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_library_host("dgx1").topology.name == "dgx1"
    with pytest.raises(DataError):
        load_library_host("./dgx1")


@pytest.mark.parametrize(
    ("wanted", "nearest"), [("dgx-1", "dgx1"), ("H100", "hgx-h100"), ("rtx4090", "rtx4090x8")]
)
def test_an_unknown_name_is_refused_with_the_names_and_the_nearest_one(wanted: str, nearest: str) -> None:
    with pytest.raises(NotFoundError, match=wanted) as refusal:
        load_library_host(wanted)
    assert refusal.value.hint is not None
    assert refusal.value.hint.startswith(f"did you mean {nearest}? ")
    assert all(name in refusal.value.hint for name in host_names())


def test_a_name_like_none_gets_no_suggestion() -> None:
    with pytest.raises(NotFoundError) as refusal:
        load_library_host("zzzzzz")
    assert refusal.value.hint == f"emulated hosts: {', '.join(host_names())}"


@pytest.mark.parametrize("path", ["missing/host", "missing.json", "/"])
def test_a_path_that_is_no_file_is_called_a_file(path: str) -> None:
    with pytest.raises(NotFoundError, match="no such host file"):
        load_library_host(path)


def test_the_documents_of_an_installed_wheel_come_before_those_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only.json").write_bytes((library._folder() / "one-gpu.json").read_bytes())
    monkeypatch.setattr(library, "_FOLDERS", (tmp_path, *library._FOLDERS))
    assert host_names() == ("only",)
    assert load_library_host("only").topology.name == "one-gpu"


def test_without_any_documents_the_refusal_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_FOLDERS", (tmp_path / "none",))
    with pytest.raises(NotFoundError) as refusal:
        load_library_host("dgx1")
    assert (
        refusal.value.hint == "no emulated hosts are installed; give the path of a host document or a matrix"
    )
