"""The effects that save a victim's work before it is stopped, and how long each may take."""

from typing import Final

from topod.lifecycle.effects import Freeze, RunHook
from topod.lifecycle.states import Job
from topod.model.job import CheckpointHook

FREEZE_MARGIN_SECONDS: Final = 5.0
"""A freeze that its runtime should have given up is given up after this much more."""
HOOK_MARGIN_SECONDS: Final = 5.0
"""A hook that its runtime should have ended is given up after this much more."""


def checkpoint_name(job: Job) -> str:
    """Return the name of the checkpoint that the job's next, or present, freezing makes."""
    return f"preemption-{job.preemptions + 1}"


def freeze(job: Job, handle: str) -> Freeze:
    """Return the effect that writes the job to disk, within its grace time."""
    return Freeze(
        job=job.id,
        attempt=job.attempt,
        handle=handle,
        name=checkpoint_name(job),
        timeout_seconds=job.spec.grace_seconds,
    )


def freeze_seconds(job: Job) -> float:
    """Return after how long a freeze without an answer is given up."""
    return job.spec.grace_seconds + FREEZE_MARGIN_SECONDS


def run_hook(job: Job, handle: str, hook: CheckpointHook) -> RunHook:
    """Return the effect that runs the job's checkpoint hook."""
    return RunHook(
        job=job.id,
        attempt=job.attempt,
        handle=handle,
        command=hook.command,
        timeout_seconds=hook.timeout_seconds,
    )
