"""Readings of NVML through `pynvml`, for the worker process only: any call may hang in the driver.

Rule: a call that the driver, the GPU or the library does not offer makes its fact None; a GPU that is lost is
reported with a problem and does not hide the others.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import Any, Literal

import pynvml

from topod.discovery.gpufacts import (
    GpuFact,
    GpuFacts,
    GpuLive,
    GpuProcess,
    LiveFacts,
    NvLink,
    PairFact,
    normalise_pci,
)
from topod.model.cpuset import MAX_CPU, CpuSet

REMOTES: dict[int, Literal["gpu", "switch", "other"]] = {0: "gpu", 1: "other", 2: "switch"}
ANCESTORS = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
"""NVML's common ancestor levels; 0 is two GPUs on one board, which nvidia-smi shows as PIX."""
P2P_READ, P2P_NVLINK = 0, 2  # pynvml.NVML_P2P_CAPS_INDEX_READ is the tuple (0,) by mistake
P2P_OK, P2P_UNKNOWN = 0, 6
NODE_SCOPE = 0
MAX_LINKS = 36
WORDS = MAX_CPU // 64 + 1
RECOVERY_ACTION = 230  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
RECOVERIES = {0: "none", 1: "reset", 2: "reboot", 3: "drain-p2p", 4: "drain-reset"}
SLOWDOWNS = {0x40: "heat", 0x20: "heat", 0x80: "the power supply"}
"""Bits of nvmlClocksEventReasons: hardware and software thermal slowdown, external power brake."""
LOST = {15: "GPU is lost", 16: "GPU needs a reset"}


NOT_OFFERED = (
    AttributeError,  # an older pynvml lacks the function
    UnicodeDecodeError,  # a damaged name
    getattr(pynvml, "NVMLLibraryMismatchError", AttributeError),  # a function that the driver's library lacks
)


class GpuLostError(Exception):
    """The GPU fell off the bus or needs a reset; no other call on it will answer."""


def ask(function: str, *arguments: object) -> Any:
    """Return the answer of the NVML function, None where it is not offered; raises `GpuLostError`."""
    try:
        return getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError as error:
        if error.value in LOST:
            raise GpuLostError(LOST[error.value]) from None
        return None
    except NOT_OFFERED:
        return None


def handles() -> list[tuple[int, Any, str | None, str | None]]:
    """Return (index, handle, UUID, problem) of each GPU; raises `NVMLError` where they cannot be counted."""
    found: list[tuple[int, Any, str | None, str | None]] = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            handle = ask("nvmlDeviceGetHandleByIndex", index)
            uuid = None if handle is None else ask("nvmlDeviceGetUUID", handle)
            found.append((index, handle, uuid, None if uuid else "NVML does not give its UUID"))
        except GpuLostError as lost:
            found.append((index, None, None, str(lost)))
    return found


def read_facts() -> GpuFacts:
    """Read what does not change while the host is up."""
    gpus: list[GpuFact] = []
    alive: list[tuple[int, Any]] = []
    for index, handle, uuid, problem in handles():
        if uuid is None:
            gpus.append(GpuFact(index=index, problem=problem))
            continue
        try:
            gpus.append(_read_gpu(index, handle, uuid))
            alive.append((index, handle))
        except GpuLostError as lost:
            gpus.append(GpuFact(index=index, problem=str(lost)))
    pairs = tuple(_read_pair(a, b) for a, b in combinations(alive, 2))
    return GpuFacts(driver=_driver(), gpus=tuple(gpus), pairs=pairs)


def read_live() -> LiveFacts:
    """Read what changes: memory, processes, health."""
    gpus: list[GpuLive] = []
    for _, handle, uuid, _ in handles():
        if uuid is None:
            continue  # its UUID is not known; the probe remembers which one is missing
        try:
            gpus.append(_read_live(handle, uuid))
        except GpuLostError as lost:
            gpus.append(GpuLive(uuid=uuid, problem=str(lost)))
    return LiveFacts(gpus=tuple(gpus))


def _driver() -> str | None:
    try:
        version = ask("nvmlSystemGetDriverVersion")
    except GpuLostError:
        return None
    return None if version is None else str(version)


def _read_gpu(index: int, handle: Any, uuid: str) -> GpuFact:
    memory, mig = _memory(handle), ask("nvmlDeviceGetMigMode", handle)
    own_node = ask("nvmlDeviceGetNumaNodeId", handle)
    nodes = ask("nvmlDeviceGetMemoryAffinity", handle, WORDS, NODE_SCOPE)
    cpus = ask("nvmlDeviceGetCpuAffinityWithinScope", handle, WORDS, NODE_SCOPE)
    if cpus is None:
        cpus = ask("nvmlDeviceGetCpuAffinity", handle, WORDS)
    node_set = _bits(nodes)
    return GpuFact(
        index=index,
        uuid=uuid,
        name=ask("nvmlDeviceGetName", handle) or "",
        pci_address=_pci_address(ask("nvmlDeviceGetPciInfo", handle)),
        memory_bytes=None if memory is None else memory.total,
        cpus=str(_bits(cpus)) or None,
        memory_nodes=tuple(node_set) or None,
        own_numa_node=own_node if isinstance(own_node, int) and own_node >= 0 else None,
        mig=None if mig is None else bool(mig[0]),
        nvlinks=_read_nvlinks(handle),
    )


def _read_nvlinks(handle: Any) -> tuple[NvLink, ...] | None:
    """Return the active links; a GPU without NVLink answers "not supported" for each of them."""
    links: list[NvLink] = []
    for number in range(MAX_LINKS):
        try:
            active = pynvml.nvmlDeviceGetNvLinkState(handle, number)
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
            continue
        except pynvml.NVMLError as error:
            if error.value in LOST:
                raise GpuLostError(LOST[error.value]) from None
            return None
        if not active:
            continue
        remote = ask("nvmlDeviceGetNvLinkRemotePciInfo", handle, number)
        kind = ask("nvmlDeviceGetNvLinkRemoteDeviceType", handle, number)
        vendor = 0 if remote is None else remote.pciDeviceId & 0xFFFF
        links.append(
            NvLink(
                number=number,
                remote="unknown" if kind is None else REMOTES.get(kind, "unknown"),
                remote_pci=_pci_address(remote),
                remote_vendor=vendor or None,
            )
        )
    return tuple(links)


def _read_pair(a: tuple[int, Any], b: tuple[int, Any]) -> PairFact:
    try:
        level = ask("nvmlDeviceGetTopologyCommonAncestor", a[1], b[1])
        nvlink = ask("nvmlDeviceGetP2PStatus", a[1], b[1], P2P_NVLINK)
        read = ask("nvmlDeviceGetP2PStatus", a[1], b[1], P2P_READ)
    except GpuLostError:
        return PairFact(a=a[0], b=b[0])
    return PairFact(
        a=a[0],
        b=b[0],
        ancestor=None if level is None else ANCESTORS.get(level),
        p2p_nvlink=_p2p(nvlink),
        p2p_read=_p2p(read),
    )


def _p2p(status: int | None) -> bool | None:
    return None if status is None or status >= P2P_UNKNOWN else status == P2P_OK


def _read_live(handle: Any, uuid: str) -> GpuLive:
    memory, mig = _memory(handle), ask("nvmlDeviceGetMigMode", handle)
    use, remap = ask("nvmlDeviceGetUtilizationRates", handle), ask("nvmlDeviceGetRemappedRows", handle)
    return GpuLive(
        uuid=uuid,
        memory_bytes=None if memory is None else memory.total,
        memory_used_bytes=None if memory is None else memory.used,
        utilisation_percent=None if use is None else use.gpu,
        temperature_celsius=ask("nvmlDeviceGetTemperature", handle, 0),
        processes=_processes(handle),
        mig=None if mig is None else bool(mig[0]),
        ecc_uncorrected=ask(
            "nvmlDeviceGetTotalEccErrors", handle, 1, 0
        ),  # uncorrected, since the driver's load
        remap_pending=None if remap is None else bool(remap[2]),
        remap_failed=None if remap is None else bool(remap[3]),
        retired_pending=_flag(ask("nvmlDeviceGetRetiredPagesPendingStatus", handle)),
        recovery=_recovery(handle),
        slowdown=_slowdown(handle),
    )


def _flag(answer: int | None) -> bool | None:
    return None if answer is None else bool(answer)


def _recovery(handle: Any) -> str | None:
    values = ask("nvmlDeviceGetFieldValues", handle, [RECOVERY_ACTION])
    if values is None or values[0].nvmlReturn:
        return None
    action = int(values[0].value.uiVal)
    return RECOVERIES.get(action, f"action {action}")


def _slowdown(handle: Any) -> str | None:
    reasons = ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
    if reasons is None:
        reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    return next((words for bit, words in SLOWDOWNS.items() if (reasons or 0) & bit), None)


def _memory(handle: Any) -> Any:
    """Return NVML's memory reading, the newer one that leaves out the driver's reserve where there is one."""
    memory = ask("nvmlDeviceGetMemoryInfo", handle, 0x02000028)
    return ask("nvmlDeviceGetMemoryInfo", handle) if memory is None else memory


def _processes(handle: Any) -> tuple[GpuProcess, ...] | None:
    """Return the processes; None unless the compute ones could be read."""
    compute = _first(
        "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2", handle
    )
    if compute is None:
        return None
    graphics = _first(
        "nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2", handle
    )
    by_pid = {entry.pid: _process(entry, "graphics") for entry in graphics or ()}
    by_pid |= {entry.pid: _process(entry, "compute") for entry in compute}
    return tuple(by_pid[pid] for pid in sorted(by_pid))


def _first(newer: str, older: str, handle: Any) -> Any:
    answer = ask(newer, handle)
    return ask(older, handle) if answer is None else answer


def _process(entry: Any, kind: Literal["compute", "graphics"]) -> GpuProcess:
    return GpuProcess(pid=entry.pid, kind=kind, memory_bytes=entry.usedGpuMemory)


def _bits(words: Iterable[int] | None) -> CpuSet:
    mask = 0
    for position, word in enumerate(words or ()):
        mask |= word << (64 * position)
    return CpuSet(mask)


def _pci_address(info: Any) -> str | None:
    """Return the address; None for the all-ones and all-zeros that drivers write where they know none."""
    if info is None:
        return None
    text = info.busId.decode(errors="replace") if isinstance(info.busId, bytes) else str(info.busId)
    try:
        address = normalise_pci(text)
    except ValueError:
        return None
    return None if address.startswith("ffffffff") or address == "0000:00:00.0" else address
