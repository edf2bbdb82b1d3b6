"""CPUs and memory of a machine from captured sysfs text.

Rule: what is damaged counts as missing and leaves a note; only a machine without any CPU is an error.
Names and formats: Documentation/ABI/testing/sysfs-devices-system-cpu and admin-guide/cputopology.rst (Linux).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from topod.discovery.machine import MachineFacts
from topod.discovery.parse_cpuset_cgroup import cpuset_files
from topod.discovery.parse_pci import interpret_pci, parse_cpu_map
from topod.discovery.rawhost import RawSysfs
from topod.errors import ProbeError
from topod.model.cpuset import MAX_CPU, NO_CPUS, CpuSet
from topod.model.topology import Core, CoreGroup, NumaNode, Socket

CPU_FOLDERS = ("sys/devices/system/cpu", "sys/bus/cpu/devices")
"""The first that has `cpuN` folders is read; some dumps keep only the second."""
NODE_FOLDERS = ("sys/devices/system/node", "sys/bus/node/devices")

CORE_FILES = ("core_cpus_list", "thread_siblings_list", "core_cpus", "thread_siblings")
SOCKET_FILES = ("package_cpus_list", "core_siblings_list", "package_cpus", "core_siblings")
L3_FILES = ("shared_cpu_list", "shared_cpu_map")
NODE_CPU_FILES = ("cpulist", "cpumap")


def numbered(raw: RawSysfs, folders: Sequence[str], prefix: str) -> tuple[str, tuple[int, ...]]:
    """Return the first of `folders` with entries such as `cpu0`, and their numbers in order."""
    for folder in folders:
        numbers = entry_numbers(raw.folders.get(folder, ()), prefix)
        if numbers:
            return folder, numbers
    return folders[0], ()


def entry_numbers(names: Iterable[str], prefix: str) -> tuple[int, ...]:
    """Return the numbers n of the names `{prefix}{n}`, in order (`cpu0` but not `cpufreq`)."""
    found = (re.fullmatch(rf"{prefix}([0-9]{{1,6}})", name) for name in names)
    return tuple(sorted(int(match[1]) for match in found if match and int(match[1]) <= MAX_CPU))


def interpret_sysfs(raw: RawSysfs) -> MachineFacts:
    """Return the machine that `raw` describes. Raises `ProbeError` where it names no online CPU."""
    notes = list(raw.skipped)
    folder, present, online = _cpus(raw, notes)
    if not online:
        raise ProbeError(f"no online CPU in {folder}", hint="is sysfs mounted at /sys?")
    numa_nodes = _numa_nodes(raw, online, notes)
    cores = _partition(online, lambda cpu: _siblings(raw, f"{folder}/cpu{cpu}/topology", CORE_FILES, notes))
    caches = _l3(raw, folder, online, notes)
    return MachineFacts(
        sockets=_sockets(raw, folder, online, notes),
        numa_nodes=numa_nodes,
        core_groups=_core_groups(caches, numa_nodes),
        cores=tuple(Core(id=index, cpus=cpus) for index, cpus in enumerate(cores)),
        online=online,
        offline=present - online,
        isolated=(_cpu_list(raw, f"{CPU_FOLDERS[0]}/isolated", notes) or NO_CPUS) & online,
        allowed=_allowed(raw, online),
        smt=max(len(cpus) for cpus in cores),
        l3_count=len(caches),
        pci=interpret_pci(raw, online),
        notes=tuple(dict.fromkeys(notes)),
    )


def _cpus(raw: RawSysfs, notes: list[str]) -> tuple[str, CpuSet, CpuSet]:
    """Return the folder of the CPUs, those that are present, and those that are online."""
    folder, numbers = numbered(raw, CPU_FOLDERS, "cpu")
    listed = _cpu_list(raw, f"{CPU_FOLDERS[0]}/online", notes)
    present = CpuSet.of(numbers) if numbers else (listed or NO_CPUS)
    off = CpuSet.of(cpu for cpu in present if raw.files.get(f"{folder}/cpu{cpu}/online") == "0")
    online = present - off
    return folder, present, online if listed is None else online & listed


def _sockets(raw: RawSysfs, folder: str, online: CpuSet, notes: list[str]) -> tuple[Socket, ...]:
    """Return the packages, by sibling maps where there are any, else by `physical_package_id`.

    The maps come first because package ids repeat on machines of several chassis. Ids are the kernel's where
    they tell the packages apart, else counted from 0 (POWER7 says -1 everywhere).
    """
    ids = {
        cpu: _integer(raw.files.get(f"{folder}/cpu{cpu}/topology/physical_package_id")) or 0 for cpu in online
    }
    by_id: dict[int, int] = {}
    for cpu, package in ids.items():
        by_id[package] = by_id.get(package, 0) | 1 << cpu

    def same_package(cpu: int) -> CpuSet:
        cpus = _siblings(raw, f"{folder}/cpu{cpu}/topology", SOCKET_FILES, notes)
        return CpuSet(by_id[ids[cpu]]) if cpus is None else cpus

    packages = _partition(online, same_package)
    kernel_ids = [ids[next(iter(cpus))] for cpus in packages]
    if len(set(kernel_ids)) < len(kernel_ids) or min(kernel_ids) < 0:
        notes.append(
            "the package ids do not tell the sockets apart: numbered in the order of their first CPU"
        )
        kernel_ids = list(range(len(packages)))
    pairs = sorted(zip(kernel_ids, packages, strict=True), key=lambda pair: pair[0])
    return tuple(Socket(id=ident, cpus=cpus) for ident, cpus in pairs)


def _numa_nodes(raw: RawSysfs, online: CpuSet, notes: list[str]) -> tuple[NumaNode, ...]:
    """Return the nodes, memory-only ones with no CPUs.

    Firmware has been seen to give every node the same CPUs. As in hwloc, a node whose CPUs belong to an
    earlier node already is left out: nothing on it could be placed with any meaning.
    """
    folder, numbers = numbered(raw, NODE_FOLDERS, "node")
    if not numbers:
        notes.append("the kernel shows no NUMA nodes: the machine counts as one node")
        memory = _memory_bytes(raw.files.get("proc/meminfo", ""))
        return (NumaNode(id=0, cpus=online, memory_bytes=memory),)
    seen = NO_CPUS
    kept: dict[int, CpuSet] = {}
    for number in numbers:
        cpus = (_siblings(raw, f"{folder}/node{number}", NODE_CPU_FILES, notes) or NO_CPUS) & online
        if cpus & seen:
            notes.append(
                f"NUMA node {number} left out: its CPUs {cpus & seen} belong to another node already"
            )
            continue
        seen |= cpus
        kept[number] = cpus
    if online - seen:
        notes.append(f"CPUs {online - seen} belong to no NUMA node")
    return tuple(
        NumaNode(
            id=number,
            cpus=cpus,
            memory_bytes=_memory_bytes(raw.files.get(f"{folder}/node{number}/meminfo", "")),
            distances=_distances(raw, f"{folder}/node{number}", numbers, kept, notes),
        )
        for number, cpus in kept.items()
    )


def _distances(
    raw: RawSysfs, node: str, numbers: Sequence[int], kept: Iterable[int], notes: list[str]
) -> tuple[tuple[int, int], ...]:
    """Pair the row of distances with the node ids: the kernel writes one number per node, in id order."""
    text = raw.files.get(f"{node}/distance", "")
    row = [_integer(part) for part in text.split()]
    if len(row) != len(numbers) or None in row:
        if row:
            notes.append(f"{node}/distance has {len(row)} numbers for {len(numbers)} nodes: not used")
        return ()
    wanted = frozenset(kept)
    return tuple(
        (number, far)
        for number, far in zip(numbers, row, strict=True)
        if number in wanted and far is not None
    )


def _l3(raw: RawSysfs, folder: str, online: CpuSet, notes: list[str]) -> tuple[CpuSet, ...]:
    known: dict[int, CpuSet] = {}
    for cpu in online:
        for index in count():
            cache = f"{folder}/cpu{cpu}/cache/index{index}"
            level = raw.files.get(f"{cache}/level")
            if level is None:
                break
            if level == "3":
                cpus = _siblings(raw, cache, L3_FILES, notes)
                if cpus is not None:
                    known[cpu] = cpus
    return _partition(CpuSet.of(known), known.get)


def _core_groups(caches: Sequence[CpuSet], nodes: Sequence[NumaNode]) -> tuple[CoreGroup, ...]:
    """Cut each L3 at NUMA borders; CPUs without a node stay together."""
    groups: list[CpuSet] = []
    for cache in caches:
        rest = cache
        for node in nodes:
            groups.append(cache & node.cpus)
            rest -= node.cpus
        groups.append(rest)
    groups = sorted((cpus for cpus in groups if cpus), key=lambda cpus: next(iter(cpus)))
    return tuple(CoreGroup(id=index, cpus=cpus) for index, cpus in enumerate(groups))


def _partition(online: CpuSet, group: Callable[[int], CpuSet | None]) -> tuple[CpuSet, ...]:
    """Return disjoint sets that cover `online`: `group(cpu)` of each first CPU, or that CPU alone."""
    parts: list[CpuSet] = []
    left = online
    while left:
        cpu = next(iter(left))
        alone = CpuSet.of((cpu,))
        part = ((group(cpu) or alone) | alone) & left
        parts.append(part)
        left -= part
    return tuple(parts)


def _allowed(raw: RawSysfs, online: CpuSet) -> CpuSet | None:
    """Return the cpuset of the process, None where no file says.

    `Cpus_allowed_list` is no substitute: it is the affinity of one process, which a container does not share.
    """
    files = cpuset_files(
        mounts=raw.files.get("proc/self/mounts") or raw.files.get("proc/mounts", ""),
        cgroup=raw.files.get("proc/self/cgroup", ""),
        cpuset=raw.files.get("proc/self/cpuset", ""),
    )
    for name in files:
        try:
            cpus = CpuSet.parse(raw.files.get(name, ""))
        except ValueError:
            continue
        if cpus:
            return cpus & online
    return None


def _siblings(raw: RawSysfs, folder: str, names: Sequence[str], notes: list[str]) -> CpuSet | None:
    """Return the CPUs of the first readable file of `names`: a list or, failing that, a map."""
    for name in names:
        path = f"{folder}/{name}"
        text = raw.files.get(path)
        if text is None:
            continue
        try:
            return CpuSet.parse(text) if name.endswith("list") else parse_cpu_map(text)
        except ValueError:
            notes.append(f"{path} is damaged: not used")
    return None


def _cpu_list(raw: RawSysfs, path: str, notes: list[str]) -> CpuSet | None:
    text = raw.files.get(path)
    if text is None:
        return None
    try:
        return CpuSet.parse(text)
    except ValueError:
        notes.append(f"{path} is damaged: not used")
        return None


def _memory_bytes(meminfo: str) -> int | None:
    match = re.search(r"MemTotal:\s*([0-9]{1,15})\s*kB", meminfo)
    return int(match[1]) * 1024 if match else None


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,9}", text) else None
