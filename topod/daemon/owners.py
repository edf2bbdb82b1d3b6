"""Which processes of the host belong to which job, as the runtime says."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from topod.daemon.logs import Key
from topod.errors import TopodError
from topod.health.use import Who
from topod.lifecycle.states import HOLDING, HostState
from topod.model.job import JobId
from topod.ports import ContainerRuntime

log = logging.getLogger(__name__)


class Owners:
    """Asks the runtime only about processes that it has not named before. Used by several threads.

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

    def of(self, pids: Collection[int], state: HostState) -> Mapping[int, JobId] | None:
        """Return the living job that each of the processes belongs to, for those that belong to one.

        None when the runtime does not answer, or the PIDs are of another namespace: then nobody knows.
        """
        if not self._sees_all:
            return None
        alive = {job.id: job.handle for job in state.jobs.values() if job.state in HOLDING and job.handle}
        started = {pid: self._identify(pid).started_at for pid in pids}
        found = {
            pid: job
            for pid, at in started.items()
            if (job := self._known.get((pid, at))) is not None and job in alive
        }
        if len(found) < len(started):
            try:
                for ident, handle in alive.items():
                    for pid in self._runtime.pids(handle):
                        if pid in started:
                            found[pid] = ident
            except TopodError as error:
                log.info("processes.unknown", extra={Key.ERROR: error.message})
                return None
        self._known = {(pid, started[pid]): job for pid, job in found.items()} | {
            key: job for key, job in self._known.items() if job in alive
        }
        return found

    def identify(self, pid: int, owned: Mapping[int, JobId]) -> Who:
        """Return who a process is, with its job."""
        return replace(self._identify(pid), job=owned.get(pid))
