"""What a key is about to do, in words: to which job, how it is stopped, who may run next. Pure."""

from collections.abc import Sequence
from typing import Final

from topoctl.render.jobs import gpus, label, priority_name, ranges
from topoctl.render.style import printable
from topod.model.job import OnPreempt
from topod.protocol.units import format_duration
from topod.protocol.views import GpuView, JobLine, JobView
from topotui.picture import ENDED

ON: Final = frozenset({"starting", "running", "stopping"})


def name(job: JobLine) -> str:
    """Return how sentences name a job: `job 3 (train)`."""
    return printable(label(job))


def no_requeue(job: JobLine) -> str:
    """Say why a requeue would do nothing; empty: it would."""
    if job.state == "pending":
        return f"{name(job)} waits in the queue already"
    return f"{name(job)} has ended: {job.state}" if job.state in ENDED else ""


def cancel(job: JobView, queue: Sequence[JobLine]) -> str:
    """Say what a cancel does."""
    if job.state not in ON:
        return f"Cancel {name(job)}?\n\nIt waits. It leaves the queue and does not run."
    lines = [_where(job), f"It gets SIGTERM, and SIGKILL {_grace(job)} later. It does not run again."]
    return "\n".join([f"Cancel {name(job)}?", "", *lines, *_next(job, queue)])


def requeue(job: JobView, queue: Sequence[JobLine]) -> str:
    """Say what a requeue does."""
    lines = [_where(job), *_saves(job), f"It gets SIGTERM, and SIGKILL {_grace(job)} later."]
    if job.spec.checkpoint is None:
        lines.append("It has no checkpoint hook: what it has not saved by itself is lost.")
    lines.append("It goes back into the queue with its submit time, and is not counted as preempted.")
    return "\n".join([f"Requeue {name(job)}?", "", *lines, *_next(job, queue)])


def prioritise(job: JobView, priority: int, queue: Sequence[JobLine]) -> str:
    """Say what another priority means."""
    change = f"{_level(job.priority)} to {_level(priority)}"
    if job.state == "pending":
        others = [other for other in queue if other.id != job.id]
        before = sum(_turn(other) < _turn(job) for other in others)
        now = sum(_turn(other) < (-priority, job.submitted_at, job.id) for other in others)
        behind = f"{_count(before)}, and then behind {_count(now)}"
        text = f"It waits behind {behind} of the {_count(len(others))} others."
        more = "It may have jobs of lower priority stopped for it." if priority > job.priority else ""
    else:
        text = f"It goes on. Only jobs of a higher priority than {priority} may have it stopped from then on."
        more = "" if job.spec.preemptible else "It is not preemptible: nobody may in any case."
    return "\n".join(
        [f"Change the priority of {name(job)}?", "", f"From {change}.", text, *([more] * bool(more))]
    )


def drain(running: int, waiting: int, why: str) -> str:
    """Say what draining a host does."""
    return (
        f"Drain the host?\n\n{jobs(running)} on it: they go on. {jobs(waiting)} in the queue: none starts "
        f"here until the host is resumed (the same key).\nReason: {printable(why)}"
    )


def resume(waiting: int) -> str:
    """Say what taking jobs again does."""
    return f"Let the host take jobs again?\n\n{jobs(waiting)} in the queue: those that fit start at once."


def gpu(view: GpuView) -> str:
    """Say how a GPU is that no job has."""
    return f"GPU {view.index} is {view.state}{f': {printable(view.reason)}' if view.reason else ''}"


def _where(job: JobView) -> str:
    if len(job.members) > 1:
        held = "; ".join(f"{one.host}, {_gpus(one.gpu_indices)}" for one in job.members)
        return f"It is {job.state} on {len(job.members)} hosts, and all of it stops: {printable(held)}."
    where = f"{printable(job.hosts[0])}, " if job.hosts else ""
    return f"It is {job.state} on {where}{_gpus(job.gpu_indices)}."


def _gpus(indices: Sequence[int]) -> str:
    return f"GPU{'' if len(indices) == 1 else 's'} {ranges(indices)}" if indices else "no GPUs"


def _saves(job: JobView) -> list[str]:
    hook = job.spec.checkpoint
    if hook is None:
        return []
    what = f"is sent {hook.signal.value}" if hook.signal is not None else "runs its checkpoint hook"
    frozen = "; it is not frozen" if job.spec.on_preempt is OnPreempt.CHECKPOINT else ""
    return [f"First it {what}, for at most {format_duration(hook.timeout_seconds)}{frozen}."]


def _grace(job: JobView) -> str:
    seconds = job.spec.grace_seconds
    return f"{seconds:g} s" if seconds < 60 else format_duration(seconds)


def _next(job: JobView, queue: Sequence[JobLine]) -> list[str]:
    first = next((other for other in queue if other.id != job.id and not other.after), None)
    if first is None:
        return ["Nobody else waits in the queue."]
    wants = "" if not first.gpus else f", {gpus(first)[1:]} GPU{'' if first.gpus == 1 else 's'}"
    return [f"First in the queue: {name(first)}, {priority_name(first.priority)}{wants}."]


def _turn(job: JobLine) -> tuple[int, float, int]:
    return (-(job.effective_priority or job.priority), job.submitted_at, job.id)


def _level(priority: int) -> str:
    known = priority_name(priority)
    return known if known == str(priority) else f"{known} ({priority})"


def jobs(count: int) -> str:
    """Return `1 job`, `2 jobs`."""
    return "1 job" if count == 1 else f"{count} jobs"


def _count(count: int) -> str:
    return str(count) if count else "none"
