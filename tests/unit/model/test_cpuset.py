"""The kernel's CPU lists, and sets of CPUs against Python's own sets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topod.model.cpuset import MAX_CPU, NO_CPUS, CpuSet

cpu_numbers = st.sets(st.integers(0, MAX_CPU) | st.integers(0, 70), max_size=40)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", []),
        ("\n", []),
        ("0", [0]),
        ("0-3,8", [0, 1, 2, 3, 8]),
        (" 0-1 , 4 \n", [0, 1, 4]),
        ("7,3,3-4", [3, 4, 7]),
        ("5-5", [5]),
        (str(MAX_CPU), [MAX_CPU]),
    ],
)
def test_a_kernel_list_is_read(text: str, cpus: list[int]) -> None:
    assert list(CpuSet.parse(text)) == cpus


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "-1",
        "3-1",
        "1-",
        "-",
        "0,,1",
        ",",
        "0-3,",
        "0x3",
        "1.0",
        "0-3:1/2",
        "N/A",
        "0 1",
        str(MAX_CPU + 1),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"CPU list"):
        CpuSet.parse(text)


@pytest.mark.parametrize(
    ("cpus", "text"),
    [([], ""), ([0], "0"), ([0, 1], "0-1"), ([0, 1, 2, 3, 8], "0-3,8"), ([63, 64, 66], "63-64,66")],
)
def test_a_set_is_written_the_way_the_kernel_writes_it(cpus: list[int], text: str) -> None:
    assert str(CpuSet.of(cpus)) == text


@pytest.mark.parametrize("cpu", [-1, MAX_CPU + 1])
def test_a_cpu_number_out_of_range_is_refused(cpu: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        CpuSet.of([cpu])


def test_the_empty_set_is_false_and_a_set_with_cpu_0_is_true() -> None:
    assert not NO_CPUS
    assert CpuSet.of([0])


def test_a_negative_number_is_in_no_set() -> None:
    assert -1 not in CpuSet.of(range(64))


@settings(deadline=None)
@given(cpu_numbers)
def test_what_is_written_reads_back_the_same(cpus: set[int]) -> None:
    assert CpuSet.parse(str(CpuSet.of(cpus))) == CpuSet.of(cpus)


@settings(deadline=None)
@given(cpu_numbers)
def test_a_set_lists_its_cpus_in_order_and_counts_them(cpus: set[int]) -> None:
    made = CpuSet.of(cpus)
    assert list(made) == sorted(cpus)
    assert len(made) == len(cpus)
    assert bool(made) == bool(cpus)


@settings(deadline=None)
@given(cpu_numbers)
def test_a_list_names_each_run_of_cpus_once(cpus: set[int]) -> None:
    runs = sum(1 for cpu in cpus if cpu - 1 not in cpus)
    text = str(CpuSet.of(cpus))
    assert len(text.split(",")) == runs if runs else text == ""


@settings(deadline=None)
@given(cpu_numbers, cpu_numbers, st.integers(0, MAX_CPU))
def test_the_operators_agree_with_python_sets(a: set[int], b: set[int], cpu: int) -> None:
    one, other = CpuSet.of(a), CpuSet.of(b)
    assert set(one | other) == a | b
    assert set(one & other) == a & b
    assert set(one - other) == a - b
    assert (one <= other) == (a <= b)
    assert (cpu in one) == (cpu in a)
    assert (one == other) == (a == b)


@settings(deadline=None)
@given(cpu_numbers, cpu_numbers)
def test_a_part_of_a_set_lies_within_it(a: set[int], b: set[int]) -> None:
    whole = CpuSet.of(a | b)
    assert CpuSet.of(a) <= whole
    assert (CpuSet.of(a) & CpuSet.of(b)) <= whole
