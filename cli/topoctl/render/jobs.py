"""Jobs as lines: `topoctl ps` and `topoctl history`."""

from collections.abc import Iterator, Sequence

from topoctl.render.style import STATE_COLORS, Style, printable
from topoctl.render.table import Column, table
from topod.model.request import PRIORITIES
from topod.protocol.units import format_duration
from topod.protocol.views import JobLine

_NAMES = {number: name for name, number in PRIORITIES.items()}
ENDED = frozenset({"succeeded", "failed", "cancelled", "lost", "returned"})


def jobs_table(jobs: Sequence[JobLine], now: float, style: Style, *, wide: bool) -> str:
    """Return `ps` output; `now` in epoch seconds. Jobs of a fleet show their host."""
    fleet = any(job.hosts for job in jobs)
    columns = [
        Column(head="ID", right=True, most=14),
        Column(head="NAME", most=12),
        Column(head="USER", most=8),
        Column(head="PRIO"),
        Column(head="STATE", colors=STATE_COLORS),
        *([Column(head="HOST", most=16)] if fleet else []),
        Column(head="TIME", right=True),
        Column(head="GPUS", most=10),
        Column(head="CPUS", most=12),
        Column(head="RESTARTS" if wide else "RST", right=True),
        Column(head="REASON"),
    ]
    rows = [
        [
            name,
            printable(job.name),
            printable(job.user),
            priority(job),
            job.state,
            *([hosts(job, wide=wide)] if fleet else []),
            elapsed(job, now),
            gpus(job),
            (job.cpu_list or str(job.cpus)) if wide else cpus(job),
            str(restarts(job)),
            printable(job.reason),
        ]
        for name, job in _grouped(jobs)
    ]
    return table(columns, rows, style, whole=wide)


def _grouped(jobs: Sequence[JobLine]) -> Iterator[tuple[str, JobLine]]:
    """Yield what each line of `ps` is about: a job, or jobs of an array that wait for their first start."""
    groups: dict[tuple[object, ...], list[JobLine]] = {}
    for job in jobs:
        waits = job.array_id is not None and job.state == "pending" and job.starts == 0
        key = (job.array_id, job.priority, job.user) if waits else (job.id, None)
        groups.setdefault(key, []).append(job)
    for members in groups.values():
        first = members[0]
        if len(members) == 1:
            yield ident(first), first
            continue
        indices = ranges([job.array_index for job in members if job.array_index is not None])
        most = "" if first.array_limit is None else f"%{first.array_limit}"
        yield f"{first.array_id}[{indices}{most}]", first


def ident(job: JobLine) -> str:
    """Return how the command line names a job: `12`, in an array `12[3]`."""
    return str(job.id) if job.array_id is None else f"{job.array_id}[{job.array_index}]"


def label(job: JobLine) -> str:
    """Return how sentences name a job: `job 12[3] (train)`."""
    return f"job {ident(job)} ({job.name})"


def history_table(jobs: Sequence[JobLine], now: float, style: Style, *, wide: bool) -> str:
    """Return the jobs that ended, the newest last."""
    columns = [
        Column(head="ID", right=True),
        Column(head="NAME", most=12),
        Column(head="USER", most=8),
        Column(head="PRIO"),
        Column(head="STATE", colors=STATE_COLORS),
        Column(head="EXIT", right=True),
        Column(head="RAN", right=True),
        Column(head="ENDED"),
        Column(head="GPU-TIME", right=True),
        Column(head="RST", right=True),
        Column(head="REASON"),
    ]
    rows = [
        [
            ident(job),
            printable(job.name),
            printable(job.user),
            priority_name(job.priority),
            job.state,
            "-" if job.exit_code is None else str(job.exit_code),
            elapsed(job, now),
            "-" if job.ended_at is None else ago(job.ended_at, now),
            format_duration(job.gpu_seconds),
            str(restarts(job)),
            printable(job.reason),
        ]
        for job in jobs
    ]
    return table(columns, rows, style, whole=wide)


def priority(job: JobLine) -> str:
    """Return the priority, with the effective one where that differs: `low>300`."""
    name = priority_name(job.priority)
    return name if job.effective_priority is None else f"{name}>{job.effective_priority}"


def priority_name(number: int) -> str:
    """Return `high` for 1000, and so on; other numbers as they are."""
    return _NAMES.get(number, str(number))


def elapsed(job: JobLine, now: float) -> str:
    """Return how long the job has run, or ran last; how long it has waited if it never ran."""
    if job.state in {"running", "stopping"} and job.started_at is not None:
        return format_duration(now - job.started_at)
    if job.state in ENDED:
        if job.started_at is None or job.ended_at is None:
            return "-"
        return format_duration(job.ended_at - job.started_at)
    return format_duration(now - job.submitted_at)


def gpu_seconds(job: JobLine, now: float) -> float:
    """Return the GPU time of all runs of a job, the present one included."""
    running = job.state in {"running", "stopping"} and job.started_at is not None
    held = len(job.gpu_indices) if job.host_count == 1 else job.host_count * job.gpus
    present = (now - job.started_at) * held if running and job.started_at is not None else 0.0
    return job.gpu_seconds + max(0.0, present)


def gpus(job: JobLine) -> str:
    """Return the GPUs held, `0-3`, or how many are asked for, `x4`; `2x8` on two hosts."""
    if job.gpu_indices and job.state in {"starting", "running", "stopping"}:
        return ranges(job.gpu_indices)
    if job.gpus == 0:
        return "-"
    return f"x{job.gpus}" if job.host_count == 1 else f"{job.host_count}x{job.gpus}"


def hosts(job: JobLine, *, wide: bool) -> str:
    """Return where a job of a fleet is: `node-a`, `node-a+3`; `-` for nowhere."""
    if wide or len(job.hosts) < 2:
        return printable(",".join(job.hosts)) or "-"
    return f"{printable(job.hosts[0])}+{len(job.hosts) - 1}"


def cpus(job: JobLine) -> str:
    """Return the number of pinned CPUs, or what was asked for; `-` for the shared pool."""
    if job.cpu_list:
        return str(count_ranges(job.cpu_list))
    return "-" if job.cpus == 0 else str(job.cpus)


def restarts(job: JobLine) -> int:
    """Return how often the job began again."""
    return max(0, job.starts - 1)


def ago(then: float, now: float) -> str:
    """Return `3m12s ago`."""
    return f"{format_duration(now - then)} ago"


def ranges(numbers: Sequence[int]) -> str:
    """Return `0-3,6` for 0, 1, 2, 3, 6."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def count_ranges(text: str) -> int:
    """Return how many CPUs a list such as `0-3,8` names."""
    total = 0
    for part in text.split(","):
        low, dash, high = part.partition("-")
        total += int(high) - int(low) + 1 if dash else 1
    return total
