"""A plan in words: what the job gets, who is stopped for it, and why nothing cheaper does."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from topoctl.render.jobs import priority_name, ranges
from topoctl.render.style import Style, printable
from topod.model.request import ResourceRequest
from topod.protocol.replies import Planned

LABEL = 14


def plan_text(planned: Planned, request: ResourceRequest, style: Style) -> str:
    """Return the answer to `plan` and `submit --dry-run`, in lines of at most `style.width`."""
    lines = [style.paint(verdict(planned, request), "bold")]
    if planned.reason:
        lines += labelled("because", printable(planned.reason), style)
    for detail in planned.details:
        lines += labelled("", printable(detail), style)
    if planned.plan and not planned.feasible:
        lines += labelled("then", "once that is over, as things are now, the job would get:", style)
    places = _entries(planned.plan.get("hosts"))
    for place in places if len(places) > 1 else [planned.plan] if planned.plan else []:
        lines += plan_lines(place, style)
    lines += elsewhere(planned.plan, style)
    return "\n".join(lines) + "\n"


def plan_lines(plan: Mapping[str, Any], style: Style) -> list[str]:
    """Return the parts of one plan as labelled lines: where, victims, reasons, cost, alternative."""
    lines = labelled("host", printable(str(plan["host"])), style) if plan.get("host") else []
    lines += labelled("gpus", _gpus(plan), style)
    lines += labelled("cpus", str(plan.get("cpus") or "the shared pool"), style)
    lines += labelled("affinity", _affinity(plan), style)
    idents = idents_of(plan)
    for index, text in enumerate(victim_lines(plan) or [_victims(plan, idents) or "nobody"]):
        lines += labelled("" if index else "stops", text, style)
    for index, line in enumerate(_telling(_entries(plan.get("cost_text")))):
        lines += labelled("" if index else "cost", f"{line.get('key')}: {line.get('value')}", style)
    other = plan.get("alternative")
    if isinstance(other, Mapping):
        here = f" of {printable(str(plan['host']))}" if plan.get("host") else ""
        text = f"{_gpu_words(other)}{here}, stopping {_victims(other, idents) or 'nobody'}"
        lines += labelled("next best", text, style)
        if other.get("decided_by"):
            lines += labelled("", _lost(printable(str(other["decided_by"]))), style)
    return [*lines, *asides(plan, style)]


def elsewhere(plan: Mapping[str, Any], style: Style) -> list[str]:
    """Say what another host of the fleet would have given, by what it lost, and how many there are."""
    lines = []
    other, looked = plan.get("next_host"), plan.get("looked")
    if isinstance(other, Mapping):
        victims = [f"job {printable(str(one))}" for one in other.get("victims") or []]
        host = printable(str(other.get("host")))
        if len(_entries(plan.get("hosts"))) > 1:
            host += f" in place of {printable(str(other.get('in_place_of')))}"
        text = f"{host}: {_gpu_words(other)}, stopping {', '.join(victims) or 'nobody'}"
        lines += labelled("next host", text, style)
        lines += labelled("", _lost(printable(str(other.get("decided_by")))), style)
    if isinstance(looked, Mapping):
        hosts, fleet, room = (printable(str(looked.get(key))) for key in ("hosts", "fleet", "room"))
        lines += labelled("hosts", f"{hosts} of {fleet} looked at, {room} with room as they are", style)
    return lines


def victim_lines(plan: Mapping[str, Any]) -> list[str]:
    """Return who is stopped for a plan and why, one each."""
    idents = idents_of(plan)
    return [_victim(reason, idents) for reason in _entries(plan.get("victim_reasons"))]


def asides(plan: Mapping[str, Any], style: Style) -> list[str]:
    """Return what would have been cheaper: a plan that a budget forbids, moves instead of stops."""
    lines = []
    barred = plan.get("ruled_out")
    if isinstance(barred, Mapping):
        idents = idents_of(plan)
        lines += labelled(
            "ruled out", f"{_gpu_words(barred)}, stopping {_victims(barred, idents) or 'nobody'}", style
        )
        lines += labelled("", f"cheaper, but {printable(str(barred.get('ruled_out_by')))}", style)
    return [*lines, *_moves_instead(plan.get("moves_instead"), style)]


def _moves_instead(moves: object, style: Style) -> list[str]:
    """Say which jobs could move instead of being stopped for long; nothing where none could."""
    if not isinstance(moves, Mapping):
        return []
    names = [
        f"job {move.get('ident') or move.get('job')} {_way(move)}" for move in _entries(moves.get("moves"))
    ]
    text = f"nobody goes back into the queue when {' and '.join(names)}"
    return [*labelled("cheaper", text, style), *labelled("", printable(str(moves.get("command", ""))), style)]


def _way(move: Mapping[str, Any]) -> str:
    if move.get("gpus_before") == move.get("gpus"):
        return f"moves to CPUs {move.get('cpus')}"
    return f"moves to {_gpu_words(move)}"


def labelled(label: str, text: str, style: Style) -> list[str]:
    """Return `label   text`, wrapped under the text."""
    room = max(20, style.width - LABEL - 2)
    parts = wrap(text, room, break_on_hyphens=False) or [""]
    head = style.paint(f"  {label:<{LABEL - 3}} ", "dim") if label else " " * LABEL
    return [f"{head}{parts[0]}".rstrip(), *(" " * LABEL + part for part in parts[1:])]


def _lost(decided_by: str) -> str:
    """Say by which cost key a plan lost; by its indices alone means that it was as good."""
    if decided_by.startswith("names"):
        return "as good; the name that comes first wins"
    return "as good; the lower indices win" if decided_by.startswith("indices") else f"lost by {decided_by}"


def verdict(planned: Planned, request: ResourceRequest) -> str:
    """Return the answer in a few words."""
    if not planned.feasible:
        if planned.never:
            return "can never run here"
        return "would wait: the host is drained" if planned.drained is not None else "would wait"
    victims, hosts = len(victims_of(planned.plan)), len(_entries(planned.plan.get("hosts")))
    where = f" on {request.gpus} GPU{'' if request.gpus == 1 else 's'}" if request.gpus else ""
    if hosts > 1:
        where = f"{where} of each of {hosts} hosts" if where else f" on {hosts} hosts"
    if not victims:
        return f"would start now{where}, stopping nobody"
    return f"would start{where} after stopping {victims} job{'' if victims == 1 else 's'}"


def victims_of(plan: Mapping[str, Any]) -> list[str]:
    """Return who is stopped for a plan, each once: a job over several hosts is stopped on many of them."""
    places = _entries(plan.get("hosts")) or [plan]
    # Each host has numbers of its own; names are the fleet's.
    named = [
        idents_of(place).get(str(one), f"{one} of {place['host']}" if place.get("host") else str(one))
        for place in places
        for one in place.get("victims") or []
    ]
    return list(dict.fromkeys(named))


def _gpus(plan: Mapping[str, Any]) -> str:
    indices = plan.get("gpus") or []
    return ranges([int(index) for index in indices]) if indices else "none"


def _gpu_words(plan: Mapping[str, Any]) -> str:
    count = len(plan.get("gpus") or [])
    return f"GPU{'' if count == 1 else 's'} {_gpus(plan)}" if count else "no GPUs"


def _affinity(plan: Mapping[str, Any]) -> str:
    text = f"{plan.get('affinity', '-')}"
    if plan.get("cpus"):
        text += f"; CPUs {plan.get('cpu_affinity', '-')}"
    return text if plan.get("satisfied", True) else f"{text} (less than asked for)"


def idents_of(plan: Mapping[str, Any]) -> Mapping[str, str]:
    """Return how people name the jobs of a plan that belong to an array, by their numbers."""
    found = plan.get("idents")
    return (
        {str(job): printable(str(ident)) for job, ident in found.items()}
        if isinstance(found, Mapping)
        else {}
    )


def _victims(plan: Mapping[str, Any], idents: Mapping[str, str]) -> str:
    names = [idents.get(str(victim), str(victim)) for victim in plan.get("victims") or []]
    return f"job{'' if len(names) == 1 else 's'} {', '.join(names)}" if names else ""


def _victim(reason: Mapping[str, Any], idents: Mapping[str, str]) -> str:
    """Say who a victim is and why; that its priority is lower, its number says already."""
    why = printable(str(reason.get("why", "")))
    job = str(reason.get("job"))
    return f"job {idents.get(job, job)} ({priority_name(int(reason.get('priority', 0)))}): {why}"


def _entries(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list | tuple) else []


def _telling(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leave out cost keys that came to nothing, and the indices: they stand above as `gpus`."""
    nothing = ("0 ", "none", "as asked", "no pair", "groups that stay whole: NVLink 0, PCIe 0, NUMA 0")
    return [
        line
        for line in lines
        if line.get("key") != "indices" and not str(line.get("value")).startswith(nothing)
    ]
