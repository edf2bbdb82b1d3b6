"""What users ask of the core: submit, cancel, change a priority, drain, resume."""

from dataclasses import replace

from topod.lifecycle import events as ev
from topod.lifecycle.draft import Draft
from topod.lifecycle.effects import PullImage
from topod.lifecycle.states import ENDED, Job, StopCause
from topod.lifecycle.stopping import begin_stop
from topod.model.job import JobId


def submitted(draft: Draft, event: ev.Submitted) -> None:
    """Queue a new job under the next id; its image is pulled at once."""
    job = Job(
        id=draft.next_job,
        spec=event.spec,
        submitted_at=draft.now,
        image_ready=event.spec.image is None,
        reason="queued",
    )
    draft.next_job = JobId(draft.next_job + 1)
    draft.put(job)
    draft.note("job.submitted", job, f"{job.label} submitted", user=job.spec.user, priority=job.priority)
    if not job.image_ready:
        draft.do(PullImage(job=job.id, spec=job.spec))


def cancel(draft: Draft, event: ev.CancelRequested) -> None:
    """Stop a job for good, in whatever state it is."""
    job = draft.get(event.job)
    if job is None or job.state in ENDED:
        return
    reason = f"cancelled by {event.by}" if event.by else "cancelled"
    begin_stop(draft, job, StopCause.CANCEL, reason)


def change_priority(draft: Draft, event: ev.PriorityChanged) -> None:
    """Change a job's priority; the queue is run with it at once."""
    job = draft.get(event.job)
    if job is None or job.state in ENDED or job.priority == event.priority:
        return
    request = replace(job.spec.request, priority=event.priority)
    text = f"{job.label}: priority {job.priority} -> {event.priority}"
    draft.put(replace(job, spec=replace(job.spec, request=request)))
    draft.note("job.reprioritised", job, text, by=event.by, priority=event.priority)


def see_foreign_cpus(draft: Draft, event: ev.ForeignCpusSeen) -> None:
    """Take note of the CPUs that something topod did not start uses; no job gets them pinned."""
    seen = dict(event.cpus)
    for cpus, who in sorted(seen.items()):
        if draft.foreign_cpus.get(cpus) != who:
            draft.note("cpus.foreign", None, f"CPUs {cpus} are used by {who}", cpus=cpus)
    for cpus in sorted(draft.foreign_cpus.keys() - seen.keys()):
        draft.note("cpus.cleared", None, f"CPUs {cpus} are free of foreign use", cpus=cpus)
    draft.foreign_cpus = seen


def mark_gpu(draft: Draft, event: ev.GpuMarked) -> None:
    """Hand out a GPU no more, for one more reason."""
    draft.mark(event.uuid, event.mark)
    text = f"{draft.gpu_name(event.uuid)} is {event.mark.kind.value}: {event.mark.reason}"
    draft.note("gpu.marked", None, text, uuid=event.uuid, mark=event.mark.kind.value)


def clear_gpu(draft: Draft, event: ev.GpuCleared) -> None:
    """Forget one reason, or all, not to hand out a GPU."""
    if draft.unmark(event.uuid, event.kind):
        text = f"{draft.gpu_name(event.uuid)} is handed out again"
        draft.note("gpu.cleared", None, text, uuid=event.uuid)
