"""The answer to `rebalance` in words: what is together before and after, who moves, why, at what cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from topoctl.render.jobs import priority_name, ranges
from topoctl.render.plan import labelled
from topoctl.render.style import Style, printable
from topod.protocol.replies import Moves
from topod.protocol.units import format_duration


def moves_text(told: Moves, style: Style) -> str:
    """Return the answer in lines of at most `style.width`."""
    plan = told.plan
    lines = [style.paint(_verdict(told), "bold")]
    lines += labelled("now", _free(plan["before"]), style)
    if not plan["moves"]:
        return "\n".join(lines) + "\n"
    lines += labelled("then", _free(plan["after"]), style)
    if plan["room_gpus"]:
        cpus = f", CPUs {plan['room_cpus']}" if plan["room_cpus"] else ""
        lines += labelled("room", f"{gpus_text(plan['room_gpus'])}{cpus}", style)
    for index, move in enumerate(plan["moves"]):
        label = "moves" if plan["reached"] else "at best"
        lines += labelled("" if index else label, _move(move), style)
    lines += labelled("cost", _cost(plan["cost"]), style)
    other = plan["alternative"]
    if isinstance(other, Mapping):
        lines += labelled("next best", _alternative(other, asked=bool(plan["room_gpus"])), style)
    if not plan["proven"]:
        lines += labelled("note", "the search was cut off: a better answer may exist", style)
    return "\n".join(lines) + "\n"


def gpus_text(indices: Sequence[int]) -> str:
    """Return `GPU 3`, `GPUs 0-3` or `no GPUs`."""
    if not indices:
        return "no GPUs"
    return f"GPU{'' if len(indices) == 1 else 's'} {ranges(indices)}"


def _verdict(told: Moves) -> str:
    plan, count = told.plan, len(told.plan["moves"])
    jobs = f"{count} job{'' if count == 1 else 's'}"
    if told.made:
        return f"moving {jobs}"
    if not plan["reached"]:
        return "so many GPUs cannot be brought together by moving jobs"
    if not count:
        return "nothing to move"
    return f"would move {jobs}"


def _free(free: Mapping[str, Any]) -> str:
    group, count = free["group"], len(free["free"])
    if not count:
        return "no GPU is free"
    together = gpus_text(group) + (" together" if len(group) > 1 else "")
    names = zip(("NVLink", "PCIe", "NUMA"), free["left"], strict=True)
    groups = ", ".join(f"{name} {'+'.join(map(str, sizes))}" for name, sizes in names)
    return f"{together}, of {count} that {'is' if count == 1 else 'are'} free; groups: {groups}"


def _move(move: Mapping[str, Any]) -> str:
    name = f" ({printable(str(move['name']))})" if move.get("name") else ""
    where = f"{gpus_text(move['gpus_before'])} -> {ranges(move['gpus']) or 'none'}"
    if move["gpus_before"] == move["gpus"]:
        where = f"CPUs {move['cpus_before']} -> {move['cpus']}"
    lost = format_duration(move["work_lost_gpu_seconds"])
    priority = priority_name(int(move["priority"]))
    job = printable(str(move.get("ident") or move["job"]))
    return f"job {job}{name}, {priority}: {where}; {move['why']}; {lost} of GPU time lost"


def _cost(cost: Mapping[str, Any]) -> str:
    words = [
        f"{count} restart{'' if count == 1 else 's'} of priority {priority}"
        for priority, count in cost["restarts"]
    ]
    if cost["affinity_lost"] or cost["cpu_affinity_lost"]:
        lost = f"GPUs {cost['affinity_lost']}, CPUs {cost['cpu_affinity_lost']} steps"
        words.append(f"affinity lost: {lost}")
    words.append(f"work lost: {cost['work_lost_gpu_seconds']:.0f} GPU-seconds")
    return ", ".join(words)


def _alternative(other: Mapping[str, Any], *, asked: bool) -> str:
    count = len(other["moves"])
    moves = f"with {count} move{'' if count == 1 else 's'}" if count else "without a move"
    if asked:
        return f"{moves}: {'also room' if other['reached'] else 'no room'}"
    return f"{moves}: {gpus_text(other['group'])} together"
