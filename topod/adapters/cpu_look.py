"""Looks at the CPU time that processes used since the last look, and at where they may run."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topod.adapters.host_processes import identify
from topod.health.cpu_use import Load
from topod.model.cpuset import CpuSet

KERNEL_THREAD: Final = 0x00200000  # PF_KTHREAD in linux/sched.h
BUSY_SHARE: Final = 0.05
"""A thread counts when it used at least this part of its process's CPU time."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Stat:
    """What is needed of /proc/PID/stat, see proc_pid_stat(5); times in clock ticks."""

    flags: int
    used: int
    start: int


class CpuLook:
    """Compares the present look with the last one. Used by one thread at a time; takes some milliseconds."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._last: dict[tuple[int, int], int] = {}
        self._at: float | None = None

    def baseline(self) -> CpuSet:
        """Return the CPUs of a process that nobody bound: those of the first process, else all."""
        return self._affinity(1) or CpuSet.of(range(os.cpu_count() or 1))

    def look(self, at: float, least: float) -> tuple[Load, ...]:
        """Return the processes that used at least `least` CPUs since the last look; none at the first one.

        `at`: now, in seconds of a clock that never jumps.
        """
        seen: dict[tuple[int, int], int] = {}
        busy: list[tuple[int, float]] = []
        passed = 0.0 if self._at is None else at - self._at
        for pid in self.pids():
            stat = self._stat(f"{pid}/stat")
            if stat is None or stat.flags & KERNEL_THREAD:
                continue
            seen[pid, stat.start] = stat.used
            before = self._last.get((pid, stat.start))
            if before is not None and passed > 0:
                used = (stat.used - before) / _TICKS / passed
                if used >= least:
                    busy.append((pid, used))
        self._last, self._at = seen, at
        return tuple(Load(who=identify(pid), cpus=self._bound_to(pid), used=used) for pid, used in busy)

    def pids(self) -> Collection[int]:
        """Return every process there is."""
        return [int(name) for name in os.listdir(self._proc) if name.isdecimal()]  # noqa: PTH208 - much quicker

    def _bound_to(self, pid: int) -> CpuSet:
        """Return where the threads that do the work may run, all together."""
        threads = [(stat.used, tid) for tid, stat in self._threads(pid)]
        total = sum(used for used, _ in threads)
        mask = 0
        for used, tid in threads:
            if used >= total * BUSY_SHARE:
                mask |= self._affinity(tid).mask
        return CpuSet(mask)

    def _threads(self, pid: int) -> Iterator[tuple[int, _Stat]]:
        try:
            names = os.listdir(self._proc / f"{pid}/task")  # noqa: PTH208 - much quicker
        except OSError:
            return
        for name in names:
            stat = self._stat(f"{pid}/task/{name}/stat")
            if stat is not None:
                yield int(name), stat

    def _affinity(self, tid: int) -> CpuSet:
        try:
            return CpuSet.of(os.sched_getaffinity(tid))
        except OSError:
            return CpuSet()

    def _stat(self, name: str) -> _Stat | None:
        try:
            text = (self._proc / name).read_text(errors="replace")
        except OSError:
            return None
        # The name in brackets may hold spaces and brackets itself; the fields after it are plain.
        fields = text.rpartition(")")[2].split()
        return _Stat(flags=int(fields[6]), used=int(fields[11]) + int(fields[12]), start=int(fields[19]))
