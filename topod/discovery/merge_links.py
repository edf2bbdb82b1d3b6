"""How the devices of a host are joined, from NVML, sysfs and the matrix of `nvidia-smi`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from topod.discovery.evidence import MATRIX, NVML, SYSFS, Chosen, choose
from topod.discovery.gpufacts import GpuFact, GpuFacts, PairFact, nvlink_lanes
from topod.discovery.machine import MachineFacts, PciDevice, pci_link_class
from topod.discovery.parse_smi_topo import GpuRow, Matrix
from topod.model.links import Link, LinkClass
from topod.model.topology import Fact, Nic

FARTHEST = "inferred: unknown, taken as farthest"
FROM_NODES = "inferred: from the NUMA nodes"
UNCOUNTED = "inferred: NVML says NVLink, not how many"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One GPU of the merged host: what each source has about it."""

    nvml: GpuFact | None = None
    pci: PciDevice | None = None
    """With the NUMA node filled in where the host has only one."""
    row: GpuRow | None = None


def gpu_links(
    slots: Sequence[Slot], facts: GpuFacts | None, matrix: Matrix | None
) -> tuple[tuple[tuple[Link | None, ...], ...], tuple[Fact, ...], tuple[str, ...]]:
    """Return the link matrix of the GPUs, where its links came from, and the disagreements in words."""
    lanes = nvlink_lanes(facts) if facts else {}
    pairs = {(pair.a, pair.b): pair for pair in facts.pairs} if facts else {}
    links: list[list[Link | None]] = [[None] * len(slots) for _ in slots]
    chosen: dict[str, Chosen[Link]] = {}
    for i, j in combinations(range(len(slots)), 2):
        a, b = slots[i].nvml, slots[j].nvml
        key = (a.index, b.index) if a and b else (-1, -1)
        link = _gpu_link(slots[i], slots[j], pairs.get(key), lanes.get(key), matrix)
        links[i][j] = links[j][i] = link.value
        chosen[f"gpu{i}-gpu{j}"] = link
    matrix_of_links = tuple(tuple(row) for row in links)
    if not chosen:
        return matrix_of_links, (), ()
    usual = Counter(link.source for link in chosen.values()).most_common(1)[0][0]
    facts_found = [Fact(subject="links", source=usual)]
    for subject, link in chosen.items():
        if link.source != usual or link.disagrees:
            facts_found.append(link.fact(f"{subject}.link"))
    return matrix_of_links, tuple(facts_found), _in_words(chosen)


def _gpu_link(
    a: Slot, b: Slot, pair: PairFact | None, count: int | None, matrix: Matrix | None
) -> Chosen[Link]:
    """Choose one link. `count` is NVML's number of NVLinks, None where it does not know."""
    text = _text_link(a, b, matrix)
    nvlink: tuple[str, Link] | None = None
    if count:
        nvlink = NVML, Link(LinkClass.NVLINK, count)
    elif count is None and text is not None and text.kind is LinkClass.NVLINK:
        nvlink = MATRIX, text
    elif count is None and pair is not None and pair.p2p_nvlink:
        nvlink = UNCOUNTED, Link(LinkClass.NVLINK, 1)
    candidates: list[tuple[str, Link | None]] = [nvlink, (MATRIX, text)] if nvlink else []
    if not nvlink:  # the PCIe way of two GPUs says nothing against an NVLink, so it is asked without one only
        ancestor = Link.parse(pair.ancestor) if pair and pair.ancestor else None
        candidates += [(NVML, ancestor), (SYSFS, _sysfs_link(a.pci, b.pci)), (MATRIX, text)]
        candidates += [(FROM_NODES, _link_by_node(a.pci, b.pci)), (FARTHEST, Link(LinkClass.SYS))]
    found = choose(candidates, show=lambda link: link.token)
    assert found is not None  # either list has a value
    return found


def _text_link(a: Slot, b: Slot, matrix: Matrix | None) -> Link | None:
    if matrix is None or a.row is None or b.row is None:
        return None
    return Link.parse(matrix.links[a.row.index][b.row.index])


def _sysfs_link(a: PciDevice | None, b: PciDevice | None) -> Link | None:
    """Return the link class where sysfs is sure of it: the ways of both devices are known."""
    if a is None or b is None or a.root_complex is None or b.root_complex is None:
        return None
    if a.root_complex != b.root_complex and (a.numa_node is None or b.numa_node is None):
        return None
    return Link(pci_link_class(a, b))


def _link_by_node(a: PciDevice | None, b: PciDevice | None) -> Link | None:
    """Return what the NUMA nodes alone say: at best NODE."""
    if a is None or b is None or a.numa_node is None or b.numa_node is None:
        return None
    return Link(pci_link_class(a, b))


def nics_and_links(
    slots: Sequence[Slot], machine: MachineFacts | None, matrix: Matrix | None
) -> tuple[tuple[Nic, ...], tuple[tuple[Link | None, ...], ...], tuple[Fact, ...], tuple[str, ...]]:
    """Return the NICs, their links to each GPU, where both came from, and the disagreements in words.

    The NICs of the matrix come first, in its order, then those that only sysfs shows: RDMA devices, or where
    there are none the network cards.
    """
    devices = _network_devices(machine)
    named = dict(matrix.nic_devices) if matrix else {}
    columns = matrix.nics if matrix else ()
    found = [(name, named.get(name), devices.pop(named.get(name, name), None)) for name in columns]
    found += [(name, None, device) for name, device in devices.items()]
    if not found:
        return (), (), (), ()
    nics = tuple(
        Nic(
            name=name,
            device=device,
            pci_address=card.address if card else None,
            numa_node=card.numa_node if card else None,
        )
        for name, device, card in found
    )
    links: list[list[Link | None]] = [[] for _ in slots]
    chosen: dict[str, Chosen[Link]] = {}
    for index, slot in enumerate(slots):
        for column, (name, _, card) in enumerate(found):
            text = _nic_cell(slot, matrix, column)
            link = choose(
                [(SYSFS, _sysfs_link(slot.pci, card)), (MATRIX, text)], show=lambda link: link.token
            )
            links[index].append(link.value if link else None)
            if link:
                chosen[f"gpu{index}-{name}"] = link
    facts = [Fact(subject="nics", source=MATRIX if columns else SYSFS)]
    facts += [link.fact(f"{subject}.link") for subject, link in chosen.items() if link.disagrees]
    return nics, tuple(tuple(row) for row in links), tuple(facts), _in_words(chosen)


def _nic_cell(slot: Slot, matrix: Matrix | None, column: int) -> Link | None:
    """Return what the matrix says of a GPU and a NIC; None for NICs that it does not have."""
    if matrix is None or slot.row is None or column >= len(matrix.nics):
        return None
    return Link.parse(matrix.nic_links[slot.row.index][column])


def _network_devices(machine: MachineFacts | None) -> dict[str, PciDevice]:
    """Return the PCI devices by the name to show, RDMA devices before plain network cards."""
    pci = machine.pci if machine else ()
    rdma = {name: device for device in pci for name in device.infiniband}
    if rdma:
        return rdma
    return {name: device for device in pci if (device.pci_class or 0) >> 16 == 0x02 for name in device.net}


def _in_words(chosen: Mapping[str, Chosen[Link]]) -> tuple[str, ...]:
    """Return one sentence per kind of disagreement, with the number of links that have it."""
    kinds: dict[tuple[str, str, str, str], list[str]] = {}
    for subject, link in chosen.items():
        for source, said in link.disagrees:
            kinds.setdefault((link.source, link.value.token, source, said), []).append(subject)
    return tuple(
        f"{subjects[0]}{f' and {len(subjects) - 1} more links' if len(subjects) > 1 else ''}: "
        f"{source} says {value}, {other} says {said}; {source} holds"
        for (source, value, other, said), subjects in kinds.items()
    )
