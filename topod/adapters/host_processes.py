"""Who a process of this host is: its name, its user, its container, and the job it was started for."""

import re
from collections.abc import Callable, Collection
from pathlib import Path

import psutil

from topod.discovery.gpufacts import LiveFacts, busy_reasons
from topod.health.use import Who

_CONTAINER = re.compile(r"[0-9a-f]{64}")
_SHORT = 12
_HOSTS_PIDS = "pid:[4026531836]"
"""The first PID namespace, PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h."""


def sees_every_process() -> bool:
    """Say whether PIDs here are those of the host, as NVML names them: not so inside most containers."""
    try:
        return Path("/proc/self/ns/pid").readlink() == Path(_HOSTS_PIDS)
    except OSError:
        return False


def identify(pid: int) -> Who:
    """Return what can be found out about a process; empty words where it is gone or hidden."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            name, started = process.name(), process.create_time()
            uid = process.uids().real
    except psutil.Error:
        return Who(pid=pid)
    return Who(
        pid=pid,
        started_at=started,
        name=name,
        user=_user(process, uid),
        container=_container(pid),
        left_by=_job_of(pid),
    )


def busy_for(
    live: LiveFacts, uuids: Collection[str], who: Callable[[int], Who], ignores: Callable[[str], bool]
) -> dict[str, str]:
    """Return, for each of the GPUs that is not free, why, with the names of the processes on it.

    `who` tells who a process is, `ignores` of which name one does not count.
    """
    pids = {process.pid for gpu in live.gpus if gpu.uuid in uuids for process in gpu.processes or ()}
    found = {pid: who(pid) for pid in pids}
    names = {pid: one.words for pid, one in found.items()}
    ignored = {pid for pid, one in found.items() if ignores(one.name)}
    return busy_reasons(live, uuids, names=names, ignore_pids=ignored)


def _user(process: psutil.Process, uid: int) -> str:
    try:
        return process.username()
    except (psutil.Error, KeyError):
        return str(uid)


def _container(pid: int) -> str:
    found = _CONTAINER.search(_text(pid, "cgroup"))
    return found[0][:_SHORT] if found else ""


def _job_of(pid: int) -> int | None:
    """Return the job that the process, or the one it came from, was started for, as its environment says."""
    for entry in _text(pid, "environ").split("\0"):
        name, equals, value = entry.partition("=")
        if equals and name == "TOPOD_JOB_ID" and value.isdecimal():
            return int(value)
    return None


def _text(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""
