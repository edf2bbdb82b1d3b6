"""How an attempt of a job ended, and how long it ran."""

from topod.lifecycle.states import Job


def seconds_run(job: Job, now: float) -> float:
    """Return how long the present life of a job has lasted."""
    return max(0.0, now - job.started_at) if job.started_at is not None else 0.0


def describe_exit(exit_code: int | None, *, out_of_memory: bool = False) -> str:
    """Say how a command ended: `exit code 3`, `killed by signal 9`, `out of memory`."""
    if out_of_memory:
        return "killed: out of memory"
    if exit_code is None:
        return "its container vanished and nobody saw how it ended"
    if exit_code > 128:
        return f"exit code {exit_code} (signal {exit_code - 128})"
    return f"exit code {exit_code}"
