"""Read the matrix that `nvidia-smi topo -m` (or `topo -mp`) prints, in any form in which it is passed around.

Rule: a matrix is read whole or refused with the line and column of the first thing that is wrong; nothing is
guessed. Legends: `X` self, `NV#` bonded NVLinks, `PIX`, `PXB`, `PHB`, `NODE`, `SYS` (`SOC` of old drivers).
"""

import re
from dataclasses import dataclass
from typing import Final

from topod.discovery.smi_matrix.affinity import Affinity, read_affinities
from topod.discovery.smi_matrix.header import Kind
from topod.discovery.smi_matrix.lines import Line, damaged, read_lines
from topod.discovery.smi_matrix.links import no_gaps, read_links
from topod.discovery.smi_matrix.locate import Block, find_blocks
from topod.discovery.smi_matrix.refusals import no_matrix, other_output

_LEGEND: Final = re.compile(r"[\s#>*;%|/]*(?P<nic>NIC\d+)\s*:\s*(?P<device>[\w.\-]+)\s*", re.ASCII)

_MAX_WIDTH: Final = 8192
"""Patterns take the square of a line's length; 20 GPUs with 17 NICs need 400 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRow:
    """One GPU. Texts are as written (`0-3,8`, `N/A`); None where the cell is blank or the column absent."""

    index: int
    cpus_text: str | None = None
    numa_text: str | None = None
    gpu_numa_id_text: str | None = None

    @property
    def cpus(self) -> str | None:
        """The CPU list as found; None where the cell says `N/A`."""
        return None if self.cpus_text == "N/A" else self.cpus_text

    @property
    def numa_node(self) -> int | None:
        """The NUMA node; None unless exactly one is named."""
        return int(self.numa_text) if self.numa_text and self.numa_text.isdecimal() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A whole matrix: GPUs in index order, NICs in column order. Tokens as found, `SYS` for `SOC`.

    `links` is GPU by GPU with `X` on the diagonal, `nic_links` GPU by NIC, `nic_rows` NIC by NIC (empty where
    the capture left the NIC rows out), `nic_devices` what the legend says: (NIC, kernel name).
    """

    gpus: tuple[GpuRow, ...]
    links: tuple[tuple[str, ...], ...]
    nics: tuple[str, ...] = ()
    nic_links: tuple[tuple[str, ...], ...] = ()
    nic_rows: tuple[tuple[str, ...], ...] = ()
    nic_devices: tuple[tuple[str, str], ...] = ()


def parse_matrix(text: str, source: str = "<text>") -> Matrix:
    """Return the matrix in `text`, a capture of `nvidia-smi topo -m` with anything around it.

    Raises `DataError` with `source`, line and column when there is no whole matrix, or two different ones.
    """
    lines = read_lines(text)
    for line in lines:
        if len(line.text) > _MAX_WIDTH:
            message = f"a line of {len(line.text)} characters: no matrix is as wide"
            raise damaged(source, line, _MAX_WIDTH, message)
    blocks = find_blocks(lines)
    if not blocks:
        raise no_matrix(lines, source)
    others = [other_output(block, source) for block in blocks]
    wanted = [block for block, other in zip(blocks, others, strict=True) if other is None]
    if not wanted:
        raise next(other for other in others if other is not None)
    matrices = [(block, _read(block, source)) for block in wanted]
    matrix = matrices[0][1]
    for block, other_matrix in matrices[1:]:
        if other_matrix != matrix:
            first = wanted[0].header.line.number
            message = f"a second matrix begins here and differs from the one on line {first}: keep one"
            raise damaged(source, block.header.line, len(block.header.prefix), message)
    return matrix


def _read(block: Block, source: str) -> Matrix:
    header = block.header
    wrong = no_gaps(header, source)
    if wrong:
        raise wrong
    links = read_links(block, source)
    gpu_rows = [row for row in block.rows if row.label.startswith("GPU")]
    affinities = dict(
        zip((row.label for row in gpu_rows), read_affinities(gpu_rows, header, source), strict=True)
    )
    places = {column.label: place for place, column in enumerate(header.devices)}
    gpus = [f"GPU{index}" for index in range(header.gpu_count)]
    nics = [column.label for column in header.devices if column.kind is Kind.NIC]

    def cells(rows: list[str], columns: list[str]) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(links[row][places[column]] for column in columns) for row in rows)

    return Matrix(
        gpus=tuple(_gpu(index, affinities[label]) for index, label in enumerate(gpus)),
        links=cells(gpus, gpus),
        nics=tuple(nics),
        nic_links=cells(gpus, nics) if nics else (),
        nic_rows=cells(nics, nics) if nics and nics[0] in links else (),
        nic_devices=_legend(block.after, frozenset(nics)),
    )


def _gpu(index: int, affinity: Affinity) -> GpuRow:
    return GpuRow(
        index=index, cpus_text=affinity.cpus, numa_text=affinity.numa, gpu_numa_id_text=affinity.gpu_numa
    )


def _legend(lines: tuple[Line, ...], nics: frozenset[str]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for line in lines:
        entry = _LEGEND.fullmatch(line.text)
        if entry and entry["nic"] in nics:
            found.setdefault(entry["nic"], entry["device"])
    return tuple(found.items())
