"""The host's clock was set: what was remembered as moments is moved along, so that no span of time changes.

Without it a step of an hour would end every grace time and time limit at once, or put them off for an hour.
"""

from dataclasses import replace

from topod.lifecycle import events as ev
from topod.lifecycle.backoff import BACK_OFF_LIMIT_SECONDS
from topod.lifecycle.draft import Draft
from topod.lifecycle.states import Job


def clock_set(draft: Draft, event: ev.ClockSet) -> None:
    """Move every moment of the jobs that have not been put to rest."""
    for job in draft.all():
        draft.put(_moved_along(job, event.seconds))
    way = "forward" if event.seconds > 0 else "back"
    draft.note("clock.set", None, f"the clock was set {way} by {abs(event.seconds):.1f} s; no deadline moves")


def within_reason(job: Job, now: float) -> Job:
    """Return the job with no moment that lies too far ahead: the clock was set back meanwhile."""

    def past(moment: float | None) -> float | None:
        return None if moment is None else min(moment, now)

    return replace(
        job,
        not_before=min(job.not_before, now + BACK_OFF_LIMIT_SECONDS),
        ready_at=past(job.ready_at),
        started_at=past(job.started_at),
        checkpoint_at=past(job.checkpoint_at),
    )


def _moved_along(job: Job, seconds: float) -> Job:
    def moved(moment: float | None) -> float | None:
        return None if moment is None else moment + seconds

    stop = job.stop
    if stop is not None:
        stop = replace(stop, since=stop.since + seconds, deadline=moved(stop.deadline))
    return replace(
        job,
        submitted_at=job.submitted_at + seconds,
        not_before=job.not_before + seconds if job.not_before else 0.0,
        stage_since=job.stage_since + seconds,
        ready_at=moved(job.ready_at),
        placed_at=moved(job.placed_at),
        started_at=moved(job.started_at),
        checkpoint_at=moved(job.checkpoint_at),
        ended_at=moved(job.ended_at),
        stop=stop,
    )
