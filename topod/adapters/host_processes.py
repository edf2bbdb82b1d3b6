"""Who a process of this host is: its name, its user, its container, and the job it was started for."""

import re
from pathlib import Path

import psutil

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


def called(pid: int) -> str:
    """Return how to call a process in a sentence: `python, alice`; empty where nothing is known."""
    return identify(pid).words


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
