"""Which devices of a host belong together, as its picture draws it: NVLink islands, PCIe switches. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from string import ascii_uppercase
from typing import Final

from topod.flextopo.places import cliques, neighbours
from topod.model.cpuset import CpuSet
from topod.model.links import LinkClass
from topod.model.topology import Nic, NumaNode, Topology

MOST_LINKS: Final = 18
"""NVLinks of one GPU, of any model so far (H100, B200). More in all than that takes a switch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Island:
    """GPUs each of which has an NVLink to each other."""

    letter: str
    gpus: tuple[int, ...]
    token: str
    """`NV18`, or `NV1 and NV2` where pairs differ."""
    switched: bool
    """Through NVSwitch: a GPU has not so many links of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """GPUs and NICs that PCIe bridges join without a host bridge in between."""

    gpus: tuple[int, ...]
    nics: tuple[str, ...]


@lru_cache(maxsize=64)
def islands(topology: Topology) -> tuple[Island, ...]:
    """Return the NVLink islands of more than one GPU, in the order of their first GPU."""
    firsts = cliques(neighbours(topology, LinkClass.NVLINK))
    groups = [
        tuple(index for index, other in enumerate(firsts) if other == first)
        for first in dict.fromkeys(firsts)
    ]
    joined = [group for group in groups if len(group) > 1]
    return tuple(
        _island(topology, letter, gpus) for letter, gpus in zip(_letters(len(joined)), joined, strict=True)
    )


def island_lines(topology: Topology) -> list[str]:
    """Return what joins the islands inside and to one another, in sentences."""
    found = islands(topology)
    lines = []
    for one in found:
        way = " through NVSwitch" if one.switched else ""
        pair = "each to each" if len(one.gpus) > 2 else "a pair"
        lines.append(f"NVLink {one.letter}  GPUs {CpuSet.of(one.gpus)}: {pair}{way}, {one.token}")
    letter_of = {gpu: one.letter for one in found for gpu in one.gpus}
    across: dict[tuple[str, str], list[str]] = {}
    for i, j in combinations(range(len(topology.gpus)), 2):
        link = topology.links[i][j]
        ends = letter_of.get(i, "-"), letter_of.get(j, "-")
        if link is not None and link.kind is LinkClass.NVLINK and (ends[0] != ends[1] or ends[0] == "-"):
            across.setdefault(ends, []).append(f"{i}-{j} {link.token}")
    lines += [f"NVLink {a} to {b}  {', '.join(pairs)}" for (a, b), pairs in across.items()]
    return lines


@lru_cache(maxsize=64)
def switches(topology: Topology, closest: LinkClass) -> tuple[Switch, ...]:
    """Return the groups joined by links of `closest` or a closer PCIe class, NICs by their names.

    Of GPUs with an NVLink the matrix does not tell the way through PCIe; a NIC beside both does.
    """
    count, names = len(topology.gpus), [nic.name for nic in topology.nics]
    group = list(range(count + len(names)))
    near: list[tuple[int, int]] = [
        (i, j)
        for i, j in combinations(range(count), 2)
        if closest <= (topology.link_class(i, j) or 0) < LinkClass.NVLINK
    ]
    for i, row in enumerate(topology.nic_links):
        near += [(i, count + j) for j, link in enumerate(row) if link is not None and link.kind >= closest]
    for a, b in near:
        old, new = max(group[a], group[b]), min(group[a], group[b])
        group = [new if one == old else one for one in group]
    found = []
    for first in dict.fromkeys(group):
        members = [at for at, one in enumerate(group) if one == first]
        gpus = tuple(at for at in members if at < count)
        nics = tuple(names[at - count] for at in members if at >= count)
        if gpus and len(members) > 1:
            found.append(Switch(gpus=gpus, nics=nics))
    return tuple(found)


def other_nics(topology: Topology, node: int | None) -> list[Nic]:
    """Return the NICs of a NUMA node that no GPU shares a PCIe switch with; None: of no known node."""
    beside = {name for one in switches(topology, LinkClass.PXB) for name in one.nics}
    known = {one.id for one in topology.numa_nodes}
    return [
        nic
        for nic in topology.nics
        if nic.name not in beside and (nic.numa_node if nic.numa_node in known else None) == node
    ]


def sections(topology: Topology) -> list[tuple[str, list[NumaNode]]]:
    """Return the NUMA nodes by socket; those of no socket last, and only where they have CPUs or GPUs."""
    left = list(topology.numa_nodes)
    found = []
    for socket in topology.sockets:
        own = [node for node in left if node.cpus and node.cpus <= socket.cpus]
        left = [node for node in left if node not in own]
        found.append((f"socket {socket.id}", own))
    used = {gpu.numa_node for gpu in topology.gpus}
    rest = [node for node in left if node.cpus or node.id in used]
    return [*found, ("on no socket" if found else "", rest)] if rest else found


def _letters(count: int) -> Iterable[str]:
    return [ascii_uppercase[at % len(ascii_uppercase)] for at in range(count)]


def _island(topology: Topology, letter: str, gpus: tuple[int, ...]) -> Island:
    lanes = [link.lanes for i, j in combinations(gpus, 2) if (link := topology.links[i][j]) is not None]
    tokens = [f"NV{number}" for number in sorted(set(lanes))]
    most = max(lanes) * (len(gpus) - 1)
    return Island(letter=letter, gpus=gpus, token=" and ".join(tokens), switched=most > MOST_LINKS)
