"""What users ask of the core: submit, cancel, requeue, change a priority."""

from dataclasses import replace

from topod.lifecycle import events as ev
from topod.lifecycle.depending import impossible
from topod.lifecycle.draft import Draft
from topod.lifecycle.effects import PullImage
from topod.lifecycle.states import ENDED, Job, JobState, Stage, StopCause
from topod.lifecycle.stopping import begin_stop
from topod.model.arrays import members
from topod.model.job import JobId, OnPreempt


def submitted(draft: Draft, event: ev.Submitted) -> None:
    """Queue a new job, or each member of an array, under the next ids; images are pulled at once."""
    never = impossible(draft, event)
    draft.tell_dependents |= bool(event.spec.after)
    for spec, place in members(event.spec, event.array, draft.next_job):
        job = Job(
            id=draft.next_job,
            spec=spec,
            submitted_at=draft.now,
            image_ready=spec.image is None or event.image_here,
            reason="queued",
            array=place,
            after=spec.after if never is None else (),
        )
        draft.next_job = JobId(draft.next_job + 1)
        draft.put(job)
        draft.note("job.submitted", job, f"{job.label} submitted", user=spec.user, priority=job.priority)
        if never is not None:
            begin_stop(draft, job, StopCause.CANCEL, never)
        elif not job.image_ready:
            draft.do(PullImage(job=job.id, spec=spec))


def cancel(draft: Draft, event: ev.CancelRequested) -> None:
    """Stop jobs for good, in whatever state they are."""
    reason = f"cancelled by {event.by}" if event.by else "cancelled"
    for ident in (event.job, *event.also):
        job = draft.get(ident)
        if job is not None and job.state not in ENDED:
            begin_stop(draft, job, StopCause.CANCEL, reason)


def why_not_requeued(job: Job) -> str | None:
    """Return why a job cannot be put back into the queue, in words; None if it can."""
    if job.state in ENDED:
        return f"{job.label} has ended: {job.state.value}; submit it again"
    if job.state in (JobState.STOPPING, JobState.PREEMPTED):
        return f"{job.label} is {job.state.value} already: {job.reason}"
    if job.state is not JobState.RUNNING and job.stage is not Stage.LAUNCHING:
        return f"{job.label} does not run: it is {job.state.value}"
    if job.spec.on_preempt is OnPreempt.CANCEL:
        return f"{job.label} never runs twice: it was submitted with on-preempt cancel"
    return None


def put_back(draft: Draft, event: ev.RequeueRequested) -> None:
    """Stop running jobs and queue them again; what cannot be is not done (`why_not_requeued`)."""
    reason = f"requeued by {event.by}" if event.by else "requeued"
    for ident in (event.job, *event.also):
        job = draft.get(ident)
        if job is not None and why_not_requeued(job) is None:
            begin_stop(draft, job, StopCause.REQUEUE, reason)


def change_priority(draft: Draft, event: ev.PriorityChanged) -> None:
    """Change a job's priority; the queue is run with it at once."""
    job = draft.get(event.job)
    if job is None or job.state in ENDED or job.priority == event.priority:
        return
    request = replace(job.spec.request, priority=event.priority)
    text = f"{job.label}: priority {job.priority} -> {event.priority}"
    draft.put(replace(job, spec=replace(job.spec, request=request)))
    draft.note("job.reprioritised", job, text, by=event.by, priority=event.priority)
