"""One Topology out of what NVML, sysfs and `nvidia-smi topo -m` said.

Rule: NVML and sysfs come before parsed text; every fact says its source, and what the others said instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from topod.discovery.evidence import MATRIX, NVML, SYSFS, Chosen, choose
from topod.discovery.from_matrix import topology_from_matrix
from topod.discovery.gpufacts import NVIDIA_VENDOR, GpuFact, GpuFacts
from topod.discovery.machine import MachineFacts, PciDevice
from topod.discovery.merge_links import Slot, gpu_links, nics_and_links
from topod.discovery.parse_smi_topo import GpuRow, Matrix
from topod.model.cpuset import CpuSet
from topod.model.topology import Fact, Gpu, NumaNode, Topology

ONLY_NODE = "inferred: only NUMA node"
CPUS_OF_NODE = "inferred: the CPUs of its NUMA node"
_SHORTENED = 3
"""So many CPUs one by one in the matrix: nvidia-smi may have cut the list, its cell holds 15 characters."""


def merge(
    gpu_facts: GpuFacts | None, machine: MachineFacts | None, matrix: Matrix | None, name: str
) -> tuple[Topology, tuple[str, ...]]:
    """Return the host called `name`, and in sentences what was missing, left out or in disagreement.

    Each source may be None. GPUs stand in the order of NVML, which is that of `nvidia-smi` and of the PCI
    addresses. GPUs that only sysfs shows are left out: without the driver no job can use them.
    """
    only_node = _only_node(machine)
    notes = list(machine.notes) if machine else []
    slots = _slots(gpu_facts, machine, matrix, notes)
    if any(slot.row is None for slot in slots):
        matrix = None  # its rows cannot be told apart, so neither can its links
    gpus = [_Gpu.of(index, slot, machine, only_node) for index, slot in enumerate(slots)]
    placed = _with_only_node(machine, only_node)
    placed_slots = _on(placed, slots)
    links, link_facts, link_notes = gpu_links(placed_slots, gpu_facts, matrix)
    nics, nic_links, nic_facts, nic_notes = nics_and_links(placed_slots, placed, matrix)
    notes += [note for gpu in gpus for note in gpu.notes]
    topology = Topology(
        name=name,
        gpus=tuple(gpu.as_gpu(slot, name) for gpu, slot in zip(gpus, slots, strict=True)),
        links=links,
        nics=nics,
        nic_links=nic_links,
        sockets=machine.sockets if machine else (),
        numa_nodes=_numa_nodes(machine, matrix, name),
        core_groups=machine.core_groups if machine else (),
        cores=machine.cores if machine else (),
        facts=(
            *((Fact(subject="gpus", source=NVML if gpu_facts else MATRIX),) if slots else ()),
            *((Fact(subject="cpus", source=SYSFS),) if machine else ()),
            *(fact for gpu in gpus for fact in gpu.facts),
            *link_facts,
            *nic_facts,
        ),
    )
    return topology, (*notes, *link_notes, *nic_notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gpu:
    """The merged facts of one GPU."""

    index: int
    node: Chosen[int] | None
    cpus: Chosen[CpuSet] | None

    @classmethod
    def of(cls, index: int, slot: Slot, machine: MachineFacts | None, only_node: NumaNode | None) -> "_Gpu":
        nodes = slot.nvml.memory_nodes if slot.nvml else None
        known = {node.id for node in machine.numa_nodes} if machine else None
        real = [
            (SYSFS, slot.pci.numa_node if slot.pci else None),
            (NVML, nodes[0] if nodes and len(nodes) == 1 else None),
            (MATRIX, slot.row.numa_node if slot.row else None),
        ]
        # A node that this machine does not have cannot hold a GPU, whoever says so.
        candidates = [(source, node) for source, node in real if known is None or node in known]
        if only_node:
            candidates.append((ONLY_NODE, only_node.id))
        node = choose(candidates)
        return cls(index=index, node=node, cpus=_cpus(slot, machine, node))

    @property
    def facts(self) -> tuple[Fact, ...]:
        subject = f"gpu{self.index}"
        return tuple(
            chosen.fact(f"{subject}.{what}")
            for what, chosen in (("numa_node", self.node), ("cpus", self.cpus))
            if chosen is not None
        )

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(
            f"{fact.subject}: {fact.source} holds, {'; '.join(fact.disagrees)}"
            for fact in self.facts
            if fact.disagrees
        )

    def as_gpu(self, slot: Slot, name: str) -> Gpu:
        nvml, cpus = slot.nvml, self.cpus
        as_written = slot.row.cpus if slot.row and cpus and cpus.source == MATRIX else None
        return Gpu(
            index=self.index,
            uuid=nvml.uuid if nvml and nvml.uuid else f"matrix:{name}:{self.index}",
            name=nvml.name if nvml else "",
            pci_address=nvml.pci_address if nvml else slot.pci.address if slot.pci else None,
            memory_bytes=nvml.memory_bytes if nvml else None,
            numa_node=self.node.value if self.node else None,
            cpus=cpus.value if cpus else None,
            cpus_text=as_written or (str(cpus.value) if cpus else None),
        )


def _cpus(slot: Slot, machine: MachineFacts | None, node: Chosen[int] | None) -> Chosen[CpuSet] | None:
    """Choose the CPUs beside a GPU, online ones only. A kernel that knows no node lists all: not used."""
    row = slot.row.cpus if slot.row else None
    nodes = {each.id: each.cpus for each in machine.numa_nodes} if machine else {}
    of_node = nodes.get(node.value) if node else None
    kernel = slot.pci.local_cpus if slot.pci and slot.pci.numa_node is not None else None
    candidates = [
        (SYSFS, kernel),
        (NVML, CpuSet.parse(slot.nvml.cpus) if slot.nvml and slot.nvml.cpus else None),
        (MATRIX, CpuSet.parse(row) if row else None),
        (CPUS_OF_NODE, of_node),
    ]
    online = machine.online if machine else None
    cut = [(source, cpus if cpus is None or online is None else cpus & online) for source, cpus in candidates]
    shortened = row is not None and row.count(",") >= _SHORTENED - 1 and "-" not in row
    return choose(
        [(source, cpus or None) for source, cpus in cut],
        differ=lambda chosen, other: chosen != other and not (shortened and other <= chosen),
    )


def _slots(
    facts: GpuFacts | None, machine: MachineFacts | None, matrix: Matrix | None, notes: list[str]
) -> list[Slot]:
    """Match up the GPUs of all sources; says in `notes` what could not be used."""
    cards = _gpu_devices(machine)
    rows = matrix.gpus if matrix else ()
    if facts is None:
        return _slots_without_nvml(cards, rows, notes)
    present = [gpu for gpu in _in_order(facts) if gpu.uuid is not None]
    for gpu in _in_order(facts):
        if gpu.uuid is None:
            notes.append(f"GPU {gpu.index} is left out: {gpu.problem}")
        elif gpu.mig:
            notes.append(f"GPU {gpu.index} ({gpu.uuid}) is in MIG mode: topod gives out whole GPUs only")
    listed = _in_order(facts) if len(rows) == len(facts.gpus) else present  # nvidia-smi may skip a lost GPU
    if rows and len(rows) != len(listed):
        notes.append(f"{MATRIX} shows {len(rows)} GPUs and NVML {len(present)}: its matrix is not used")
        rows = ()
    by_index = {gpu.index: row for gpu, row in zip(listed, rows, strict=False)}
    unlisted = sorted({card.address for card in cards} - {gpu.pci_address for gpu in present})
    if unlisted and len(present) == len(facts.gpus):
        notes.append(f"NVML does not list the NVIDIA GPUs at {', '.join(unlisted)} that sysfs shows")
    by_address = {device.address: device for device in machine.pci} if machine else {}
    return [
        Slot(nvml=gpu, pci=by_address.get(gpu.pci_address or ""), row=by_index.get(gpu.index))
        for gpu in present
    ]


def _slots_without_nvml(cards: Sequence[PciDevice], rows: Sequence[GpuRow], notes: list[str]) -> list[Slot]:
    if rows:
        notes.append("without NVML the GPUs have no UUID: they are known by index only")
    elif cards:
        shown = ", ".join(card.address for card in cards)
        notes.append(f"sysfs shows NVIDIA GPUs ({shown}) that no driver answers for: they cannot be used")
    pci = cards if len(cards) == len(rows) else [None] * len(rows)
    return [Slot(row=row, pci=card) for row, card in zip(rows, pci, strict=True)]


def _in_order(facts: GpuFacts) -> list[GpuFact]:
    return sorted(facts.gpus, key=lambda gpu: gpu.index)


def _gpu_devices(machine: MachineFacts | None) -> Sequence[PciDevice]:
    """Return NVIDIA's VGA and 3D controllers in PCI order."""
    return [
        device
        for device in (machine.pci if machine else ())
        if device.vendor == NVIDIA_VENDOR and (device.pci_class or 0) >> 8 in {0x0300, 0x0302}
    ]


def _only_node(machine: MachineFacts | None) -> NumaNode | None:
    nodes = [node for node in machine.numa_nodes if node.cpus] if machine else []
    return nodes[0] if len(nodes) == 1 else None


def _with_only_node(machine: MachineFacts | None, only: NumaNode | None) -> MachineFacts | None:
    """Fill in the NUMA node of devices that have none, where there is only one to be on."""
    if machine is None or only is None:
        return machine
    pci = tuple(
        replace(device, numa_node=only.id) if device.numa_node is None else device for device in machine.pci
    )
    return replace(machine, pci=pci)


def _on(machine: MachineFacts | None, slots: Sequence[Slot]) -> list[Slot]:
    """Return the slots with their PCI devices as `machine` has them."""
    by_address = {device.address: device for device in machine.pci} if machine else {}
    return [replace(slot, pci=by_address.get(slot.pci.address) if slot.pci else None) for slot in slots]


def _numa_nodes(machine: MachineFacts | None, matrix: Matrix | None, name: str) -> tuple[NumaNode, ...]:
    if machine is not None:
        return machine.numa_nodes
    return topology_from_matrix(matrix, name).numa_nodes if matrix else ()
