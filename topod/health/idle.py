"""GPUs that a job holds and does not use: told, so that people can give them back; never taken from it."""

from topod.discovery.gpufacts import LiveFacts
from topod.lifecycle.states import HostState, JobState
from topod.model.job import JobId


class IdleClock:
    """Since when each held GPU was at 0% at every look. Its memory is that of one run of topod."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[JobId, int, float]] = {}

    def look(self, state: HostState, live: LiveFacts, at: float) -> dict[str, float]:
        """Take a reading of the moment `at`; return since when (epoch seconds) each idle GPU is idle.

        Only GPUs of running jobs count, each attempt from its start on; a GPU that does not tell its
        utilisation is not called idle.
        """
        unused = {gpu.uuid for gpu in live.gpus if gpu.utilisation_percent == 0}
        seen: dict[str, tuple[JobId, int, float]] = {}
        for job in state.jobs.values():
            if job.state is not JobState.RUNNING or job.allocation is None:
                continue
            for uuid in unused.intersection(job.allocation.gpus):
                before = self._since.get(uuid)
                same = before is not None and before[:2] == (job.id, job.attempt)
                seen[uuid] = before if before is not None and same else (job.id, job.attempt, at)
        self._since = seen
        return {uuid: since for uuid, (_, _, since) in seen.items()}
