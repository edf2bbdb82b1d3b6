"""The cells after the links: CPU affinity, NUMA affinity and the GPU's own NUMA id.

These cells may be blank, so their number alone does not say which is which. Where tabs are kept, tabs are
counted (`N/A` as NUMA affinity brings an extra tab, and one always stands before the GPU NUMA ID); where
they became blanks, the column of the text is compared with the header and with rows that are complete.
The driver always prints a GPU NUMA ID, so a row without one is cut. A row that could mean two things is
refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from topod.discovery.smi_matrix.header import AFFINITIES, Header, Kind
from topod.discovery.smi_matrix.lines import damaged
from topod.discovery.smi_matrix.locate import RowText
from topod.errors import DataError
from topod.model.cpuset import CpuSet

_TAB: Final = 8
_NEAR: Final = 3
"""A cell at most this many columns right of its heading stands under it."""
_NEXT_TAB: Final = 5
"""A cell at least this many columns right of where CPU lists begin stands in the next cell."""
_BOTH: Final = AFFINITIES[:2]
_TWO_CELLS: Final = re.compile(r"\t(?P<cpus>[^\t]*)(?:\t(?:\t *(?P<na>N/A)|(?P<numa>[^\t]*))\s*)?")
_THREE_CELLS: Final = re.compile(
    r"\t(?P<cpus>[^\t]*)\t(?:\t *(?P<na>N/A)|(?P<numa>[^\t]*))\t\t(?P<gpu_numa>[^\t]*)\s*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Affinity:
    """The cells of one GPU as written; None where blank or where the column does not exist."""

    cpus: str | None = None
    numa: str | None = None
    gpu_numa: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tail:
    """What follows the links of one GPU row."""

    row: RowText
    text: str
    cells: tuple[tuple[int, str], ...]
    columns: tuple[int, ...]
    """Where the cells begin with tabs expanded, shifted so that the last link stands under its heading."""


def read_affinities(rows: Sequence[RowText], header: Header, source: str) -> tuple[Affinity, ...]:
    """Return the affinity cells of the GPU `rows`, or raise `DataError` where they cannot be told apart."""
    kinds = tuple(column.kind for column in header.affinities)
    tails = [_tail(row, header, kinds, source) for row in rows]
    if not any(tail.cells for tail in tails) and Kind.GPU_NUMA not in kinds:
        return tuple(Affinity() for _ in tails)
    full = sorted({tail.columns[0] for tail in tails if kinds and len(tail.cells) == len(kinds)})
    found = [_assign(tail, kinds, _Ruler(header, full), source) for tail in tails]
    _refuse_ragged(tails, found, source)
    for tail, affinity in zip(tails, found, strict=True):
        _check(tail, affinity, source)
    return tuple(found)


def _tail(row: RowText, header: Header, kinds: tuple[Kind, ...], source: str) -> _Tail:
    links = len(header.devices)
    cells = row.cells[links:]
    if len(cells) > len(kinds):
        at, text = cells[len(kinds)]
        raise damaged(source, row.line, at, f"{row.label} has a cell that no column is for: {text!r}")
    last, link = row.cells[links - 1]
    shift = _expanded(row, last) - _expanded_at(header.line.text, header.devices[-1].start) - (link == "X")
    return _Tail(
        row=row,
        text=row.line.text[last + len(link) : row.end].strip(" "),
        cells=cells,
        columns=tuple(_expanded(row, at) - shift for at, _ in cells),
    )


def _expanded(row: RowText, at: int) -> int:
    return _expanded_at(row.line.text, at)


def _expanded_at(text: str, at: int) -> int:
    return len(text[:at].expandtabs(_TAB))


class _Ruler:
    """Says whether a cell stands where CPU lists begin."""

    def __init__(self, header: Header, full: list[int]) -> None:
        # The range in which CPU lists begin: as in complete rows, else below the heading
        self._range = (full[0], full[-1]) if full else None
        if not full and header.affinities and not header.wrapped:
            heading = _expanded_at(header.line.text, header.affinities[0].start)
            # a label wider than a tab stop pushes the heading right of its cells, unless aligned by hand
            pushed = len(header.devices[-1].label) // _TAB * _TAB
            self._range = (heading - pushed, heading)

    def is_cpus(self, column: int) -> bool | None:
        """Return True where CPU lists begin, False where the next cells do, None where that is unclear."""
        if self._range is None:
            return None
        if column <= self._range[0] + _NEAR:
            return True
        return False if column >= self._range[1] + _NEXT_TAB else None


def _assign(tail: _Tail, kinds: tuple[Kind, ...], ruler: _Ruler, source: str) -> Affinity:
    texts = [text for _, text in tail.cells]
    if len(texts) == len(kinds):
        return _named(kinds, texts)
    tabs = tail.text.startswith("\t") and "  " not in tail.text
    found = _by_tabs(tail, kinds) if tabs else _by_columns(tail, kinds, ruler)
    if found is None:
        headings = ", ".join(kinds)
        raise damaged(
            source,
            tail.row.line,
            tail.row.end,
            f"{tail.row.label} has {len(texts)} of the {len(kinds)} cells under {headings}, "
            "and it cannot be told which: the row is cut or out of line",
        )
    return found


def _named(kinds: Sequence[Kind], texts: Sequence[str | None]) -> Affinity:
    by_kind = dict(zip(kinds, texts, strict=True))
    return Affinity(
        cpus=by_kind.get(Kind.CPUS) or None,
        numa=by_kind.get(Kind.NUMA) or None,
        gpu_numa=by_kind.get(Kind.GPU_NUMA) or None,
    )


def _by_tabs(tail: _Tail, kinds: tuple[Kind, ...]) -> Affinity | None:
    """Count tabs; None where the row is not laid out as the driver prints it."""
    if kinds == _BOTH and (cells := _TWO_CELLS.fullmatch(tail.text)):
        return _named(kinds, [cells["cpus"].strip(), cells["na"] or (cells["numa"] or "").strip()])
    if kinds == AFFINITIES:
        if (cells := _THREE_CELLS.fullmatch(tail.text)) and cells["gpu_numa"].strip():
            numa = cells["na"] or (cells["numa"] or "").strip()
            return _named(kinds, [cells["cpus"].strip(), numa, cells["gpu_numa"].strip()])
        fields = [field.strip() for field in tail.text.split("\t")[1:]]
        if len(fields) == len(kinds) and fields[1] and fields[2]:
            return _named(kinds, fields)
    if len(kinds) == 1 and not tail.cells:
        return Affinity()
    return None


def _by_columns(tail: _Tail, kinds: tuple[Kind, ...], ruler: _Ruler) -> Affinity | None:
    """Compare columns; None where that does not decide."""
    texts = [text for _, text in tail.cells]
    if not texts or kinds not in (_BOTH, AFFINITIES):
        return None
    first = ruler.is_cpus(tail.columns[0])
    if kinds == _BOTH:
        # `_refuse_ragged` looks at a CPU list without a NUMA node
        return None if first is None else _named(kinds, [texts[0], None] if first else [None, texts[0]])
    if len(texts) == 1:
        return Affinity(gpu_numa=texts[0]) if texts[0] == "N/A" else None
    return Affinity(numa=texts[0], gpu_numa=texts[1]) if first is False else None


def _refuse_ragged(tails: Sequence[_Tail], found: Sequence[Affinity], source: str) -> None:
    """Refuse a row that ends before its NUMA cell while other rows have one."""
    if not any(affinity.numa for affinity in found):
        return
    for tail, affinity in zip(tails, found, strict=True):
        if (
            affinity.cpus
            and not affinity.numa
            and not affinity.gpu_numa
            and "\t" not in tail.text.lstrip("\t")
        ):
            raise damaged(
                source,
                tail.row.line,
                tail.row.end,
                f"{tail.row.label} ends before its NUMA Affinity cell: the row is cut",
            )


def _check(tail: _Tail, affinity: Affinity, source: str) -> None:
    positions = {text: at for at, text in reversed(tail.cells)}
    for kind, text in zip(AFFINITIES, (affinity.cpus, affinity.numa, affinity.gpu_numa), strict=True):
        if text is None or is_affinity(text):
            continue
        message = f"{tail.row.label} has {text!r} under {kind}: neither a list such as 0-3,8 nor N/A"
        raise damaged(source, tail.row.line, positions.get(text, tail.row.end), message)


def is_affinity(text: str) -> bool:
    """Return whether `text` can stand under an affinity heading."""
    if text == "N/A":
        return True
    try:
        return bool(CpuSet.parse(text))
    except ValueError:
        return False


def cut_row(source: str, row: RowText, count: int, wanted: int) -> DataError:
    """Return the error for a row with too few links."""
    return damaged(
        source,
        row.line,
        row.end,
        f"{row.label} has {count} link cells where the header names {wanted} devices",
    )
