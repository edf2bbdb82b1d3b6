"""GPU time and outcomes of many jobs, summed up by user or by a label."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any, Final

from topoctl.render.jobs import gpu_seconds
from topoctl.render.style import Style, printable
from topoctl.render.table import Column, table
from topod.protocol.units import format_duration
from topod.protocol.views import JobView

OUTCOMES: Final = ("succeeded", "failed", "cancelled", "lost", "returned")


def grouping(by: str) -> Callable[[JobView], str]:
    """Return how a job is counted: by its user, or with `label:KEY` by that label."""
    key = by.removeprefix("label:")
    if by == "user":
        return lambda job: job.user or "-"
    return lambda job: job.spec.labels.get(key, "-")


def usage(jobs: Iterable[JobView], group: Callable[[JobView], str], now: float) -> list[dict[str, Any]]:
    """Return one entry for each group, the most GPU time first; times in seconds.

    GPU time is that of all runs of a job, before preemptions and restarts too, and of the present one until
    `now`. Only jobs that started exactly once tell how long they waited.
    """
    groups: dict[str, list[JobView]] = {}
    for job in jobs:
        groups.setdefault(group(job), []).append(job)
    entries = [_entry(key, members, now) for key, members in groups.items()]
    return sorted(entries, key=lambda entry: (-entry["gpu_seconds"], entry["key"]))


def _entry(key: str, jobs: Sequence[JobView], now: float) -> dict[str, Any]:
    waited = [
        job.started_at - job.submitted_at for job in jobs if job.starts == 1 and job.started_at is not None
    ]
    return {
        "key": key,
        "jobs": len(jobs),
        **{state: sum(job.state == state for job in jobs) for state in OUTCOMES},
        "open": sum(job.state not in OUTCOMES for job in jobs),
        "preemptions": sum(job.preemptions for job in jobs),
        "gpu_seconds": sum(gpu_seconds(job, now) for job in jobs),
        "waited_median": median(waited) if waited else None,
    }


def usage_table(entries: Sequence[dict[str, Any]], head: str, style: Style) -> str:
    """Return the entries of `usage` as lines."""
    fleet = any(entry["returned"] for entry in entries)
    outcomes = OUTCOMES if fleet else OUTCOMES[:-1]
    ends = ["OK", "FAILED", "CANC", "LOST", "RETURNED"][: len(outcomes)]
    heads = [head, "JOBS", *ends, "OPEN", "PREEMPTED", "GPU-HOURS", "WAITED"]
    columns = [Column(head=text, right=index > 0) for index, text in enumerate(heads)]
    counts = ("jobs", *outcomes, "open", "preemptions")
    rows = [
        [
            printable(entry["key"]),
            *(str(entry[name]) for name in counts),
            f"{entry['gpu_seconds'] / 3600:.2f}",
            "-" if entry["waited_median"] is None else format_duration(entry["waited_median"]),
        ]
        for entry in entries
    ]
    return table(columns, rows, style, whole=True)
