"""What becomes of the host's GPUs and CPUs: marks set and taken away, and what a watch of them saw."""

from dataclasses import replace
from typing import Final, assert_never

from topod.lifecycle import events as ev
from topod.lifecycle.draft import Draft
from topod.lifecycle.states import JobState, Mark, MarkKind, StopCause
from topod.lifecycle.stopping import begin_stop
from topod.model.job import OnPreempt

HARD_CAUSES: Final = frozenset({"lost", "mig"})
"""A GPU in such a state cannot be used whatever an administrator says."""
XID_CAUSE: Final = "xid-"
"""How the causes begin that were seen once and are not seen again by looking."""


def concerning_devices(draft: Draft, event: ev.DeviceEvent) -> None:
    """Take in an event that concerns the host's GPUs and CPUs."""
    match event:
        case ev.HostDrained():
            draft.drain = event.reason
            draft.note("host.drained", None, f"the host is drained: {event.reason}")
        case ev.HostResumed():
            draft.drain = None
            draft.note("host.resumed", None, "the host takes jobs again")
        case ev.GpuMarked():
            mark_gpu(draft, event)
        case ev.GpuCleared():
            clear_gpu(draft, event)
        case ev.GpuResumed():
            resume_gpu(draft, event)
        case ev.GpuNoted():
            draft.note("gpu.noted", draft.get(event.job), event.text, uuid=event.uuid)
        case ev.GpusSeen():
            see_gpus(draft, event)
        case ev.ForeignCpusSeen():
            see_foreign_cpus(draft, event)
        case _:
            assert_never(event)


def mark_gpu(draft: Draft, event: ev.GpuMarked) -> None:
    """Hand out a GPU no more, for one more reason; with `requeue` its job goes back into the queue.

    The same causes in other words are no event of the host's story.
    """
    name, mark = draft.gpu_name(event.uuid), event.mark
    known = any(replace(old, reason=mark.reason) == mark for old in draft.marks.get(event.uuid, ()))
    draft.mark(event.uuid, mark)
    if known and mark.causes:
        return
    draft.note(
        "gpu.marked",
        None,
        f"{name} is {mark.kind.value}: {mark.reason}",
        uuid=event.uuid,
        mark=mark.kind.value,
        causes=list(mark.causes),
    )
    if not event.requeue:
        return
    for job in draft.active():
        held = job.allocation.gpus if job.allocation else ()
        movable = job.spec.preemptible and job.spec.on_preempt is not OnPreempt.CANCEL
        if job.state is JobState.RUNNING and event.uuid in held and movable:
            begin_stop(draft, job, StopCause.UNHEALTHY, f"{name} is {mark.kind.value}: {mark.reason}")


def clear_gpu(draft: Draft, event: ev.GpuCleared) -> None:
    """Forget one reason, or all, not to hand out a GPU."""
    if draft.unmark(event.uuid, event.kind):
        kind = "" if event.kind is None else f"is no longer {event.kind.value}"
        left = ", ".join(mark.kind.value for mark in draft.marks.get(event.uuid, ()) if mark.blocks)
        told = f"is still {left}" if left else "is handed out again"
        text = f"{draft.gpu_name(event.uuid)} {kind + ' and ' if kind else ''}{told}"
        draft.note("gpu.cleared", None, text, uuid=event.uuid)


def resume_gpu(draft: Draft, event: ev.GpuResumed) -> None:
    """Hand a GPU out again, as far as that can be asked for.

    What was seen once (an Xid) is forgotten. What is still so (a pending row remap) is accepted: shown, and
    no reason any more. A GPU that is lost, in MIG mode, or used by somebody else stays kept back.
    """
    name, kept = draft.gpu_name(event.uuid), list[Mark]()
    for mark in draft.marks.get(event.uuid, ()):
        own = mark.kind in (MarkKind.DRAINED, MarkKind.QUARANTINED) or not mark.causes
        if own or (mark.kind is MarkKind.UNHEALTHY and all(c.startswith(XID_CAUSE) for c in mark.causes)):
            continue
        if mark.kind is MarkKind.UNHEALTHY and not HARD_CAUSES & set(mark.causes):
            kept.append(replace(mark, accepted=True))
        else:
            kept.append(mark)
    if tuple(kept) == draft.marks.get(event.uuid, ()):
        return
    draft.unmark(event.uuid)
    for mark in kept:
        draft.mark(event.uuid, mark)
    told = "is handed out again" if all(not mark.blocks for mark in kept) else "is still kept back"
    by = f" by {event.by}" if event.by else ""
    draft.note("gpu.resumed", None, f"{name} was resumed{by} and {told}", uuid=event.uuid)


def see_gpus(draft: Draft, event: ev.GpusSeen) -> None:
    """Start no job with GPUs while nobody can look at them; go on when they are seen again."""
    before, draft.blind = draft.blind, event.problem or None
    if draft.blind is not None and before is None:
        draft.note("gpus.unseen", None, f"the health of the GPUs is unknown: {draft.blind}")
    elif draft.blind is None and before is not None:
        draft.note("gpus.seen", None, "the GPUs are seen again")


def see_foreign_cpus(draft: Draft, event: ev.ForeignCpusSeen) -> None:
    """Take note of the CPUs that something topod did not start uses; no job gets them pinned."""
    seen = dict(event.cpus)
    for cpus, who in sorted(seen.items()):
        if draft.foreign_cpus.get(cpus) != who:
            draft.note("cpus.foreign", None, f"{_cpus(cpus)} used by {who}", cpus=cpus)
    for cpus in sorted(draft.foreign_cpus.keys() - seen.keys()):
        draft.note("cpus.cleared", None, f"{_cpus(cpus)} free of foreign use", cpus=cpus)
    draft.foreign_cpus = seen


def _cpus(text: str) -> str:
    return f"CPU {text} is" if text.isdecimal() else f"CPUs {text} are"
