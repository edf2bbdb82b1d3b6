"""A report as a page: one section after the other, each a chart with the table behind it."""

from dataclasses import dataclass
from datetime import tzinfo
from html import escape

from topoctl.report.facts import Facts
from topoctl.report.html import Cell, cards, folded, legend, moment, offset, page, paragraph, table, ticks
from topoctl.report.preempted import preemptions
from topoctl.report.sums import (
    REST,
    WAIT_NAMES,
    Classes,
    affinities,
    classes_of,
    edges,
    gpu_hours,
    spread,
    usage,
    wait_columns,
    wait_spreads,
)
from topoctl.report.svg import Bar, Columns, bars, columns
from topod import __version__
from topod.model.request import LADDER, Affinity
from topod.protocol.units import format_duration

PAINTS = {"low": "green", "normal": "blue", "high": "orange", REST: "gray"}
MORE_PAINTS = ("purple", "yellow", "navy", "red")
USERS_MAX = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Whose report it is. `made`: when; `zone`: in which times are told."""

    name: str
    made: float
    zone: tzinfo | None = None


def report(facts: Facts, about: About) -> str:
    """Return the page."""
    period, zone = facts.period, about.zone
    span = f"{moment(period.since, zone)} to {moment(period.until, zone)}"
    head = (
        f"<header>\n<h1>{escape(about.name)}</h1>\n<p>{escape(span)} ({format_duration(period.seconds)}),"
        f" {facts.gpus} GPUs</p>\n</header>\n"
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in facts.notes)
    noted = f'<div class="notes" role="note"><ul>{notes}</ul></div>\n' if notes else ""
    if facts.empty:
        body = "<p>Nothing happened in this period: no job was submitted, waited, ran or ended.</p>\n"
    else:
        classes = classes_of(period, facts.runs, [*facts.waits, *facts.waiting])
        parts = (_cards(facts), _usage(facts, classes, zone), _hours(facts, classes), _waits(facts, classes))
        body = "".join(parts) + _affinity(facts) + preemptions(facts, zone)
    foot = paragraph(f"Written by topoctl {__version__} on {moment(about.made, zone, '%Y-%m-%d %H:%M %Z')}.")
    return page(f"{about.name}, {span}", f"{head}{noted}<main>\n{body}</main>\n<footer>{foot}</footer>")


def paints(classes: Classes) -> list[str]:
    """Return the colour of each class of priorities; those with names have the same in every report."""
    more = iter(MORE_PAINTS * 2)
    return [PAINTS.get(name) or next(more) for name in classes.names]


def _cards(facts: Facts) -> str:
    counts, period = facts.counts, facts.period
    ends = ", ".join(
        f"{counts[name]} {name}" for name in ("succeeded", "failed", "cancelled", "lost") if counts[name]
    )
    hours = sum(run.gpus * period.overlap(run.begin, run.end) for run in facts.runs) / 3600
    room = facts.gpus * period.seconds / 3600
    used = f"{hours / room:.0%} of {facts.gpus} GPUs" if room else "number of GPUs not known"
    victims = sum(len(one.victims) for one in facts.preemptions)
    asked = [one for one in facts.placements if one.asked != Affinity.ANY]
    met = sum(one.satisfied for one in asked)
    waited = spread(wait.seconds for wait in facts.waits)
    return cards(
        [
            ("Jobs submitted", f"{counts['submitted']:,}", ends or "none ended"),
            ("GPU-hours", f"{hours:,.1f}", used),
            ("Preemptions", f"{len(facts.preemptions):,}", f"{victims:,} jobs stopped"),
            (
                "Affinity as asked",
                _percent(met, len(asked)),
                f"of {len(asked)} placements that asked for one" if asked else "nobody asked for one",
            ),
            (
                "Median wait",
                _seconds(waited.middle) if waited else "-",
                f"of {len(facts.waits)} first starts; {len(facts.waiting)} not started yet",
            ),
        ]
    )


def _usage(facts: Facts, classes: Classes, zone: tzinfo | None) -> str:
    times = edges(facts.period, offset(facts.period.since, zone))
    rows = usage(facts.period, facts.runs, classes, times)
    form = "%Y-%m-%d %H:%M"
    names = [moment(at, zone, form) for at in times[:-1]]
    titles = [
        f"{name}: {sum(row):.1f} GPUs"
        + "".join(f"\n{kind} {value:.1f}" for kind, value in zip(classes.names, row, strict=True) if value)
        for name, row in zip(names, rows, strict=True)
    ]
    chart = Columns(
        stacks=rows,
        paints=paints(classes),
        titles=titles,
        ticks=ticks(times, zone),
        line=(float(facts.gpus), f"{facts.gpus} GPUs") if facts.gpus else None,
    )
    width = format_duration(times[1] - times[0])
    cells = [[name, *row, sum(row)] for name, row in zip(names, rows, strict=True) if any(row)]
    return (
        "<section>\n<h2>GPUs in use</h2>\n"
        + paragraph(f"On average of each {width}, by priority. The line: the GPUs there are now.")
        + legend(classes.names, paints(classes))
        + columns(chart, "GPUs in use over time, by priority; the table below has the numbers")
        + folded("The numbers", table(["from", *classes.names, "all"], cells, f"GPUs in use, per {width}"))
        + "</section>\n"
    )


def _hours(facts: Facts, classes: Classes) -> str:
    users = gpu_hours(facts.period, facts.runs, classes)
    sums = [sum(row[at] for row in users.values()) for at in range(len(classes.names))]
    whole, colors = sum(sums), paints(classes)
    by_priority = [
        Bar(name=name, parts=[(color, value)], text=f"{value:,.1f} h, {_percent(value, whole)}")
        for name, color, value in reversed(list(zip(classes.names, colors, sums, strict=True)))
    ]
    shown = dict(list(users.items())[:USERS_MAX])
    rest = [row for user, row in users.items() if user not in shown]
    if rest:
        shown[f"{len(rest)} others"] = [sum(row[at] for row in rest) for at in range(len(classes.names))]
    by_user = [
        Bar(name=user, parts=list(zip(colors, row, strict=True)), text=f"{sum(row):,.1f} h")
        for user, row in shown.items()
    ]
    cells = [[user, *row, sum(row)] for user, row in users.items()]
    return (
        "<section>\n<h2>GPU-hours</h2>\n"
        + paragraph(
            "Time that jobs held their GPUs while they ran, within the period; runs that were preempted too."
        )
        + (
            "<h3>By priority</h3>\n"
            + bars(by_priority, "GPU-hours by priority; the table below has the numbers")
            + "<h3>By user</h3>\n"
            + legend(classes.names, colors)
            + bars(by_user, "GPU-hours by user and priority; the table below has the numbers")
            + folded("The numbers", table(["user", *classes.names, "all"], cells, "GPU-hours"))
            if users
            else paragraph("No job ran on a GPU.")
        )
        + "</section>\n"
    )


def _waits(facts: Facts, classes: Classes) -> str:
    rows = wait_columns(facts.waits, classes)
    spreads = wait_spreads(facts.waits, classes)
    open_ = wait_spreads(facts.waiting, classes)
    titles = [f"{name}: {sum(row):.0f} jobs" for name, row in zip(WAIT_NAMES, rows, strict=True)]
    chart = Columns(
        stacks=rows,
        paints=paints(classes),
        titles=titles,
        ticks=list(enumerate(WAIT_NAMES)),
        height=180,
        whole=True,
    )
    cells: list[list[Cell]] = [
        [
            name,
            one.count if one else 0,
            *([_seconds(one.middle), _seconds(one.high), _seconds(one.most)] if one else ["-"] * 3),
            late.count if late else 0,
            _seconds(late.most) if late else "-",
        ]
        for name, one, late in reversed(list(zip(classes.names, spreads, open_, strict=True)))
    ]
    heads = [
        "priority",
        "started",
        "median",
        "9 of 10 within",
        "longest",
        "not started yet",
        "longest so far",
    ]
    drawn = (
        legend(classes.names, paints(classes))
        + columns(chart, "How long jobs waited; the table has the numbers")
        if facts.waits
        else paragraph("No job started for the first time.")
    )
    return (
        "<section>\n<h2>Waiting times</h2>\n"
        + paragraph("From submit to the first start, of jobs that started for the first time in the period.")
        + drawn
        + table(heads, cells, "Waiting times by priority")
        + "</section>\n"
    )


def _affinity(facts: Facts) -> str:
    found = affinities(facts.placements, [level.value for level in LADDER])
    if not found:
        return "<section>\n<h2>Affinity</h2>\n" + paragraph("No job got several GPUs.") + "</section>\n"
    rows = [
        Bar(
            name=name,
            parts=[
                ("soft", met / (met + sum(missed.values()))),
                ("red", sum(missed.values()) / (met + sum(missed.values()))),
            ],
            text=f"{met} of {met + sum(missed.values())}",
        )
        for name, met, missed in found
    ]
    cells: list[list[Cell]] = [
        [
            name,
            met + sum(missed.values()),
            met,
            _percent(met, met + sum(missed.values())),
            ", ".join(f"{count} got {got}" for got, count in sorted(missed.items())) or "-",
        ]
        for name, met, missed in found
    ]
    return (
        "<section>\n<h2>Affinity</h2>\n"
        + paragraph(
            "Of placements on two GPUs or more: whether the GPUs are as close as asked for."
            " Jobs whose policy is guaranteed wait rather than miss it."
        )
        + legend(["as asked", "less close"], ["soft", "red"])
        + bars(rows, "Affinity satisfied, by what was asked for; the table has the numbers", most=1.0)
        + table(["asked for", "placements", "as asked", "share", "the others"], cells, "Affinity by class")
        + "</section>\n"
    )


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 10 else format_duration(seconds)
