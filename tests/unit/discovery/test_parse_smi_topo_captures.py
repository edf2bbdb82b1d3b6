"""Every capture beside the checkout: read whole as its manifest says, or refused on purpose."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.shared import SHARED, needs_shared
from topod.discovery.parse_smi_topo import Matrix, parse_matrix
from topod.errors import DataError

pytestmark = [needs_shared, pytest.mark.shared]

TOPO = SHARED / "topo"
_MANIFEST = TOPO / "MANIFEST.jsonl"
ROWS: dict[str, dict[str, Any]] = (
    {row["file"]: row for row in map(json.loads, _MANIFEST.read_text().splitlines())}
    if _MANIFEST.is_file()
    else {}
)
WHOLE = [file for file in ROWS if "/" not in file]

# Damaged or doubtful captures that can still be read whole
READABLE = {
    "malformed/2x3090-node-markdown-viewer-reflow.txt",
    "malformed/4xh200nvl-nv6-annotated.txt",
    "malformed/gb10-1gpu-4nics-head2.txt",
    "fixtures/nvme-combined-matrix.txt",
    "fixtures/nvme-split-table-ansi.txt",
    "fixtures/nvme-split-table-nic-legend-between.txt",
    "fixtures/nvsentinel-gb200-4gpu-6mlx5.txt",
    "fixtures/nvsentinel-h100-8gpu-10mlx5.txt",
    "fixtures/nvsentinel-oci-4gpu-4nics.txt",
    "fixtures/nvsentinel-out-of-order-rows.txt",
    "fixtures/nvsentinel-preamble-line.txt",
    "fixtures/nvsentinel-wrapped-header.txt",
}
REFUSED = {
    "malformed/8xh800-nv8-4nics-cut-columns.txt": ":11:1: NIC0 has a row but no column",
    "malformed/8xrtxpro6000-pix-node-sys-annotated.txt": ":3:59: GPU0 has a cell that no column is for: 'NUMA'",
    "malformed/collect-env-could-not-collect.txt": ":2:1: no matrix, but a message: 'Could not collect'",
    "malformed/dgx-h100-talos-12nics-head-cut.txt": ":15:97: no row for NIC6, NIC7, NIC8 after this one",
    "malformed/nvml-driver-library-mismatch.txt": ":1:1: no matrix, but a message: 'Failed to initialize NVML",
    "malformed/topo-m-with-i-flag-error.txt": ":1:1: no matrix, but a message: 'The -i command line argument",
    "fixtures/nvsentinel-glued-nic-labels.txt": ":2:76: GPU0 has 6 link cells where the header names 7 devices",
    "partial/8xa100-nv12-18nics-odd-gaps-partial.txt": ":5:252: no row for GPU4 and 3 more",
    "partial/8xh20-class-nv18-26nics-partial.txt": ":5:171: no row for GPU4 and 3 more",
    "partial/b200-8gpu-gpu2-off-nvlink-noheader-partial.txt": ":1:1: rows of a matrix without the header line",
    "partial/b200-8gpu-nv18-13nics-glued-header-partial.txt": ":5:202: no row for GPU4 and 3 more",
    "partial/dgx2-16xv100-nv6-10mlx5-partial.txt": ":6:227: no row for GPU4 and 11 more",
    "partial/gb200-4gpu-nv18-6nics-partial.txt": ":4:123: no row for GPU3 after this one",
}


def _read(file: str) -> Matrix:
    return parse_matrix((TOPO / file).read_bytes().decode(), Path(file).name)


@pytest.mark.parametrize("file", [*WHOLE, *sorted(READABLE)])
def test_a_capture_is_read_as_its_manifest_says(file: str) -> None:
    matrix, row = _read(file), ROWS[file]
    assert len(matrix.gpus) == row["gpus"]
    # the manifest counts no NICs where it looked at a wrapped header
    assert len(matrix.nics) == (2 if file.endswith("wrapped-header.txt") else row["nics"])
    found = {
        token
        for rows in (matrix.links, matrix.nic_links, matrix.nic_rows)
        for cells in rows
        for token in cells
    }
    beside = "nvme" in file  # the NVMe columns are left out
    wanted = {"SYS" if token == "SOC" else token for token in row["links"]} | {"X"}
    assert found <= wanted if beside else found == wanted
    if file.endswith("wrapped-header.txt"):
        return  # nor did it look for its affinity columns
    headings = row["columns"]
    assert all(gpu.gpu_numa_id_text is not None for gpu in matrix.gpus) == ("GPU NUMA ID" in headings)
    if "NUMA Affinity" not in headings:
        assert all(gpu.numa_text is None for gpu in matrix.gpus)


@pytest.mark.parametrize(
    ("file", "cpus", "numa"),
    [
        ("4xa100-nv4-3nics-blank-cpu-affinity.txt", ["0", "0", None, None], [0, 0, 1, 1]),
        ("2xa100-sxm-nv12-8nics-blank-affinity.txt", [None, None], [None, None]),
        ("4xh800-nv8-17nics-blank-affinity.txt", [None] * 4, [None] * 4),
        ("1gpu-wsl-or-no-affinity-blank.txt", [None], [None]),
        ("2x3090-sys-mixed-numa-na-x399.txt", ["0-7,16-23", "8-15,24-31"], [None, 1]),
        (
            "polaris-4xa100-nv4-2mlx5-broken-header.txt",
            ["24-31,56-63", "16-23,48-55", "8-15,40-47", "0-7,32-39"],
            [3, 2, 1, 0],
        ),
        ("gh200-4gpu-nv6-numa-lists.txt", ["0-71", "72-143", "144-215", "216-287"], [None] * 4),
        ("delta-4xa100-nv4-1mlx5-comment-prefix.txt", ["48-63", "32-47", "16-31", "0-15"], [3, 2, 1, 0]),
        ("8xv100-vm-nv1nv2-phb-numa-range.txt", ["0-63"] * 8, [None] * 8),
        ("power9-ac922-4xv100-nv3-4mlx5.txt", ["0-63", "0-63", "64-127", "64-127"], [0, 0, 8, 8]),
        ("8xrtx4090-sys-8numa-254.txt", None, [3, 2, 1, 0, 7, 6, 5, 4]),
        ("2gpu-sys-4nic-columns-nic-rows-missing.txt", ["0,2,4,6,8,10", "1,3,5,7,9,11"], [0, 1]),
    ],
)
def test_affinity_cells_go_to_their_columns(
    file: str, cpus: list[str | None] | None, numa: list[int | None]
) -> None:
    matrix = _read(file)
    assert [gpu.numa_node for gpu in matrix.gpus] == numa
    if cpus is not None:
        assert [gpu.cpus for gpu in matrix.gpus] == cpus


@pytest.mark.parametrize(("file", "message"), REFUSED.items())
def test_a_damaged_capture_is_refused_where_it_is_damaged(file: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        _read(file)
    assert caught.value.message.startswith(Path(file).name + message)


@pytest.mark.parametrize("file", [file for file in ROWS if file.startswith(("p2p/", "rocm/"))])
def test_the_output_of_another_command_is_named(file: str) -> None:
    named = "`nvidia-smi topo -p2p`" if file.startswith("p2p/") else "`rocm-smi`"
    with pytest.raises(DataError, match=f"this is the output of {named}, not of `nvidia-smi topo -m`"):
        _read(file)


def test_every_capture_is_covered_here() -> None:
    others = {file for file in ROWS if "/" in file and not file.startswith(("p2p/", "rocm/"))}
    assert others == READABLE | set(REFUSED)
