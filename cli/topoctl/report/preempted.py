"""The section of a report about preemptions."""

from collections.abc import Sequence
from datetime import tzinfo

from topoctl.report.facts import Facts, Preempted
from topoctl.report.html import Cell, items, moment, offset, paragraph, table, ticks
from topoctl.report.sums import edges, phase_spreads, preemption_columns, reasons
from topoctl.report.svg import Columns, Range, columns, ranges
from topod.protocol.units import format_duration

LISTED = 200
NAMES = {
    "decide": "plan decided",
    "create": "container made",
    "stop": "victims stopped",
    "free": "GPUs really free",
    "start": "job started",
    "all": "all of it",
}
LISTED_PHASES = ("create", "stop", "free", "start")


def preemptions(facts: Facts, zone: tzinfo | None) -> str:
    """Return the section."""
    found = facts.preemptions
    head = "<section>\n<h2>Preemptions</h2>\n"
    if not found:
        return head + paragraph("No job was stopped for another one.") + "</section>\n"
    victims = sum(len(one.victims) for one in found)
    lost = format_duration(sum(one.work_lost for one in found))
    gave_up = sum(one.result not in ("runs", "going on") for one in found)
    text = f"Preemptions: {len(found)}. Jobs stopped: {victims}. They lost {lost} of GPU time."
    more = (
        f" Preemptions that led to nothing, since the job gave up or was cancelled: {gave_up}."
        if gave_up
        else ""
    )
    return (
        head
        + paragraph(text + more)
        + _over_time(facts, zone)
        + _phases(found)
        + _reasons(found)
        + _list(found, zone)
        + "</section>\n"
    )


def _over_time(facts: Facts, zone: tzinfo | None) -> str:
    times = edges(facts.period, offset(facts.period.since, zone))
    rows = preemption_columns(facts.preemptions, times)
    titles = [
        f"{moment(at, zone)}: {row[0]:.0f} preemptions" for at, row in zip(times[:-1], rows, strict=True)
    ]
    chart = Columns(
        stacks=rows, paints=["orange"], titles=titles, ticks=ticks(times, zone), height=120, whole=True
    )
    return columns(chart, "Preemptions over time; the list below has each of them")


def _phases(found: Sequence[Preempted]) -> str:
    spreads = phase_spreads(found)
    if not spreads:
        return ""
    rows = [
        Range(
            name=NAMES[name],
            low=one.low * 1000,
            middle=one.middle * 1000,
            high=one.high * 1000,
            text=f"{ms(one.middle)}, 9 of 10 within {ms(one.high)}",
        )
        for name, one in spreads.items()
    ]
    cells: list[list[Cell]] = [
        [
            NAMES[name],
            one.count,
            *(f"{value * 1000:,.0f}" for value in (one.low, one.middle, one.high, one.most)),
        ]
        for name, one in spreads.items()
    ]
    heads = ["phase", "times", "shortest", "median", "9 of 10 within", "longest"]
    return (
        "<h3>How long each phase took</h3>\n"
        + paragraph(
            "From the shortest to what 9 of 10 stay within; the dot is the median. Grace times count."
        )
        + ranges(rows, "Milliseconds of each phase; the table has the numbers", unit="ms")
        + table(heads, cells, "Milliseconds of each phase")
    )


def _reasons(found: Sequence[Preempted]) -> str:
    rows = list(reasons(found).items())
    return "<h3>Why these victims and no others</h3>\n" + table(
        ["decided by", "preemptions"],
        rows,
        "The first cost key by which the plan was better than the next best one",
    )


def _list(found: Sequence[Preempted], zone: tzinfo | None) -> str:
    shown = found[-LISTED:]
    several = len({one.host for one in found}) > 1
    rows: list[list[Cell]] = [
        [
            moment(one.at, zone, "%Y-%m-%d %H:%M:%S"),
            *([one.host] if several else []),
            one.label,
            items(f"{victim.label}: {victim.why}" if victim.why else victim.label for victim in one.victims),
            one.decided_by or "-",
            *(ms(one.phases[name]) if name in one.phases else "-" for name in LISTED_PHASES),
            one.result,
        ]
        for one in reversed(shown)
    ]
    heads = [
        "when",
        *(["host"] if several else []),
        "for",
        "stopped",
        "decided by",
        *LISTED_PHASES,
        "result",
    ]
    title = "Each of them, the latest first" if len(shown) == len(found) else f"The last {LISTED}"
    told = paragraph("Jobs have the numbers of their host here, not those of the fleet.") if several else ""
    return f"<h3>{title}</h3>\n" + told + table(heads, rows, "Preemptions")


def ms(seconds: float) -> str:
    """Return a short time in milliseconds."""
    return f"{seconds * 1000:,.0f} ms"
