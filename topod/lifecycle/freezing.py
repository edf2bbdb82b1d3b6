"""Preemption without loss of work: a victim is written to disk and later restored where it was."""

from topod.lifecycle import events as ev
from topod.lifecycle.draft import Draft


def frozen(draft: Draft, event: ev.Frozen) -> None:
    """Go on with a victim that the engine has written to disk, or could not."""
    job = draft.get(event.job)
    if job is not None and job.attempt == event.attempt:
        draft.note("job.frozen", job, f"{job.label}: {event.text}", ok=event.ok)
