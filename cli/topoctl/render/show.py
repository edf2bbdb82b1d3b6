"""One job, whole."""

import shlex
from collections.abc import Sequence
from textwrap import wrap

from topoctl.render.events import clock
from topoctl.render.jobs import ENDED, ago, elapsed, gpu_seconds, priority_name, ranges, restarts
from topoctl.render.jobs import label as named
from topoctl.render.plan import LABEL, idents_of, labelled, plan_lines
from topoctl.render.style import STATE_COLORS, Style, printable
from topod.model.job import JobSpec
from topod.protocol.units import format_duration, format_size
from topod.protocol.views import EarlierView, EventView, JobView, MemberView


def job_text(job: JobView, events: Sequence[EventView], now: float, style: Style) -> str:
    """Return everything about a job: its state, what it asked for, its plan, its story."""
    state = style.paint(job.state, STATE_COLORS.get(job.state, "bold"))
    title = style.paint(printable(named(job)), "bold")
    lines = [f"{title}  {state}{f' ({job.stage})' if job.stage else ''}"]
    rows = [*_life(job, now), *_request(job), *_container(job.spec)]
    for label, value in rows:
        lines += labelled(label, printable(value), style)
    if job.plan:
        lines += ["", style.paint("plan", "bold"), *plan_lines(job.plan, style)]
    if events:
        lines += ["", style.paint("story", "bold"), *_story(job, events, now, style)]
    return "\n".join(lines) + "\n"


def _life(job: JobView, now: float) -> list[tuple[str, str]]:
    rows = [("reason", job.reason)] if job.reason else []
    rows.append(("user", job.user))
    rows.append(("submitted", f"{clock(job.submitted_at, now)} ({ago(job.submitted_at, now)})"))
    if job.started_at is not None:
        ran = "ran" if job.state in ENDED else "running for" if job.state == "running" else "last ran"
        shown = elapsed(job, now) if job.state in {*ENDED, "running", "stopping"} else ""
        rows.append(("started", f"{clock(job.started_at, now)}{f' ({ran} {shown})' if shown else ''}"))
    if job.ended_at is not None:
        code = "" if job.exit_code is None else f", exit code {job.exit_code}"
        rows.append(("ended", f"{clock(job.ended_at, now)} ({ago(job.ended_at, now)}){code}"))
    rows += _again(job, now)
    if used := gpu_seconds(job, now):
        rows.append(("GPU time", format_duration(used)))
    if job.gpu_indices:
        verb = "had" if job.state in ENDED or job.state in {"pending", "preempted"} else "holds"
        cpus = f", CPUs {job.cpu_list}" if job.cpu_list else ""
        rows.append((verb, f"{_gpus(job.gpu_indices)}{cpus}"))
    several = len(job.members) > 1
    rows += [
        (("hosts" if several else "host") if not at else "", _member(member, several=several))
        for at, member in enumerate(job.members)
    ]
    if job.rendezvous:
        rows.append(("meet at", job.rendezvous))
    ranks = any(one.rank for one in job.earlier)
    rows += [("before" if not at else "", _earlier(one, ranks=ranks)) for at, one in enumerate(job.earlier)]
    if job.array_id is not None:
        most = "" if job.array_limit is None else f", at most {job.array_limit} at a time"
        text = f"index {job.array_index}, one of the {job.array_count} jobs of array {job.array_id}{most}"
        rows.append(("array", text))
    if job.after:
        rows.append(("waits for", ", ".join(f"job {other}" for other in job.after)))
    rows += [("kept for it", _gpus(job.held_gpus))] if job.held_gpus else []
    if job.victims:
        idents = idents_of(job.plan)
        rows.append(("stops", ", ".join(f"job {idents.get(str(one), one)}" for one in job.victims)))
    if job.handle:
        rows.append(("container", f"{job.handle}{', frozen on disk' if job.frozen else ''}"))
    return rows


def _member(member: MemberView, *, several: bool) -> str:
    local = "not confirmed" if member.local_job is None else f"job {member.local_job} there, {member.state}"
    held = f": {_gpus(member.gpu_indices)}" if member.gpu_indices else ""
    cpus = f", CPUs {member.cpu_list}" if member.cpu_list else ""
    rank = f"rank {member.rank}: " if several else ""
    stops = f", stops {', '.join(f'job {one}' for one in member.victims)} there" if member.victims else ""
    return f"{rank}{member.host} ({local}){held}{cpus}{stops}"


def _earlier(one: EarlierView, *, ranks: bool) -> str:
    first, last = one.attempts
    attempts = f"attempt {first}" if first == last else f"attempts {first}-{last}"
    rank = f"rank {one.rank}: " if ranks else ""
    return f"{rank}{one.host} (job {one.local_job} there): {attempts}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _gpus(indices: Sequence[int]) -> str:
    return f"GPU{'' if len(indices) == 1 else 's'} {ranges(indices)}"


def _again(job: JobView, now: float) -> list[tuple[str, str]]:
    rows = []
    if job.starts > 1 or job.preemptions or job.failures:
        stopped, failed = _count(job.preemptions, "preemption"), _count(job.failures, "failure")
        rows.append(("restarts", f"{restarts(job)} ({stopped}, {failed} in a row)"))
    if job.next_try_at is not None and job.next_try_at > now:
        left = format_duration(job.next_try_at - now)
        rows.append(("next try", f"{clock(job.next_try_at, now)} (in {left})"))
    return rows


def _asked(job: JobView) -> str:
    asked = _count(job.gpus, "GPU")
    if job.gpus > 1:
        asked += f", {job.affinity} {job.policy}"
    cpus = "shared pool" if job.cpus == 0 else f"{job.cpus} CPUs, {job.cpu_affinity}"
    each = f", on each of {job.host_count} hosts" if job.host_count > 1 else ""
    return f"{asked}; {cpus}{each}"


def _request(job: JobView) -> list[tuple[str, str]]:
    spec = job.spec
    name = priority_name(job.priority)
    priority = name if name == str(job.priority) else f"{name} ({job.priority})"
    if job.effective_priority is not None:
        often = f" after {_count(job.preemptions, 'preemption')}" if job.preemptions else ""
        priority += f", effective {job.effective_priority}{often}"
    rows = [("priority", priority), ("asks for", _asked(job))]
    if spec.memory_bytes is not None:
        rows.append(("memory", format_size(spec.memory_bytes)))
    stop = f"{format_duration(spec.grace_seconds)} grace, then {spec.on_preempt.value}"
    rows.append(("preemptible", stop if spec.preemptible else "no"))
    if spec.on_host_lost.value != "requeue":
        rows.append(("host lost", f"{spec.on_host_lost.value}s it there"))
    if spec.min_runtime_seconds:
        rows.append(("min runtime", format_duration(spec.min_runtime_seconds)))
    if spec.wait_before_preempt_seconds:
        wait = format_duration(spec.wait_before_preempt_seconds)
        rows.append(("waits", f"{wait} for free GPUs before anyone is stopped for it"))
    if spec.max_runtime_seconds is not None:
        rows.append(("max runtime", format_duration(spec.max_runtime_seconds)))
    if spec.restart.value != "never":
        rows.append(("restart", f"{spec.restart.value}, at most {spec.max_restarts} times in a row"))
    if spec.checkpoint is not None:
        timeout = format_duration(spec.checkpoint.timeout_seconds)
        hook = spec.checkpoint.signal or shlex.join(spec.checkpoint.command)
        rows.append(("checkpoint", f"{hook} (at most {timeout})"))
    return rows


def _container(spec: JobSpec) -> list[tuple[str, str]]:
    rows = [("image", spec.image)] if spec.image else []
    if spec.command:
        rows.append(("command", shlex.join(spec.command)))
    if spec.workdir:
        rows.append(("workdir", spec.workdir))
    if spec.container_user:
        rows.append(("runs as", spec.container_user))
    rows += [("volume", f"{m.source}:{m.target}{':ro' if m.read_only else ''}") for m in spec.mounts]
    rows += [("secret", f"{secret.name} from {secret.source}") for secret in spec.secrets]
    if spec.env:
        # Values may be secrets; `-o json` has them.
        rows.append(("env", ", ".join(spec.env)))
    if spec.network:
        rows.append(("network", spec.network.value))
    if spec.cap_add:
        rows.append(("capabilities", ", ".join(spec.cap_add)))
    rows += [("device", d.source if d.source == d.target else f"{d.source}:{d.target}") for d in spec.devices]
    if spec.ulimits:
        rows.append(("ulimits", ", ".join(f"{name}={value}" for name, value in spec.ulimits.items())))
    if spec.labels:
        rows.append(("labels", ", ".join(f"{name}={value}" for name, value in spec.labels.items())))
    return rows


def _story(job: JobView, events: Sequence[EventView], now: float, style: Style) -> list[str]:
    lines = []
    for event in events:
        text = printable(event.text).removeprefix(printable(named(job))).lstrip(": ")
        head = f"  {clock(event.at, now)}  "
        parts = wrap(text or event.name, max(20, style.width - len(head)), break_on_hyphens=False)
        lines.append(style.paint(head, "dim") + parts[0])
        lines += [" " * max(LABEL, len(head)) + part for part in parts[1:]]
    return lines
