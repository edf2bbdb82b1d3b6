from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.property.matrices import STYLES, TOKENS, Style, matrices, render, with_cell
from topod.discovery.parse_smi_topo import Matrix, parse_matrix
from topod.errors import DataError


@given(matrices(), STYLES)
@settings(max_examples=4 * 250, deadline=None)
def test_what_the_driver_prints_with_tabs_is_read_back_exactly(
    drawn: tuple[Matrix, int], style: Style
) -> None:
    matrix, columns = drawn
    style = replace(style, spaces=False, strip=False)
    assert parse_matrix(render(matrix, columns, style)) == matrix


@given(matrices(blanks=False), STYLES)
@settings(max_examples=4 * 250, deadline=None)
def test_tabs_turned_into_blanks_lose_nothing(drawn: tuple[Matrix, int], style: Style) -> None:
    matrix, columns = drawn
    assert parse_matrix(render(matrix, columns, replace(style, spaces=True))) == matrix


@given(matrices(), STYLES)
@settings(max_examples=4 * 400, deadline=None)
def test_blank_cells_are_read_right_or_refused_never_guessed(drawn: tuple[Matrix, int], style: Style) -> None:
    matrix, columns = drawn
    text = render(matrix, columns, style)
    try:
        found = parse_matrix(text)
    except DataError:
        assert any(gpu.cpus_text is None or gpu.numa_text is None for gpu in matrix.gpus)
    else:
        assert found == matrix


@given(matrices(blanks=False), STYLES, st.data())
@settings(max_examples=4 * 300, deadline=None)
def test_one_changed_cell_is_refused_unless_its_mirror_image_is_not_in_the_text(
    drawn: tuple[Matrix, int], style: Style, data: st.DataObject
) -> None:
    matrix, columns = drawn
    count = len(matrix.gpus)
    row = data.draw(st.integers(0, count - 1))
    column = data.draw(st.integers(0, count + len(matrix.nics) - 1))
    token = data.draw(st.sampled_from([*TOKENS, "X", "ERR", "NV0", "NV", "pix", "N/A", "SYS2", "??", ""]))
    changed = with_cell(matrix, row, column, token)
    assume(changed != matrix)
    text = render(changed, columns, style, mirror=matrix)
    if column >= count and not matrix.nic_rows and token in TOKENS:
        assert parse_matrix(text) == changed
    else:
        with pytest.raises(DataError) as caught:
            parse_matrix(text)
        assert caught.value.line is not None


@given(matrices(blanks=False), STYLES, st.data())
@settings(max_examples=4 * 200, deadline=None)
def test_lost_and_doubled_rows_are_refused(
    drawn: tuple[Matrix, int], style: Style, data: st.DataObject
) -> None:
    matrix, columns = drawn
    lines = render(matrix, columns, replace(style, escape="", before=(), after=())).splitlines(keepends=True)
    at = data.draw(st.integers(1, len(matrix.gpus)))
    lost = data.draw(st.booleans())
    lines = lines[:at] + lines[at + 1 :] if lost else [*lines[: at + 1], *lines[at:]]
    with pytest.raises(DataError):
        parse_matrix("".join(lines))


@given(matrices(blanks=False), STYLES, st.data())
@settings(max_examples=4 * 200, deadline=None)
def test_a_row_without_its_last_cell_is_refused(
    drawn: tuple[Matrix, int], style: Style, data: st.DataObject
) -> None:
    matrix, columns = drawn
    assume(len(matrix.gpus) > 1 or columns in (0, 3))
    text = render(matrix, columns, replace(style, before=(), after=(), newline="\n"))
    lines = text.splitlines()
    at = data.draw(st.integers(1, len(matrix.gpus)))
    line = lines[at].rstrip()
    lines[at] = line[: max(line.rfind("\t"), line.rfind(" "))].rstrip()
    with pytest.raises(DataError):
        parse_matrix("\n".join(lines))


@given(st.text(max_size=300))
@settings(max_examples=4 * 200, deadline=None)
def test_any_text_is_read_or_refused_without_a_crash(text: str) -> None:
    with pytest.raises(DataError):
        parse_matrix(text)


@given(matrices(), STYLES, st.data())
@settings(max_examples=4 * 300, deadline=None)
def test_a_damaged_capture_never_crashes_the_reader(
    drawn: tuple[Matrix, int], style: Style, data: st.DataObject
) -> None:
    text = render(*drawn, style)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    junk = data.draw(st.sampled_from(["", "\t", "\n", " ", "X", "GPU0", "NV", "\x1b[4m", "0-3", "\0"]))
    try:
        found = parse_matrix(text[:start] + junk + text[end:])
    except DataError:
        return
    assert len(found.links) == len(found.gpus) > 0
