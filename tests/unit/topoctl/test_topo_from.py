"""`topoctl topo --from` and `plan --batch` as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MATRIX = "\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \tNV4\tPIX\t0-3\t0\nGPU1\tNV4\t X \tSYS\t0-3\t0\n"


def _topoctl(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "topoctl", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    file = tmp_path / "box.txt"
    file.write_text(MATRIX)
    return file


def test_the_exported_document_is_a_host_again(capture: Path, tmp_path: Path) -> None:
    first = _topoctl("topo", "--from", str(capture), "-o", "json")
    assert (first.returncode, first.stderr) == (0, "")
    document = json.loads(first.stdout)
    assert (len(document["gpus"]), document["nics"], document["links"][0]) == (2, ["NIC0"], ["X", "NV4"])
    (tmp_path / "box.json").write_text(first.stdout)
    assert _topoctl("topo", "--from", str(tmp_path / "box.json"), "-o", "json").stdout == first.stdout


def test_a_damaged_matrix_ends_with_65_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text(MATRIX.replace("NV4\t X ", "NV3\t X "))
    result = _topoctl("topo", "--from", str(tmp_path / "bad.txt"), "-o", "json")
    assert result.returncode == 65
    assert result.stdout == ""
    assert (
        result.stderr == f"error: {tmp_path / 'bad.txt'}:3:6: GPU1 to GPU0 is NV3 but GPU0 to GPU1 is NV4\n"
    )


def test_the_table_shows_links_places_and_groups(capture: Path) -> None:
    lines = _topoctl("topo", "--from", "-", stdin=capture.read_text()).stdout.splitlines()
    assert lines[0] == "stdin: 2 GPUs, 1 NIC, 1 NUMA node, 4 CPUs"
    assert lines[2].split() == ["GPU0", "GPU1", "NIC0", "NUMA", "CPUs"]
    assert lines[3].split() == ["GPU0", "X", "NV4", "PIX", "0", "0-3"]
    assert [line.split() for line in lines[6:]] == [["NVLink", "groups", "0-1"], ["NUMA", "groups", "0-1"]]


def test_the_graph_lists_nodes_and_edges(capture: Path) -> None:
    graph = json.loads(_topoctl("topo", "--from", str(capture), "-o", "graph").stdout)
    assert {"key": "nic0", "kind": "nic", "name": "NIC0"} in graph["nodes"]
    assert {"kind": "link", "from": "gpu0", "to": "gpu1", "link": "NVLINK", "nvlinks": 4} in graph["edges"]


def test_a_batch_answers_every_line_and_ends_with_1_if_one_was_bad(capture: Path) -> None:
    good = json.dumps({"id": "a", "host": "box.txt", "jobs": [], "request": {"gpus": 2, "priority": 1}})
    file = capture.with_name("questions.jsonl")
    file.write_text(f"{good}\n\n{good}\n")
    result = _topoctl("plan", "--batch", str(file))
    assert (result.returncode, len(result.stdout.splitlines())) == (0, 2)
    result = _topoctl("plan", "--batch", "-", stdin="oops\n")
    assert result.returncode == 1
    assert "error" in json.loads(result.stdout)
    assert _topoctl("plan", "--batch", str(capture.with_name("none"))).returncode == 4
