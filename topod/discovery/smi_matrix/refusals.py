"""Say what a text is when it is not a matrix of `nvidia-smi topo -m`."""

import re
from typing import Final

from topod.discovery.smi_matrix.header import first_gpu_label, scan_labels
from topod.discovery.smi_matrix.lines import Line, damaged
from topod.discovery.smi_matrix.locate import Block, looks_like_row
from topod.errors import DataError

_P2P_COMMAND: Final = re.compile(r"topo\s+-p2p", re.ASCII)
_P2P_LEGEND: Final = re.compile(r"\s*[#>*;%|]*\s*(?:OK|CNS|GNS|TNS)\s*=\s", re.ASCII)
_P2P_CELLS: Final = frozenset({"OK", "NS", "CNS", "GNS", "TNS", "DR", "U"})
_ROCM: Final = re.compile(
    r"ROCm|rocm-smi|between two GPUs|\(Topology\) Numa|={4,} Numa Nodes ={4,}", re.ASCII | re.IGNORECASE
)
_FAILURE: Final = re.compile(
    r"NVML|NVIDIA-SMI has failed|nvidia-smi.*(?:not found|cannot|no such)|command not found|[Nn]o such file"
    r"|not recognized as|couldn't communicate|No devices were found|Could not collect|command line argument"
    r"|[Ee]rror|[Ff]ailed|[Pp]ermission denied|Segmentation fault|[Tt]imed? ?out",
    re.ASCII,
)
_P2P_TEXT: Final = "this is the output of `nvidia-smi topo -p2p`, not of `nvidia-smi topo -m`"
_ROCM_TEXT: Final = "this is the output of `rocm-smi`, not of `nvidia-smi topo -m`"


def other_output(block: Block, source: str) -> DataError | None:
    """Return an error when the block is the table of another command."""
    line = block.header.line
    if any(text in _P2P_CELLS for row in block.rows for _, text in row.cells):
        return damaged(source, line, len(block.header.prefix), _P2P_TEXT)
    commanded = any(_P2P_COMMAND.search(each.text) for each in (*block.around[-3:], line))
    if commanded or any(_P2P_LEGEND.match(each.text) for each in block.after):
        return damaged(source, line, len(block.header.prefix), _P2P_TEXT)
    diagonal = {text for row in block.rows for _, text in row.cells}
    if "X" not in diagonal and "0" in diagonal:
        return damaged(source, line, len(block.header.prefix), _ROCM_TEXT)
    return None


def no_matrix(lines: tuple[Line, ...], source: str) -> DataError:
    """Return the error for a text without any header that has rows below it."""
    written = [line for line in lines if line.text.strip()]
    if not written:
        return DataError("empty: no matrix of `nvidia-smi topo -m` in it", source=source, line=1, column=1)
    for line in written:
        for pattern, text in ((_ROCM, _ROCM_TEXT), (_P2P_COMMAND, _P2P_TEXT), (_P2P_LEGEND, _P2P_TEXT)):
            if pattern.search(line.text):
                return damaged(source, line, 0, text)
    for index, line in enumerate(written):
        found = _broken_header(written, index, source)
        if not found and looks_like_row(line, "", frozenset()):
            found = damaged(source, line, 0, "rows of a matrix without the header line above them")
        if found:
            return found
    failure = next((line for line in written if _FAILURE.search(line.text)), None)
    if failure:
        return damaged(source, failure, 0, f"no matrix, but a message: {_shown(failure)}")
    message = f"no matrix of `nvidia-smi topo -m`; it begins with: {_shown(written[0])}"
    return damaged(source, written[0], 0, message)


def _broken_header(written: list[Line], index: int, source: str) -> DataError | None:
    line = written[index]
    start = first_gpu_label(line.text)
    if start is None:
        return None
    columns, stop = scan_labels(line.text, start)
    if stop < len(line.text):
        if len(columns) < 2 or looks_like_row(line, "", frozenset()):
            return None
        return damaged(source, line, stop, f"not a column of the matrix: {line.text[stop:].split()[0]!r}")
    if index + 1 == len(written):
        return damaged(source, line, len(line.text), "the header has no rows below it: the matrix is cut")
    following = written[index + 1]
    return damaged(
        source, following, 0, f"a row of the matrix was expected below its header: {_shown(following)}"
    )


def _shown(line: Line) -> str:
    text = "".join(char if char.isprintable() else "?" for char in " ".join(line.text.split()))
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
