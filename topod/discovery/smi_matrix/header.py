"""The header of a matrix: which column is which device, and which affinity columns follow.

Labels are read one after the other wherever they stand, because headers lose their leading tab, join two
labels (`NIC11NIC12`) and wrap; nothing is concluded from their positions here.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from topod.discovery.smi_matrix.lines import Line


class Kind(StrEnum):
    """What a column is about."""

    GPU = "gpu"
    NIC = "nic"
    OTHER = "other"
    """Another device (`NVMe0`, `DD0`): read and checked, and then left out."""
    CPUS = "CPU Affinity"
    NUMA = "NUMA Affinity"
    GPU_NUMA = "GPU NUMA ID"


AFFINITIES: Final = (Kind.CPUS, Kind.NUMA, Kind.GPU_NUMA)

_LABEL: Final = re.compile(
    r"(?P<cpus>CPU[\s_]*Affinity)|(?P<numa>NUMA[\s_]*Affinity)|(?P<gpu_numa>GPU[\s_]*NUMA[\s_]*ID)"
    r"|(?P<gpu>GPU\d+)|(?P<other>(?:NVMe|DD)\d+)"
    r"|(?P<nic>NIC\d+|mlx\d+_(?:bond_)?\d+|(?!NV\d+\b)[A-Za-z][A-Za-z_.\-]*\d[\w.\-]*)",
    re.ASCII,
)
_KIND_OF_GROUP: Final = {
    "cpus": Kind.CPUS,
    "numa": Kind.NUMA,
    "gpu_numa": Kind.GPU_NUMA,
    "gpu": Kind.GPU,
    "other": Kind.OTHER,
    "nic": Kind.NIC,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its label as found, and where that begins in the header line."""

    kind: Kind
    label: str
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The columns of a matrix. `prefix` is the text before the first label (a comment sign, a prompt)."""

    line: Line
    prefix: str
    columns: tuple[Column, ...]
    wrapped: bool
    """True when the header goes over several lines: then positions say nothing."""
    next_line: int
    """Index of the first line after the header."""

    @property
    def devices(self) -> tuple[Column, ...]:
        """The columns of links."""
        return tuple(column for column in self.columns if column.kind not in AFFINITIES)

    @property
    def affinities(self) -> tuple[Column, ...]:
        """The columns after the links."""
        return tuple(column for column in self.columns if column.kind in AFFINITIES)

    @property
    def gpu_count(self) -> int:
        """How many GPU columns there are."""
        return sum(column.kind is Kind.GPU for column in self.columns)


def scan_labels(text: str, start: int = 0) -> tuple[tuple[Column, ...], int]:
    """Read labels from `start`; return them and the position of the first thing that is none."""
    columns: list[Column] = []
    at = start
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        found = _LABEL.match(text, at)
        if not found or found.lastgroup is None:
            return tuple(columns), at
        columns.append(Column(kind=_KIND_OF_GROUP[found.lastgroup], label=found[0], start=at))
        at = found.end()


def first_gpu_label(text: str) -> int | None:
    """Return where the first `GPU<number>` of a line begins."""
    found = re.search(r"(?<![\w.-])GPU\d+", text, re.ASCII)
    return found.start() if found else None
