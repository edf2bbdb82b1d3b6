"""The link matrix of a host: each class by its letters and by its colour, in blocks that fit."""

from collections.abc import Sequence
from typing import Final

from topod.model.links import Link
from topod.model.topology import Topology
from topotui.blocks import Block, Line, above, block, flowing
from topotui.palette import FREE, link_color

SHORT: Final = {"NODE": "NOD"}
LEGEND: Final = (
    ("NV#", "so many NVLinks"),
    ("PIX", "one PCIe bridge"),
    ("PXB", "PCIe bridges"),
    ("PHB", "a PCIe host bridge"),
    ("NODE", "within a NUMA node"),
    ("SYS", "between NUMA nodes"),
)


def matrix(topology: Topology, width: int) -> Block:
    """Return how GPUs are joined to one another and to NICs, and what the classes mean.

    Where a row does not fit `width`, tokens are shortened to three letters, then columns go on below.
    """
    gpus = [str(gpu.index) for gpu in topology.gpus]
    if not gpus:
        return block([[("no GPUs, no links", FREE)]])
    parts = []
    if len(gpus) > 1:
        parts.append(_table("GPU", gpus, topology.links, width))
    if topology.nics:
        nics = [f"n{number}" for number in range(len(topology.nics))]
        parts.append(_table("NIC", nics, topology.nic_links, width))
        parts.append(_named(topology, width))
    if not parts:
        return block([[("one GPU, no links", FREE)]])
    return above([*parts, _legend(topology, width)], gap=1)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[Link | None]], width: int) -> Block:
    label = 6
    tokens = [[_token(link, title) for link in row] for row in rows]
    widest = max((len(token) for row in tokens for token in row), default=1)
    cell = max(widest, len(heads[-1])) + 1
    if label + cell * len(heads) > width:
        tokens = [[SHORT.get(token, token.replace("NV", "N")) for token in row] for row in tokens]
        cell = max(3, len(heads[-1])) + 1
    across = max(1, (width - label) // cell)
    tables = []
    for start in range(0, len(heads), across):
        some = range(start, min(len(heads), start + across))
        lines: list[Line] = [
            [(f"{title:<{label}}", "bold"), *((f"{heads[at]:>{cell}}", "bold") for at in some)]
        ]
        for index, row in enumerate(tokens):
            cells = [(f"{row[at]:>{cell}}", link_color(_whole(row[at]))) for at in some if at < len(row)]
            lines.append([(f"GPU{index:<{label - 3}}", "bold"), *cells])
        tables.append(block(lines))
    return above(tables, gap=1)


def _named(topology: Topology, width: int) -> Block:
    words = [
        f"n{number} {nic.name}{f' ({nic.device})' if nic.device else ''}"
        for number, nic in enumerate(topology.nics)
    ]
    return block(flowing([[(word, "")] for word in words], width, 3))


def _legend(topology: Topology, width: int) -> Block:
    kinds = {
        link.token
        for rows in (topology.links, topology.nic_links)
        for row in rows
        for link in row
        if link is not None
    }
    used = [
        (token, words) for token, words in LEGEND if any(kind.startswith(token.rstrip("#")) for kind in kinds)
    ]
    return block(
        flowing([[(token, link_color(token)), (f" {words}", FREE)] for token, words in used], width, 3)
    )


def _token(link: Link | None, title: str) -> str:
    return link.token if link is not None else "·" if title == "GPU" else "?"


def _whole(token: str) -> str:
    """Return the class of a token that may have been shortened."""
    if token == SHORT["NODE"]:
        return "NODE"
    return f"NV{token[1:]}" if token[0] == "N" and token[1:].isdecimal() else token
