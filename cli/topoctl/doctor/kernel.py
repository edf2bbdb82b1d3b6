"""What the kernel gives jobs: NUMA nodes and memory, huge pages, /dev/shm, locked memory, the time."""

import ctypes
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from topoctl.doctor.check import Check, count, size
from topod.errors import TopodError
from topod.model.job import DEFAULT_SHM_BYTES
from topod.protocol.replies import Welcome

LOW_SHM_BYTES: Final = 1 << 30
UNSYNCHRONISED: Final = 0x40
"""STA_UNSYNC of adjtimex(2)."""
_STATUS_AT: Final = 40
"""Where `status` stands in `struct timex` of 64-bit Linux."""


def sysfs() -> Check:
    """Check that sockets, NUMA nodes and cores can be read."""
    from topod.adapters.sysfs_reader import this_machine

    try:
        facts = this_machine(Path("/"))
    except TopodError as error:
        return Check(name="sysfs", verdict="bad", text=error.message, mend="mount -t sysfs sysfs /sys")
    text = (
        f"{count(len(facts.sockets), 'socket')}, {count(len(facts.numa_nodes), 'NUMA node')}, "
        f"{count(len(facts.core_groups), 'core group')}, {count(len(facts.cores), 'core')}"
    )
    if not facts.numa_nodes:
        return Check(
            name="sysfs",
            verdict="warn",
            text=f"{text}: no job can be kept to a NUMA node",
            mend="ls /sys/devices/system/node",
        )
    return Check(name="sysfs", verdict="ok", text=text)


def memory(root: Path = Path("/")) -> Iterator[Check]:
    """Yield settings that move a job's memory about or keep it away."""
    yield from _balancing(root)
    yield from _huge_pages(root)


def _balancing(root: Path) -> Iterator[Check]:
    try:
        balancing = (root / "proc/sys/kernel/numa_balancing").read_text().strip()
    except OSError:
        return
    if balancing == "0":
        yield Check(name="balancing", verdict="ok", text="off: memory stays where jobs put it")
        return
    yield Check(
        name="balancing",
        verdict="warn",
        text="on: the kernel moves the memory of pinned jobs about, which costs them time",
        mend="sudo sysctl kernel.numa_balancing=0",
    )


def _huge_pages(root: Path) -> Iterator[Check]:
    """Tell of huge pages that are set apart: memory that no ordinary job can use."""
    kept = unused = 0
    per_node: dict[str, int] = {}
    for folder in sorted((root / "sys/devices/system/node").glob("node*/hugepages/hugepages-*kB")):
        page = int(re.sub(r"\D", "", folder.name.removeprefix("hugepages-"))) * 1024
        held = _number(folder / "nr_hugepages") * page
        kept, unused = kept + held, unused + _number(folder / "free_hugepages") * page
        per_node[folder.parents[1].name] = per_node.get(folder.parents[1].name, 0) + held
    if not per_node:
        return
    if not kept:
        yield Check(name="huge pages", verdict="ok", text="none are set apart")
        return
    text = f"{size(kept)} set apart, {size(unused)} of it not in use"
    without = [node for node, held in per_node.items() if not held]
    if unused == kept:
        mend = "sudo sysctl vm.nr_hugepages=0, unless a job needs them"
        yield Check(
            name="huge pages", verdict="warn", text=f"{text}: other memory is less by that", mend=mend
        )
    elif without:
        text = f"{text}; none on {', '.join(without)}: jobs pinned there that need them fail"
        mend = (
            f"echo N | sudo tee /sys/devices/system/node/{without[0]}/hugepages/hugepages-2048kB/nr_hugepages"
        )
        yield Check(name="huge pages", verdict="warn", text=text, mend=mend)
    else:
        yield Check(name="huge pages", verdict="ok", text=text)


def limits(
    welcome: Welcome | None, *, containers: bool, rootless: bool, root: Path = Path("/")
) -> Iterator[Check]:
    """Yield what a job gets of /dev/shm and of locked memory; NCCL and RDMA need both."""
    if containers:
        yield _container_shm(root)
    else:
        yield _shm(root / "dev/shm")
    yield _locked(welcome, containers=containers and not rootless, root=root)


def _container_shm(root: Path) -> Check:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    total = int(found[1]) * 1024 if found else 0
    text = f"{size(DEFAULT_SHM_BYTES)} for each job in a container"
    if total and total < DEFAULT_SHM_BYTES:
        text += f", and the machine has {size(total)} of memory: a job that fills it ends the others"
        return Check(name="shm", verdict="warn", text=text, mend="topoctl submit --shm-size 1g")
    return Check(name="shm", verdict="ok", text=f"{text}, or what --shm-size says")


def _shm(folder: Path) -> Check:
    mend = "sudo mount -o remount,size=8G /dev/shm"
    try:
        total = shutil.disk_usage(folder).total
    except OSError:
        return Check(
            name="shm",
            verdict="warn",
            text="there is no /dev/shm: NCCL needs it",
            mend="sudo mount -t tmpfs shm /dev/shm",
        )
    if total < LOW_SHM_BYTES:
        return Check(
            name="shm", verdict="warn", text=f"{folder} has {size(total)}: NCCL fails or hangs", mend=mend
        )
    return Check(name="shm", verdict="ok", text=f"{folder} has {size(total)}, shared by all jobs")


def _locked(welcome: Welcome | None, *, containers: bool, root: Path) -> Check:
    if containers:
        return Check(name="memlock", verdict="ok", text="unlimited in each container, or what --ulimit says")
    # Without a container a job has topod's own limits; a rootless engine may not raise its.
    whose = str(welcome.pid) if welcome is not None else "self"
    found = re.search(
        r"^Max locked memory\s+\S+\s+(\S+)", _text(root / "proc" / whose / "limits"), re.MULTILINE
    )
    if found is None:
        return Check(
            name="memlock",
            verdict="warn",
            text="the limit of locked memory cannot be read",
            mend="ulimit -H -l",
        )
    if found[1] == "unlimited":
        return Check(name="memlock", verdict="ok", text="unlimited")
    return Check(
        name="memlock",
        verdict="warn",
        text=f"jobs may lock {size(int(found[1]))}: RDMA fails, NCCL falls back to TCP without a word",
        mend="LimitMEMLOCK=infinity in topod's unit or the engine's; in a shell: ulimit -l unlimited",
    )


def time_sync() -> Check:
    """Check that something keeps the clock right, by what the kernel knows of it."""
    state = ctypes.create_string_buffer(512)
    try:
        answer = ctypes.CDLL(None).adjtimex(state)  # modes = 0: only asks
    except (OSError, AttributeError):
        answer = -1
    if answer < 0:
        return Check(
            name="time",
            verdict="warn",
            text="the kernel does not say whether the clock is kept right",
            mend="timedatectl",
        )
    (status,) = struct.unpack_from("=i", state, _STATUS_AT)
    if status & UNSYNCHRONISED:
        return Check(
            name="time",
            verdict="warn",
            text="nothing keeps the clock right: moments on different hosts cannot be compared",
            mend="sudo timedatectl set-ntp true",
        )
    return Check(name="time", verdict="ok", text="the clock is kept right")


def _number(file: Path) -> int:
    text = _text(file).strip()
    return int(text) if text.isdigit() else 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
