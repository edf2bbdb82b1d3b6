"""Quotas, disruption budgets and holds as tables."""

from topoctl.render.jobs import ranges
from topoctl.render.style import Style, printable
from topoctl.render.table import Column, table
from topod.protocol.replies import Fairness
from topod.protocol.units import format_duration
from topod.protocol.views import BudgetView, HoldView, QuotaView


def fairness_text(told: Fairness, now: float, style: Style, *, whole: bool) -> str:
    """Return what stands, in up to three parts; empty where there are no rules."""
    parts = []
    if told.quotas:
        parts.append(_quotas(told.quotas, style, whole=whole))
    if told.budgets:
        parts.append(_budgets(told.budgets, style, whole=whole))
    if told.hold is not None:
        parts.append(_hold(told.hold, now))
    return "\n".join(parts)


def _quotas(quotas: list[QuotaView], style: Style, *, whole: bool) -> str:
    columns = [
        Column(head="QUOTA OF"),
        Column(head="GPUS", right=True),
        Column(head="LIMIT", right=True),
        Column(head="LEFT", right=True),
    ]
    rows = [
        [_who(quota), str(quota.gpus), str(quota.limit), str(max(0, quota.limit - quota.gpus))]
        for quota in quotas
    ]
    return table(columns, rows, style, whole=whole)


def _who(quota: QuotaView) -> str:
    name = printable(quota.value)
    return f"user {name}" if quota.scope == "user" else f"{printable(quota.key)}={name}"


def _budgets(budgets: list[BudgetView], style: Style, *, whole: bool) -> str:
    columns = [
        Column(head="SERVICE"),
        Column(head="RUNNING", right=True),
        Column(head="MUST KEEP", right=True),
        Column(head="MAY STOP", right=True),
    ]
    rows = [
        [
            f"{printable(budget.label)}={printable(budget.value)}",
            str(budget.running),
            str(budget.min_running),
            str(budget.may_stop),
        ]
        for budget in budgets
    ]
    return table(columns, rows, style, whole=whole)


def _hold(hold: HoldView, now: float) -> str:
    since = "" if hold.since is None else f", blocked for {format_duration(max(0.0, now - hold.since))}"
    plural = "" if len(hold.gpus) == 1 else "s"
    rest = "" if hold.gpus == hold.target else f" (in time: {ranges(hold.target)})"
    return f"GPU{plural} {ranges(hold.gpus)} kept for job {hold.ident or hold.job}{since}{rest}\n"
