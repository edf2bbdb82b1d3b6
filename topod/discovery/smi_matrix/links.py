"""The link cells: one row per device, checked against the header, the diagonal and each other."""

from collections.abc import Mapping
from typing import Final

from topod.discovery.smi_matrix.affinity import cut_row, is_affinity
from topod.discovery.smi_matrix.header import Header, Kind
from topod.discovery.smi_matrix.lines import damaged
from topod.discovery.smi_matrix.locate import LINK_TOKEN, Block, RowText
from topod.errors import DataError

_KNOWN: Final = "X, NV#, PIX, PXB, PHB, NODE or SYS"


def read_links(block: Block, source: str) -> Mapping[str, tuple[str, ...]]:
    """Return the link cells of each row by its label, in header order, `SOC` as `SYS`.

    Raises `DataError` on the first thing that is wrong: duplicated or unknown rows, ragged rows, unknown
    tokens, a misplaced diagonal, missing rows, cells that differ from their mirror image.
    """
    header = block.header
    rows: dict[str, RowText] = {}
    for row in block.rows:
        if row.label in rows:
            raise damaged(source, row.line, row.start, f"{row.label} has a second row")
        if row.label not in {column.label for column in header.devices}:
            raise damaged(source, row.line, row.start, f"{row.label} has a row but no column")
        rows[row.label] = row
    links = {label: _row(row, header, source) for label, row in rows.items()}
    _refuse_missing_rows(block, rows, source)
    _refuse_asymmetry(header, rows, links, source)
    return links


def _row(row: RowText, header: Header, source: str) -> tuple[str, ...]:
    devices = header.devices
    tokens: list[str] = []
    for column, (at, text) in zip(devices, row.cells, strict=False):
        if not LINK_TOKEN.fullmatch(text):
            if is_affinity(text) and not text.startswith("N"):
                raise cut_row(source, row, len(tokens), len(devices))
            message = f"{row.label} to {column.label}: {text!r} is not a link ({_KNOWN})"
            raise damaged(source, row.line, at, message)
        if (text == "X") != (column.label == row.label):
            what = "only a device and itself are X" if text == "X" else f"X belongs here, not {text}"
            raise damaged(source, row.line, at, f"{row.label} to {column.label}: {what}")
        tokens.append("SYS" if text == "SOC" else text)
    if len(tokens) < len(devices):
        raise cut_row(source, row, len(tokens), len(devices))
    for at, text in row.cells[len(devices) :]:
        if LINK_TOKEN.fullmatch(text):
            message = f"{row.label} has more link cells than the header names devices: {text!r}"
            raise damaged(source, row.line, at, message)
        if not row.label.startswith("GPU") and not is_affinity(text):
            raise damaged(source, row.line, at, f"{row.label} has a cell that no column is for: {text!r}")
    return tuple(tokens)


def _refuse_missing_rows(block: Block, rows: Mapping[str, RowText], source: str) -> None:
    devices = block.header.devices
    missing = [column.label for column in devices if column.kind is Kind.GPU and column.label not in rows]
    if missing:
        line = block.stray or block.rows[-1].line
        raise damaged(source, line, 0 if block.stray else len(line.text), _missing_text(block, missing))
    # Authors leave out all rows of NICs; only some of them missing means a cut.
    others = [column.label for column in devices if column.kind is not Kind.GPU]
    gone = [label for label in others if label not in rows]
    if gone and len(gone) < len(others):
        line = block.rows[-1].line
        raise damaged(
            source,
            line,
            len(line.text),
            f"no row for {', '.join(gone[:3])} after this one: the matrix is cut",
        )


def _missing_text(block: Block, missing: list[str]) -> str:
    names = missing[0] if len(missing) == 1 else f"{missing[0]} and {len(missing) - 1} more"
    if block.stray and any(char.isalnum() for char in block.stray.text):
        shown = block.stray.text.strip()
        shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
        return f"no row for {names} before this line: {shown!r}"
    return f"no row for {names} after this one: the matrix is cut"


def _refuse_asymmetry(
    header: Header, rows: Mapping[str, RowText], links: Mapping[str, tuple[str, ...]], source: str
) -> None:
    order = [column.label for column in header.devices]
    for i, label in enumerate(order):
        for j in range(i):
            other = order[j]
            if label in links and other in links and links[label][j] != links[other][i]:
                row = rows[label]
                raise damaged(
                    source,
                    row.line,
                    row.cells[j][0],
                    f"{label} to {other} is {links[label][j]} but {other} to {label} is {links[other][i]}",
                )


def no_gaps(header: Header, source: str) -> DataError | None:
    """Return an error when the GPU columns are not GPU0, GPU1, ... each once, or columns are out of order."""
    seen: set[str] = set()
    for column in header.columns:
        if column.label in seen:
            return damaged(source, header.line, column.start, f"{column.label} stands twice in the header")
        seen.add(column.label)
    gpus = {column.label for column in header.columns if column.kind is Kind.GPU}
    for index in range(len(gpus)):
        if f"GPU{index}" not in gpus:
            return damaged(
                source,
                header.line,
                len(header.prefix),
                f"the header names {len(gpus)} GPUs but not GPU{index}",
            )
    ranks = [list(Kind).index(column.kind) if column in header.affinities else 0 for column in header.columns]
    if ranks != sorted(ranks):
        return damaged(source, header.line, len(header.prefix), "the columns of the header are out of order")
    return None
