"""How two devices of a host are joined: the classes of `nvidia-smi topo -m`."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Self


class LinkClass(IntEnum):
    """Link classes by closeness: the higher, the closer (the legend of `nvidia-smi topo -m`)."""

    SYS = 1
    """Across the interconnect between NUMA nodes (`SOC` in old drivers)."""
    NODE = 2
    """Across PCIe host bridges within one NUMA node."""
    PHB = 3
    """Across one PCIe host bridge."""
    PXB = 4
    """Across several PCIe bridges, no host bridge."""
    PIX = 5
    """Across at most one PCIe bridge."""
    NVLINK = 6
    """A direct connection of bonded NVLinks (`NV#`)."""


@dataclass(frozen=True, slots=True)
class Link:
    """The way from one device to another. `lanes` counts the bonded NVLinks; 0 for PCIe classes."""

    kind: LinkClass
    lanes: int = 0

    def __post_init__(self) -> None:
        if (self.kind is LinkClass.NVLINK) != (self.lanes > 0):
            raise ValueError(f"{self.lanes} NVLinks on a {self.kind.name} link")

    @classmethod
    def parse(cls, token: str) -> Self:
        """Read one cell of the matrix: `NV12`, `PIX`, `SOC`... Raises `ValueError` on any other token."""
        if token.startswith("NV") and token[2:].isdecimal() and int(token[2:]) > 0:
            return cls(LinkClass.NVLINK, int(token[2:]))
        name = "SYS" if token == "SOC" else token  # noqa: S105 - a link class, not a password
        if name in {"SYS", "NODE", "PHB", "PXB", "PIX"}:
            return cls(LinkClass[name])
        raise ValueError(f"not a link class: {token!r}")

    @property
    def token(self) -> str:
        """The cell as `nvidia-smi` prints it today."""
        return f"NV{self.lanes}" if self.kind is LinkClass.NVLINK else self.kind.name
