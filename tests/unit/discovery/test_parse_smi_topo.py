"""What the reader does with single forms and single damages; the property tests cover their combinations."""

import pytest

from topod.discovery.parse_smi_topo import parse_matrix
from topod.errors import DataError

TWO = "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"


def test_a_numa_node_is_never_taken_for_cpus_when_the_cpu_cell_is_blank() -> None:
    matrix = parse_matrix(TWO + "GPU0\t X \tNV4\t\t1\t\tN/A\nGPU1\tNV4\t X \t0-3\t0\t\tN/A\n")
    assert [(gpu.cpus, gpu.numa_node) for gpu in matrix.gpus] == [(None, 1), ("0-3", 0)]


def test_a_numa_node_is_never_taken_for_cpus_where_tabs_became_blanks() -> None:
    text = (TWO + "GPU0\t X \tNV4\t\t1\t\tN/A\nGPU1\tNV4\t X \t\t0\t\tN/A\n").expandtabs(8)
    assert [(gpu.cpus, gpu.numa_node) for gpu in parse_matrix(text).gpus] == [(None, 1), (None, 0)]


@pytest.mark.parametrize("text", ["N/A", "0-1", "0,5-11", "0,1"])
def test_numa_affinity_that_does_not_name_exactly_one_node_is_no_node(text: str) -> None:
    extra = "\t" if text == "N/A" else ""
    matrix = parse_matrix(f"\tGPU0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \t0-3\t{extra}{text}\n")
    assert matrix.gpus[0].numa_node is None
    assert matrix.gpus[0].numa_text == text
    assert matrix.gpus[0].cpus == "0-3"


def test_cpus_are_kept_as_found() -> None:
    matrix = parse_matrix("\tGPU0\tCPU Affinity\nGPU0\t X \t0-0,8-8\n")
    assert matrix.gpus[0].cpus == "0-0,8-8"


def test_soc_is_sys() -> None:
    matrix = parse_matrix("\tGPU0\tGPU1\nGPU0\t X \tSOC\nGPU1\tSYS\t X \n")
    assert matrix.links == (("X", "SYS"), ("SYS", "X"))


def test_rows_and_columns_may_come_in_any_order() -> None:
    text = "\tGPU1\tmlx5_1\tGPU0\tmlx5_0\nGPU1\tX\tPIX\tNV2\tSYS\nGPU0\tNV2\tSYS\tX\tPHB\n"
    matrix = parse_matrix(text)
    assert matrix.links == (("X", "NV2"), ("NV2", "X"))
    assert matrix.nics == ("mlx5_1", "mlx5_0")
    assert matrix.nic_links == (("SYS", "PHB"), ("PIX", "SYS"))


def test_nvme_and_data_direct_devices_are_checked_and_left_out() -> None:
    text = "\tGPU0\tNIC0\tDD0\tNVMe0\nGPU0\tX\tPIX\tPXB\tSYS\nNIC0\tPIX\tX\tPXB\tSYS\nDD0\tPXB\tPXB\tX\tSYS\nNVMe0\tSYS\tSYS\tSYS\tX\n"
    matrix = parse_matrix(text)
    assert matrix.nics == ("NIC0",)
    assert matrix.nic_links == (("PIX",),)
    with pytest.raises(DataError, match="DD0 to GPU0 is NODE but GPU0 to DD0 is PXB"):
        parse_matrix(text.replace("DD0\tPXB", "DD0\tNODE"))


def test_joined_labels_and_a_wrapped_header_are_taken_apart() -> None:
    rows = "GPU0 X NV2 PIX SYS 0-3 0\nGPU1 NV2 X SYS PIX 4-7 1\n"
    whole = parse_matrix("      GPU0 GPU1 NIC0 NIC1 CPU Affinity NUMA Affinity\n" + rows)
    assert parse_matrix("GPU0GPU1 NIC0NIC1 CPU Affinity NUMA Affinity\n" + rows) == whole
    assert (
        parse_matrix(
            "GPU0 NIC0 NIC1\nGPU1 CPU Affinity NUMA Affinity\nGPU0 X PIX SYS NV2 0-3 0\nGPU1 NV2 SYS PIX X 4-7 1"
        ).links
        == whole.links
    )
    assert parse_matrix("GPU0\nGPU1 NIC0 NIC1 CPU Affinity NUMA\nAffinity\n" + rows) == whole


def test_the_same_matrix_twice_is_one_and_two_different_ones_are_refused() -> None:
    one = "\tGPU0\tGPU1\nGPU0\tX\tNV2\nGPU1\tNV2\tX\n"
    assert parse_matrix(one + "\nagain:\n" + one) == parse_matrix(one)
    with pytest.raises(DataError, match=r"^a:5:2: a second matrix begins here"):
        parse_matrix(one + "\n" + one.replace("NV2", "PIX"), "a")


def test_a_p2p_table_beside_the_matrix_is_passed_over() -> None:
    p2p = "\n$ nvidia-smi topo -p2p r\n \tGPU0\tGPU1\t\n GPU0\tX\tOK\t\n GPU1\tOK\tX\t\n"
    one = "\tGPU0\tGPU1\nGPU0\tX\tNV2\nGPU1\tNV2\tX\n"
    assert parse_matrix(one + p2p) == parse_matrix(one)
    assert parse_matrix(p2p + "\n$ nvidia-smi topo -m\n" + one) == parse_matrix(one)
    with pytest.raises(DataError, match="topo -p2p"):
        parse_matrix(p2p)


def test_a_note_behind_a_row_is_passed_over() -> None:
    matrix = parse_matrix("   GPU0 GPU1\nGPU0 X NV6\nGPU1 NV6 X  <-- this one is new\n")
    assert matrix.links == (("X", "NV6"), ("NV6", "X"))


HEAD = "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\n"
GOOD = "GPU0\t X \tNV2\t0-3\t0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1:1: empty"),
        ("\n \n", ":1:1: empty"),
        (
            "bash: nvidia-smi: command not found\n",
            ":1:1: no matrix, but a message: 'bash: nvidia-smi: command",
        ),
        ("x\nFailed to initialize NVML: Unknown Error\n", ":2:1: no matrix, but a message: 'Failed to init"),
        ("hello\n", ":1:1: no matrix of `nvidia-smi topo -m`; it begins with: 'hello'"),
        (HEAD, ":1:38: the header has no rows below it"),
        (HEAD + GOOD, ":2:19: no row for GPU1 after this one: the matrix is cut"),
        (GOOD, ":1:1: rows of a matrix without the header"),
        ("\tGPU0\tGPU1\tCPU Aff\n" + GOOD, ":1:12: not a column of the matrix: 'CPU'"),
        (HEAD + GOOD + "GPU1\tNV1\t X \t0-3\t0\n", ":3:6: GPU1 to GPU0 is NV1 but GPU0 to GPU1 is NV2"),
        (HEAD + GOOD + "GPU1\tERR\t X \t0-3\t0\n", ":3:6: GPU1 to GPU0: 'ERR' is not a link"),
        (HEAD + GOOD + "GPU1\tNV2\tNV2\t0-3\t0\n", ":3:10: GPU1 to GPU1: X belongs here, not NV2"),
        (HEAD + GOOD + "GPU1\tX\tX\t0-3\t0\n", ":3:6: GPU1 to GPU0: only a device and itself are X"),
        (HEAD + GOOD + "GPU1\tNV2\t0-3\t0\n", ":3:15: GPU1 has 1 link cells where the header names 2"),
        (HEAD + GOOD + "GPU1\tNV2\t X \tPIX\t0-3\t0\n", ":3:14: GPU1 has more link cells"),
        (HEAD + GOOD + "GPU1\tNV2\t X \t0-3\t0\t7\n", ":3:20: GPU1 has a cell that no column is for: '7'"),
        (HEAD + GOOD + "GPU1\tNV2\t X \t-31,64-95\t0\n", ":3:14: GPU1 has '-31,64-95' under CPU Affinity"),
        (HEAD + GOOD + "GPU1\tNV2\t X \t0-3\tzero\n", ":3:18: GPU1 has 'zero' under NUMA Affinity"),
        (HEAD + GOOD + "GPU1\tNV2\t X \t0-3\n", ":3:17: GPU1 ends before its NUMA Affinity cell"),
        (HEAD + GOOD + GOOD, ":3:1: GPU0 has a second row"),
        (HEAD + GOOD + "GPU2\tNV2\t X \t0-3\t0\n", ":3:1: GPU2 has a row but no column"),
        (HEAD + GOOD + "oops\nGPU1\tNV2\t X \t0-3\t0\n", ":3:1: no row for GPU1 before this line: 'oops'"),
        ("\tGPU0\tGPU2\nGPU0\tX\tPIX\nGPU2\tPIX\tX\n", ":1:2: the header names 2 GPUs but not GPU1"),
        ("\tGPU0\tGPU0\nGPU0\tX\tX\n", ":1:7: GPU0 stands twice in the header"),
        (
            "\tGPU0\tNIC0\tNIC1\nGPU0\tX\tPIX\tPIX\nNIC0\tPIX\tX\tPIX\n",
            ":3:15: no row for NIC1 after this one",
        ),
        (
            "\t\x1b[4mGPU0\tGPU1\x1b[0m\nGPU0\tX\tPIX\n\x1b[1mGPU1\x1b[0m\tPXB\tX\n",
            ":3:14: GPU1 to GPU0 is PXB",
        ),
    ],
)
def test_damage_is_refused_with_its_line_and_column(text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_matrix(text, "host.txt")
    assert caught.value.message.startswith("host.txt" + message)
    assert "\n" not in caught.value.message


def test_a_lone_na_says_that_nothing_is_known() -> None:
    matrix = parse_matrix("GPU0 CPU Affinity NUMA Affinity GPU NUMA ID\nGPU0 X N/A\n")
    assert (matrix.gpus[0].cpus, matrix.gpus[0].numa_node) == (None, None)


@pytest.mark.parametrize("tail", ["0-3     N/A", "0-3     0", "0-3", "0"])
def test_a_row_of_blanks_that_could_mean_two_things_is_refused(tail: str) -> None:
    text = TWO + f"GPU0\t X \tNV4\t{tail}\nGPU1\tNV4\t X \t0-3\t0\t\tN/A\n"
    with pytest.raises(DataError, match=r"^<text>:2:\d+: GPU0 (has|ends)"):
        parse_matrix(text.expandtabs(8))
