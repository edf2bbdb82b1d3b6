"""A plan on the What-if screen: what it takes and stops on the picture, what each cost key comes to. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any, Final

from topoctl.render.plan import asides, elsewhere, verdict, victim_lines, victims_of
from topoctl.render.style import Style, printable
from topod.model.cpuset import CpuSet
from topod.protocol.replies import Planned
from topod.protocol.views import GpuView
from topotui.blocks import Block, Line, above, block, folded
from topotui.palette import BAD, FREE, TAKEN
from topotui.tiles import Marks
from topotui.wish import Wish, in_words

KEY: Final = 16
"""Columns of the names of the cost keys."""


def places_of(planned: Planned) -> list[Mapping[str, Any]]:
    """Return the plan on each of its hosts; of a host by itself the one plan."""
    several = planned.plan.get("hosts")
    if isinstance(several, list) and several:
        return [one for one in several if isinstance(one, Mapping)]
    return [planned.plan] if planned.plan else []


def alternative_of(plan: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the best rejected plan, if there is one."""
    other = plan.get("alternative")
    return other if isinstance(other, Mapping) else None


def marks_of(plan: Mapping[str, Any], gpus: Iterable[GpuView]) -> Marks:
    """Return what a plan takes, and the GPUs that those hold whom it stops."""
    victims = {str(one) for one in plan.get("victims") or ()}
    stopped = {gpu.index for gpu in gpus if gpu.job is not None and str(gpu.job) in victims}
    return Marks(
        taken=frozenset(plan.get("gpus") or ()),
        stopped=frozenset(stopped),
        cpus=CpuSet.parse(str(plan.get("cpus") or "")),
    )


def head(planned: Planned, wish: Wish, width: int, *, at: int, other: bool) -> Block:
    """Return the answer in a few lines: the verdict, where, who is stopped or why it waits."""
    lines: list[Line] = [[(_sign(planned) + verdict(planned, wish.request), _color(planned))]]
    if planned.reason:
        lines.append([(f"because {printable(planned.reason)}", "")])
    plans = places_of(planned)
    if not plans:
        return above([folded(line, width) for line in lines])
    plan = plans[min(at, len(plans) - 1)]
    found = alternative_of(plan)
    if other and found is not None:
        lines = [[("the next best plan, which is not taken:", "bold")]]
        plan = {**found, "idents": plan.get("idents"), "host": plan.get("host")}
    where = f"on {printable(str(plan['host']))}" if plan.get("host") else ""
    if len(plans) > 1:
        where += f", host {at + 1} of {len(plans)} (o: the others)"
    gpus = plan.get("gpus") or []
    what = f"GPU{'' if len(gpus) == 1 else 's'} {CpuSet.of(gpus)}" if gpus else "no GPUs"
    met = "" if plan.get("satisfied", True) else ", less than asked for"
    cpus = f"CPUs {plan.get('cpus')}" if plan.get("cpus") else "the shared CPUs"
    lines.append([(f"★ takes {what}, {cpus}, affinity {plan.get('affinity')}{met} {where}".rstrip(), TAKEN)])
    if victims := plan.get("victims"):
        idents = plan.get("idents") or {}
        names = ", ".join(f"job {printable(str(idents.get(str(one), one)))}" for one in victims)
        lines.append([(f"✗ stops {names}", BAD)])
    return above([folded(line, width) for line in lines])


def reasons(planned: Planned, width: int, *, at: int) -> Block:
    """Return why the plan is what it is: victims, cost keys beside the next best plan's, other ways."""
    plans = places_of(planned)
    if not plans:
        return above([folded([(printable(line), "")], width) for line in planned.details])
    plan = plans[min(at, len(plans) - 1)]
    blocks: list[Block] = []
    if lines := victim_lines(plan):
        blocks.append(above(folded([(f"✗ {line}", BAD)], width) for line in lines))
    blocks.append(_table(plan, width))
    style = Style(width=width, color=False)
    more = [*asides(plan, style), *elsewhere(planned.plan, style)]
    if more:
        blocks.append(block([[(line, "")] for line in more]))
    return above(blocks, gap=1)


def question(planned: Planned, wish: Wish, command: str) -> str:
    """Return what will happen when the job is submitted, as the question before it."""
    lines = [
        f"Submit {in_words(wish)}?",
        f"It runs: {command}" if command else "It runs what its image says.",
    ]
    victims = victims_of(planned.plan)
    if not planned.feasible:
        lines.append(f"It will wait: {printable(planned.reason)}.")
    elif victims:
        names = ", ".join(f"job {printable(name)}" for name in victims)
        lines.append(
            f"As things are now it stops {names}: told to stop, with time to save, and back into the queue"
            " unless it asked otherwise."
        )
    else:
        lines.append("As things are now it starts at once and stops nobody.")
    return "\n".join(lines)


def _table(plan: Mapping[str, Any], width: int) -> Block:
    """Return the cost keys in the order compared; the one by which the next best plan lost is marked."""
    other = alternative_of(plan)
    mine = _costs(plan)
    theirs = dict(_costs(other)) if other is not None else {}
    decided = str(other.get("decided_by", "")).partition(":")[0] if other is not None else ""
    column = (width - KEY - 2) // 2 if other is not None else width - KEY
    column = min(column, 44)
    lines: list[Line] = []
    title = f"{'cost, in order':<{KEY}}{'this plan':<{column}}"
    lines.append([(title, "bold"), ("  next best" if other is not None else "", "bold")])
    for key, value in mine:
        left, right = wrap(value, column) or [""], wrap(theirs.get(key, "-"), column) or [""]
        if other is None:
            right = []
        decides = key == decided
        for row in range(max(len(left), len(right))):
            name = (f"{'▶ ' if decides else '  '}{key}" if not row else "").ljust(KEY)
            here = left[row] if row < len(left) else ""
            there = right[row] if row < len(right) else ""
            lines.append([(f"{name}{here:<{column}}  {there}".rstrip(), "bold" if decides else "")])
    if other is None:
        lines.append([("no other plan is possible", FREE)])
    elif decided in dict(mine):
        lines.append([(f"▶ the next best loses by {decided}: n shows it", FREE)])
    return block(lines)


def _costs(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    found: Sequence[Mapping[str, Any]] = plan.get("cost_text") or ()
    return [
        (str(line.get("key")), printable(str(line.get("value"))).removeprefix("groups that "))
        for line in found
    ]


def _sign(planned: Planned) -> str:
    if not planned.feasible:
        return "✗ " if planned.never else "… "
    return "! " if victims_of(planned.plan) else "✓ "


def _color(planned: Planned) -> str:
    if planned.feasible:
        return BAD if victims_of(planned.plan) else "bold #009e73"
    return BAD if planned.never else "bold #e69f00"
