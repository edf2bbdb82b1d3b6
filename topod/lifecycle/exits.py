"""How an attempt of a job ended, and how long it ran."""

from typing import Final

from topod.lifecycle.states import Job

BY_HAND: Final = (128 + 2, 128 + 9, 128 + 15)
"""Exit codes of SIGINT, SIGKILL and SIGTERM: people send them, and topod would be asked why it did."""


def seconds_run(job: Job, now: float) -> float:
    """Return how long the present life of a job has lasted."""
    return max(0.0, now - job.started_at) if job.started_at is not None else 0.0


def describe_exit(exit_code: int | None, *, out_of_memory: bool = False) -> str:
    """Say how a command that topod did not stop ended: `exit code 3`, `killed: out of memory`."""
    if out_of_memory:
        return "killed: out of memory"
    if exit_code is None:
        return "its container vanished and nobody saw how it ended"
    if exit_code in BY_HAND:
        return f"exit code {exit_code} (signal {exit_code - 128}, not sent by topod)"
    if exit_code > 128:
        return f"exit code {exit_code} (signal {exit_code - 128})"
    return f"exit code {exit_code}"
