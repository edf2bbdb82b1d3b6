"""Which processes of the host belong to which job, as the runtime says."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from topod.errors import TopodError
from topod.health.use import Who
from topod.lifecycle.states import HOLDING, HostState
from topod.model.job import JobId
from topod.ports import ContainerRuntime
from topod.shell.logs import Key

log = logging.getLogger(__name__)


class Owners:
    """Asks the runtime only about processes that it has not been asked for before. One thread at a time.

    `identify` says who a process is, jobs aside.
    """

    def __init__(
        self, runtime: ContainerRuntime, identify: Callable[[int], Who], *, sees_all: bool = True
    ) -> None:
        """`sees_all`: whether the PIDs that will be asked for mean the same here as where they come from."""
        self._runtime = runtime
        self._sees_all = sees_all
        self._identify = identify
        self._known: dict[tuple[int, float], JobId] = {}
        self._strangers: set[tuple[int, float]] = set()

    def of(self, pids: Collection[int], state: HostState) -> Mapping[int, JobId] | None:
        """Return the living job that each of the processes belongs to, for those that belong to one.

        None when the runtime does not answer, or the PIDs are of another namespace: then nobody knows.
        """
        if not self._sees_all:
            return None
        alive = {job.id: job.handle for job in state.jobs.values() if job.state in HOLDING and job.handle}
        started = {pid: self._identify(pid).started_at for pid in pids}
        self._known = {key: job for key, job in self._known.items() if job in alive}
        self._strangers &= set(started.items())
        asked = {pid for pid in started.items() if pid not in self._known and pid not in self._strangers}
        if asked and not self._ask(alive, started, asked):
            return None
        return {pid: self._known[pid, at] for pid, at in started.items() if (pid, at) in self._known}

    def _ask(
        self, alive: Mapping[JobId, str], started: Mapping[int, float], asked: set[tuple[int, float]]
    ) -> bool:
        """Learn whose the asked processes are; False when the runtime does not answer.

        A process that is on a GPU and of no job that lives now will never be a job's: a job's container is
        known before its first process is.
        """
        try:
            for job, handle in alive.items():
                mine = {(pid, started[pid]) for pid in self._runtime.pids(handle) if pid in started}
                self._known |= dict.fromkeys(mine, job)
        except TopodError as error:
            log.info("processes.unknown", extra={Key.ERROR: error.message})
            return False
        self._strangers |= asked - self._known.keys()
        return True

    def identify(self, pid: int, owned: Mapping[int, JobId]) -> Who:
        """Return who a process is, with its job."""
        return replace(self._identify(pid), job=owned.get(pid))
