"""Find the matrices in a capture: prompts, banners, comment signs and other tables stand around them."""

import re
from dataclasses import dataclass
from typing import Final

from topod.discovery.smi_matrix.header import Header, Kind, first_gpu_label, scan_labels
from topod.discovery.smi_matrix.lines import Line

LINK_TOKEN: Final = re.compile(r"X|NV[1-9]\d*|PIX|PXB|PHB|NODE|SYS|SOC", re.ASCII)
_ROW: Final = re.compile(r"(?P<label>[A-Za-z][\w.\-]*)\s+(?P<cell>\S+)", re.ASCII)
_DEVICE: Final = re.compile(r"(?:GPU|NIC|NVMe|DD)\d+|mlx\d+_\w+", re.ASCII)
_HEADING: Final = re.compile(rf"{_DEVICE.pattern}|CPU|NUMA|GPU", re.ASCII)
_COMMENT: Final = re.compile(r"\s*(?:[#>*;%|!]+|//+)?\s*")
_NOTE: Final = re.compile(r"\s(?:<[-=]|\u2190|#|//)")
_MAX_HEADER_LINES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RowText:
    """One row: its label, and its cells with their positions in the line."""

    line: Line
    label: str
    start: int
    cells: tuple[tuple[int, str], ...]
    end: int
    """Where the cells end: the end of the line, or the note that somebody added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A header with the rows below it, and the lines around them that may tell what it is."""

    header: Header
    rows: tuple[RowText, ...]
    stray: Line | None
    """The line at which the rows ended although GPU rows were missing."""
    around: tuple[Line, ...]
    after: tuple[Line, ...]


def find_blocks(lines: tuple[Line, ...]) -> tuple[Block, ...]:
    """Return every header that has rows below it, in order."""
    headers: list[Header] = []
    index = 0
    while index < len(lines):
        header = header_at(lines, index)
        if header is None:
            index += 1
        else:
            headers.append(header)
            index = header.next_line
    blocks: list[Block] = []
    before = 0
    starts = [header.line.number - 1 for header in headers]
    for header, start, limit in zip(headers, starts, [*starts[1:], len(lines)], strict=False):
        rows, end, stray = _rows(lines, limit, header)
        block = Block(
            header=header, rows=rows, stray=stray, around=lines[before:start], after=lines[end:limit]
        )
        blocks.append(block)
        before = end
    return tuple(block for block in blocks if block.rows)


def header_at(lines: tuple[Line, ...], index: int) -> Header | None:
    """Return the header that begins at line `index` and is followed by a row, if there is one."""
    first = lines[index]
    start = first_gpu_label(first.text)
    if start is None:
        return None
    text, at = first.text, index
    for taken in range(_MAX_HEADER_LINES):
        following = next_significant(lines, at + 1)
        columns, stop = scan_labels(text, start)
        labels = [column.label for column in columns]
        if len(set(labels)) < len(labels) and taken:
            return None  # the next line repeats a label: it is a header of its own
        whole = stop == len(text)
        if following is None:
            return None
        if whole and looks_like_row(lines[following], first.text[:start], frozenset(labels)):
            return Header(
                line=first,
                prefix=first.text[:start],
                columns=columns,
                wrapped=taken > 0,
                next_line=at + 1,
            )
        text, at = f"{text} {lines[following].text}", following
    return None


def next_significant(lines: tuple[Line, ...], index: int) -> int | None:
    """Return the index of the next line that holds a letter or digit."""
    for at in range(index, len(lines)):
        if any(char.isalnum() for char in lines[at].text):
            return at
    return None


def looks_like_row(line: Line, prefix: str, labels: frozenset[str]) -> bool:
    """Return whether the line is a device's label with something like a cell after it."""
    return row_text(line, prefix, labels) is not None


def row_text(line: Line, prefix: str, labels: frozenset[str]) -> RowText | None:
    """Split a row of the matrix; None where the line is none. `prefix` is what the header had before it."""
    text = line.text
    start = len(text) - len(text.lstrip())
    mark = prefix.strip()
    if mark and text.startswith(mark, start):
        start += len(mark)
        start += len(text[start:]) - len(text[start:].lstrip())
    else:
        comment = _COMMENT.match(text)
        start = comment.end() if comment else start
    row = _ROW.match(text, start)
    if row is None or not (row["label"] in labels or _DEVICE.fullmatch(row["label"])):
        return None
    if not re.fullmatch(r"[A-Z0-9#?/.,*_+\-]+", row["cell"]) or _HEADING.fullmatch(row["cell"]):
        return None
    note = _NOTE.search(text, row.end())
    end = note.start() if note else len(text)
    cells = tuple(
        (cell.start(), cell[0])
        for cell in re.finditer(r"\S+", text[:end])
        if cell.start() >= row.start("cell")
    )
    return RowText(line=line, label=row["label"], start=start, cells=cells, end=end)


def _rows(
    lines: tuple[Line, ...], limit: int, header: Header
) -> tuple[tuple[RowText, ...], int, Line | None]:
    """Return the rows from `header` to `limit`, the next index, and the stray line if they stop early."""
    labels = frozenset(column.label for column in header.devices)
    gpus = {column.label for column in header.devices if column.kind is Kind.GPU}
    rows: list[RowText] = []
    end = header.next_line
    for index in range(header.next_line, limit):
        line = lines[index]
        if not any(char.isalnum() for char in line.text):
            continue
        row = row_text(line, header.prefix, labels)
        if row is None:
            missing = gpus - {each.label for each in rows}
            return tuple(rows), end, line if missing else None
        rows.append(row)
        end = index + 1
    return tuple(rows), end, None
