"""What NVML said about the GPUs of a host, as values: nothing here calls NVML.

`GpuFacts` does not change while the host is up; `LiveFacts` is one reading of what does. Every fact that a
driver or a GPU does not offer is None, never a guess.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

MIB = 1024**2
IDLE_MEMORY_BYTES = 1024 * MIB
"""Memory in use on a GPU without compute processes: the driver's own and a desktop's stay below this."""
IDLE_SLACK_BYTES = 256 * MIB
"""How much more than at its quietest an idle GPU may show."""

IBM_VENDOR = 0x1014
NVIDIA_VENDOR = 0x10DE


@dataclass(frozen=True, slots=True, kw_only=True)
class NvLink:
    """One active NVLink of a GPU and what NVML says is at its other end."""

    number: int
    remote: Literal["gpu", "switch", "other", "unknown"] = "unknown"
    remote_pci: str | None = None
    remote_vendor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFact:
    """The lasting facts of one GPU; `index` is NVML's, which is the PCI order that nvidia-smi shows."""

    index: int
    uuid: str | None = None
    """None where the GPU is lost: nothing else is known of it then."""
    name: str = ""
    pci_address: str | None = None
    """As `normalise_pci` writes it."""
    memory_bytes: int | None = None
    cpus: str | None = None
    """The CPUs of its NUMA node as a kernel list (`0-15,32-47`)."""
    memory_nodes: tuple[int, ...] | None = None
    """The NUMA nodes nearest to it ("NUMA Affinity" of nvidia-smi)."""
    own_numa_node: int | None = None
    """The node that the GPU's own memory is, on coherent systems such as GH200 ("GPU NUMA ID")."""
    mig: bool | None = None
    nvlinks: tuple[NvLink, ...] | None = None
    """Its active NVLinks; empty where it has none, None where NVML could not say."""
    problem: str | None = None
    """Why facts are missing: `GPU is lost`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFact:
    """What NVML says of two GPUs, `a` < `b` by NVML index."""

    a: int
    b: int
    ancestor: str | None = None
    """The PCIe link class of their nearest common ancestor: PIX, PXB, PHB, NODE or SYS."""
    p2p_nvlink: bool | None = None
    """Whether they can reach each other's memory over NVLink."""
    p2p_read: bool | None = None
    """Whether one can read the other's memory at all, over whatever joins them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """The lasting facts of all GPUs of a host, as NVML tells them."""

    driver: str | None = None
    gpus: tuple[GpuFact, ...] = ()
    pairs: tuple[PairFact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """One process on a GPU; `pid` is the host's. Memory is None where the driver does not tell."""

    pid: int
    kind: Literal["compute", "graphics"] = "compute"
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuLive:
    """One GPU at one moment."""

    uuid: str
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    """Without what the driver reserves for itself, where NVML tells them apart."""
    utilisation_percent: int | None = None
    temperature_celsius: int | None = None
    processes: tuple[GpuProcess, ...] | None = None
    """None where NVML could not say; that is not the same as no process."""
    mig: bool | None = None
    ecc_uncorrected: int | None = None
    """Uncorrected memory errors since the driver was loaded."""
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    retired_pending: bool | None = None
    """Older GPUs: a memory page will be retired at the next reset."""
    recovery: str | None = None
    """What newer drivers ask for: `none`, `reset`, `reboot`, `drain-p2p`, `drain-reset`, else `action N`."""
    slowdown: str | None = None
    """What the hardware slows it down for: `heat`, `the power supply`."""
    idle_bytes: int | None = None
    """The least memory seen in use on it while nothing ran, before this reading; None where never seen."""
    problem: str | None = None
    """Why the GPU cannot be read: `GPU is lost`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFacts:
    """All GPUs of a host at one moment; those that were seen before and are gone carry a problem."""

    gpus: tuple[GpuLive, ...] = ()

    def of(self, uuid: str) -> GpuLive | None:
        """Return the reading of one GPU, None where NVML does not know it."""
        return next((gpu for gpu in self.gpus if gpu.uuid == uuid), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class XidEvent:
    """A critical error that the driver reported. `uuid` is None where the GPU could not be named any more."""

    uuid: str | None
    xid: int


def normalise_pci(text: str) -> str:
    """Return a PCI address in the kernel's form: `00000000:3B:00.0` gives `0000:3b:00.0`.

    Raises `ValueError` on anything else.
    """
    parts = text.strip().split(":")
    device, dot, function = parts[-1].partition(".")
    if len(parts) not in {2, 3} or not dot:
        raise ValueError(f"not a PCI address: {text!r}")
    try:
        domain = int(parts[0], 16) if len(parts) == 3 else 0
        return f"{domain:04x}:{int(parts[-2], 16):02x}:{int(device, 16):02x}.{int(function, 16):x}"
    except ValueError:
        raise ValueError(f"not a PCI address: {text!r}") from None


def nvlink_lanes(facts: GpuFacts) -> Mapping[tuple[int, int], int | None]:
    """Return the bonded NVLinks of every pair (a, b), a < b, of GPUs that could be read: nvidia-smi's `NV#`.

    Direct links are counted per pair. Through NVSwitches every GPU reaches every other with all its links,
    so the pair has as many as the GPU with fewer. 0: no NVLink; None: NVML says that they are joined by
    NVLink, or does not say whether, and the links cannot be counted.
    """
    gpus = [gpu for gpu in facts.gpus if gpu.uuid is not None]
    known = {gpu.pci_address for gpu in gpus} - {None}
    p2p = {(pair.a, pair.b): pair.p2p_nvlink for pair in facts.pairs}
    lanes: dict[tuple[int, int], int | None] = {}
    for a, b in combinations(gpus, 2):
        joined = p2p.get((a.index, b.index))
        if a.nvlinks is None or b.nvlinks is None:
            lanes[a.index, b.index] = 0 if joined is False else None
            continue
        direct = max(_links_to(a, b), _links_to(b, a))
        certain = min(_switch_links(a, known, guess=False), _switch_links(b, known, guess=False))
        guessed = min(_switch_links(a, known, guess=True), _switch_links(b, known, guess=True))
        if direct:
            lanes[a.index, b.index] = direct
        elif joined is False:
            lanes[a.index, b.index] = 0
        elif joined and guessed:
            lanes[a.index, b.index] = guessed
        else:
            lanes[a.index, b.index] = certain or (None if joined or guessed else 0)
    return lanes


def _links_to(gpu: GpuFact, other: GpuFact) -> int:
    address = other.pci_address
    return sum(link.remote_pci == address for link in gpu.nvlinks or ()) if address else 0


def _switch_links(gpu: GpuFact, known: Collection[str | None], *, guess: bool) -> int:
    """Count links to NVSwitches; with `guess` also those whose far end NVML does not name."""
    return sum(
        link.remote == "switch"
        or (
            guess
            and link.remote == "unknown"
            and link.remote_pci not in known
            and link.remote_vendor != IBM_VENDOR
        )
        for link in gpu.nvlinks or ()
    )


def busy_reasons(
    live: LiveFacts,
    uuids: Collection[str],
    *,
    names: Mapping[int, str] | None = None,
    ignore_pids: Collection[int] = (),
) -> dict[str, str]:
    """Return, for each of the GPUs that is not free, what shows it; empty when all are free.

    A compute process counts. A graphics process (a desktop) counts only by the memory that it holds:
    memory must be back at `idle_bytes`, the least seen on the idle GPU, and below a general bound where that
    is unknown. Processes of `ignore_pids` do not count, nor does the memory that they are known to hold. A
    GPU that cannot be read is not free. `names`: how to call a process: `python, alice`.
    """
    found = {uuid: _signs(live.of(uuid), names or {}, ignore_pids) for uuid in sorted(uuids)}
    return {uuid: "; ".join(signs) for uuid, signs in found.items() if signs}


def held_text(process: GpuProcess, name: str = "") -> str:
    """Return `pid 4711 (python, alice) holds 3.1 GiB`; `name` is what stands in the brackets."""
    who = f"pid {process.pid} ({name})" if name else f"pid {process.pid}"
    return (
        f"{who} is on it"
        if process.memory_bytes is None
        else f"{who} holds {size_text(process.memory_bytes)}"
    )


def size_text(size: int) -> str:
    """Return a size in memory: `700 MiB`, `22.1 GiB`."""
    return f"{size // MIB} MiB" if size < 1024 * MIB else f"{size / (1024 * MIB):.1f} GiB"


def idle_limit(gpu: GpuLive) -> int:
    """Return how much memory may be in use, in bytes, on this GPU when nothing runs on it."""
    return IDLE_MEMORY_BYTES if gpu.idle_bytes is None else gpu.idle_bytes + IDLE_SLACK_BYTES


def _signs(gpu: GpuLive | None, names: Mapping[int, str], ignore_pids: Collection[int]) -> list[str]:
    if gpu is None or gpu.problem is not None:
        return ["NVML does not know it" if gpu is None else str(gpu.problem)]
    signs = ["NVML does not tell its processes"] if gpu.processes is None else []
    signs += [
        held_text(process, names.get(process.pid, ""))
        for process in gpu.processes or ()
        if process.kind == "compute" and process.pid not in ignore_pids
    ]
    used, limit = gpu.memory_used_bytes, idle_limit(gpu)
    ignored = (process for process in gpu.processes or () if process.pid in ignore_pids)
    if used is not None and used - sum(process.memory_bytes or 0 for process in ignored) > limit:
        signs.append(f"{size_text(used)} in use, at most {size_text(limit)} when free")
    return signs
