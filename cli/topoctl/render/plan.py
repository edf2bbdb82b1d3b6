"""A plan in words: what the job gets, who is stopped for it, and why nothing cheaper does."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from topoctl.render.jobs import priority_name, ranges
from topoctl.render.style import Style, printable
from topod.model.request import ResourceRequest
from topod.protocol.replies import Planned
from topod.protocol.units import format_duration

LABEL = 13


def plan_text(planned: Planned, request: ResourceRequest, style: Style) -> str:
    """Return the answer to `plan` and `submit --dry-run`, in lines of at most `style.width`."""
    lines = [style.paint(_verdict(planned, request), "bold")]
    if planned.reason:
        lines += labelled("because", printable(planned.reason), style)
    for detail in planned.details:
        lines += labelled("", printable(detail), style)
    if planned.plan:
        lines += plan_lines(planned.plan, style)
    return "\n".join(lines) + "\n"


def plan_lines(plan: Mapping[str, Any], style: Style) -> list[str]:
    """Return the parts of one plan as labelled lines: where, victims, reasons, cost, alternative."""
    lines = labelled("gpus", _gpus(plan), style)
    lines += labelled("cpus", str(plan.get("cpus") or "the shared pool"), style)
    lines += labelled("affinity", _affinity(plan), style)
    lines += labelled("stops", _victims(plan.get("victims")) or "nobody", style)
    for index, reason in enumerate(_texts(plan.get("because"))):
        lines += labelled("" if index else "why", printable(reason), style)
    for index, (name, value) in enumerate(cost_words(plan.get("cost") or {})):
        lines += labelled("" if index else "cost", f"{name}: {value}", style)
    other = plan.get("alternative")
    if isinstance(other, Mapping):
        stops = _victims(other.get("victims"))
        text = f"GPUs {_gpus(other)}, stopping {stops or 'nobody'}"
        lines += labelled("next best", text, style)
        if other.get("rejected_because"):
            lines += labelled("", f"rejected: {printable(str(other['rejected_because']))}", style)
    return lines


def cost_words(cost: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the cost keys that say something, in the order in which they are compared."""
    words: list[tuple[str, str]] = []
    levels = cost.get("victims") or []
    if levels:
        text = ", ".join(
            f"{count} of priority {priority_name(int(prio))}" for prio, count in map(_level, levels)
        )
        words.append(("jobs stopped", text))
    for key, name in (
        ("affinity_steps", "steps below the affinity"),
        ("cpu_affinity_steps", "steps below the CPU affinity"),
        ("stranded_gpus", "GPUs lost by victims and used by nobody"),
    ):
        if cost.get(key):
            words.append((name, str(cost[key])))
    if cost.get("work_lost_gpu_seconds"):
        words.append(("work lost", f"{format_duration(cost['work_lost_gpu_seconds'])} of GPU time"))
    if cost.get("link_sum"):
        words.append(("links", f"weakest {cost.get('weakest_link')}, sum {cost['link_sum']}"))
    left = cost.get("left")
    if left and any(left):
        kinds = zip(("NVLink", "PCIe", "NUMA"), left, strict=False)
        text = ", ".join(f"{kind} {'+'.join(map(str, sizes))}" for kind, sizes in kinds if sizes)
        words.append(("groups left free", text))
    return words


def labelled(label: str, text: str, style: Style) -> list[str]:
    """Return `label   text`, wrapped under the text."""
    room = max(20, style.width - LABEL - 2)
    parts = wrap(text, room, break_on_hyphens=False) or [""]
    head = style.paint(f"  {label:<{LABEL - 2}}", "dim")
    return [f"{head}{parts[0]}".rstrip(), *(" " * LABEL + part for part in parts[1:])]


def _verdict(planned: Planned, request: ResourceRequest) -> str:
    if not planned.feasible:
        return "would wait"
    victims = len(planned.plan.get("victims") or [])
    what = f"{request.gpus} GPU{'' if request.gpus == 1 else 's'}" if request.gpus else "no GPUs"
    if not victims:
        return f"would start now on {what}, stopping nobody"
    return f"would start on {what} after stopping {victims} job{'' if victims == 1 else 's'}"


def _gpus(plan: Mapping[str, Any]) -> str:
    indices = plan.get("gpus") or []
    return ranges([int(index) for index in indices]) if indices else "none"


def _affinity(plan: Mapping[str, Any]) -> str:
    text = str(plan.get("affinity", "-"))
    return text if plan.get("satisfied", True) else f"{text} (less than asked for)"


def _victims(victims: object) -> str:
    names = [str(victim) for victim in victims] if isinstance(victims, Sequence) else []
    return f"job{'' if len(names) == 1 else 's'} {', '.join(names)}" if names else ""


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _level(level: object) -> tuple[int, int]:
    """Read one level of victims: `[priority, count]`, or `{"priority": ..., "count": ...}`."""
    if isinstance(level, Mapping):
        return int(level["priority"]), int(level["count"])
    assert isinstance(level, Sequence)
    return int(level[0]), int(level[1])
