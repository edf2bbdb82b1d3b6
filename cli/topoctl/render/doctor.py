"""The doctor's findings as lines."""

from collections.abc import Sequence
from textwrap import wrap

from topoctl.doctor.check import Check
from topoctl.render.style import Style, printable

_COLORS = {"ok": "green", "warn": "yellow", "bad": "red"}


def check_text(check: Check, style: Style) -> str:
    """Return one check: its verdict, what was seen, and what mends it."""
    head = f"{check.verdict:<5} {check.name:<12} "
    parts = wrap(printable(check.text), max(20, style.width - len(head)), break_on_hyphens=False) or [""]
    painted = style.paint(check.verdict, _COLORS[check.verdict]) + head[len(check.verdict) :]
    lines = [painted + parts[0], *(" " * len(head) + part for part in parts[1:])]
    if check.mend:
        lines.append(" " * len(head) + style.paint(f"{'→' if style.unicode else '->'} {check.mend}", "bold"))
    return "\n".join(lines) + "\n"


def summary(checks: Sequence[Check]) -> str:
    """Return the last line: `8 ok, 2 warn, 1 bad`."""
    counts = {verdict: sum(check.verdict == verdict for check in checks) for verdict in _COLORS}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) + "\n"
