"""Which CPUs lie beside which GPU, and how many of them are its fair share."""

from dataclasses import dataclass

from topod.flextopo.affinity import socket_of
from topod.model.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuDomain:
    """The CPUs beside some GPUs: a NUMA node, or the CPUs that a source names for GPUs without a node."""

    name: str
    """For sentences: `NUMA node 1`, `the CPUs of GPU 2`."""
    cpus: int
    """Bit n set for CPU n. Domains never overlap."""
    gpus: int
    share: int
    """CPUs that `auto` gives to each GPU: whole cores where cores are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuPlace:
    """Where the CPUs beside a GPU are."""

    domain: int | None
    """Index of its domain, None where nothing is known: its CPUs may come from anywhere."""
    socket: int
    """The CPUs of its socket, else of its domain, else every CPU of the host."""


def known_cpus(topology: Topology) -> int:
    """Return the mask of all CPUs of the host; where only GPUs name CPUs (matrix text), those."""
    mask = topology.cpus.mask
    if not mask:
        for gpu in topology.gpus:
            mask |= gpu.cpus.mask if gpu.cpus is not None else 0
    return mask


def cpu_domains(topology: Topology) -> tuple[tuple[CpuDomain, ...], tuple[CpuPlace, ...]]:
    """Return the CPU domains in the order of their first GPU, and the place of each GPU."""
    every = known_cpus(topology)
    beside = _cpus_beside(topology, every)
    masks = list(dict.fromkeys(mask for mask, _ in beside if mask))
    domains = tuple(_domain(topology, mask, beside) for mask in masks)
    sockets = {socket.id: socket.cpus.mask & every for socket in topology.sockets}
    places = []
    for gpu, (mask, _) in zip(topology.gpus, beside, strict=True):
        socket = socket_of(topology, gpu)
        area = (sockets[socket] if socket is not None else 0) or mask or every
        places.append(CpuPlace(domain=masks.index(mask) if mask else None, socket=area))
    return domains, tuple(places)


def _cpus_beside(topology: Topology, every: int) -> list[tuple[int, str]]:
    """Return for each GPU the CPUs of its domain (0: none) and the domain's name."""
    nodes = {node.id: node.cpus.mask & every for node in topology.numa_nodes}
    beside: list[tuple[int, str]] = []
    for gpu in topology.gpus:
        mask = nodes.get(gpu.numa_node, 0) if gpu.numa_node is not None else 0
        beside.append((mask, f"NUMA node {gpu.numa_node}" if mask else ""))
    certain = {mask for mask, _ in beside if mask}
    wanted = {
        gpu.index: gpu.cpus.mask & every
        for gpu, (mask, _) in zip(topology.gpus, beside, strict=True)
        if not mask and gpu.cpus is not None
    }
    others = certain | set(wanted.values())
    for index, mask in wanted.items():
        # Sets that overlap without being equal cannot be counted apart: such a GPU has no domain.
        if mask and all(mask == other or not mask & other for other in others):
            beside[index] = (
                mask,
                next((name for m, name in beside if m == mask), f"the CPUs of GPU {index}"),
            )
    return beside


def _domain(topology: Topology, mask: int, beside: list[tuple[int, str]]) -> CpuDomain:
    gpus = sum(1 << i for i, (other, _) in enumerate(beside) if other == mask)
    name = next(name for other, name in beside if other == mask)
    share = mask.bit_count() // gpus.bit_count()
    threads = max(((core.cpus.mask & mask).bit_count() for core in topology.cores), default=0) or 1
    if share >= threads:  # else there is not a whole core for each GPU, and the share stays a part of one
        share -= share % threads
    return CpuDomain(name=name, cpus=mask, gpus=gpus, share=share)
