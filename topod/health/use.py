"""Whose processes are on a GPU: those of its job, what a job left behind, and what topod did not start."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from topod.discovery.gpufacts import GpuLive, GpuProcess, held_text, idle_limit, size_text
from topod.health.findings import Finding
from topod.health.rules import HealthRules
from topod.model.job import JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """One process of the host. Empty words where they are not known."""

    pid: int
    started_at: float = 0.0
    """Epoch seconds; with the PID it names the process for good."""
    name: str = ""
    user: str = ""
    container: str = ""
    left_by: int | None = None
    """The job it was started for, as its environment says; a job that has ended left it behind."""
    job: JobId | None = None
    """The job that it belongs to and that lives, as the runtime says."""

    @property
    def words(self) -> str:
        """How sentences call it: `python, alice`, `python, alice, container 3f2a91c07b12`."""
        container = f"container {self.container}" if self.container else ""
        return ", ".join(word for word in (self.name, self.user, container) if word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What is on a GPU that has no business there."""

    foreign: tuple[Finding, ...] = ()
    left: tuple[Finding, ...] = ()
    """What jobs that have ended left behind."""


def unasked_use(gpu: GpuLive, users: Mapping[int, Who], holders: Iterable[JobId], rules: HealthRules) -> Use:
    """Return the use of a GPU by anything but the jobs that hold it.

    `users`: the processes on it, by PID. A desktop (a graphics process) counts only by its memory. A GPU that
    does not tell its processes shows nothing.
    """
    held_by = frozenset(holders)
    foreign: list[Finding] = []
    left: list[Finding] = []
    for process in gpu.processes or ():
        who = users.get(process.pid, Who(pid=process.pid))
        if who.job in held_by or rules.ignores(who.name):
            continue
        if process.kind == "graphics" and (process.memory_bytes or 0) <= idle_limit(gpu):
            continue
        found = _finding(process, who)
        if who.job is None and who.left_by is not None:
            left.append(found)
        else:
            foreign.append(found)
    if not held_by and not foreign and not left:
        left += stray_memory(gpu)
    return Use(foreign=tuple(foreign), left=tuple(left))


def stray_memory(gpu: GpuLive) -> tuple[Finding, ...]:
    """Return that memory of a GPU that no job holds is in use by nobody who can be seen, where it is so.

    What the driver and a desktop have for themselves does not count: the bound is that of the check before a
    start. Where a compute process is on the GPU, the memory is taken to be that one's.
    """
    used, processes = gpu.memory_used_bytes, gpu.processes
    if processes is None or any(process.kind == "compute" for process in processes):
        return ()
    if used is None or used <= idle_limit(gpu):
        return ()
    return (Finding("memory", f"{size_text(used)} in use by no process that can be seen"),)


def _finding(process: GpuProcess, who: Who) -> Finding:
    words = who.words
    if who.job is not None:
        words = f"{words}, of job {who.job}, which does not hold this GPU"
    elif who.left_by is not None:
        words = f"{words}, left by job {who.left_by}"
    return Finding(f"pid-{process.pid}", held_text(process, words))
