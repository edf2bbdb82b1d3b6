"""Preemptions: a line each, and of one of them its phases as bars, its victims, and why these."""

import time
from collections.abc import Iterable
from typing import Final

from rich.segment import Segment
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Container, VerticalScroll
from textual.widgets import Static

from topoctl.render.jobs import priority_name
from topoctl.render.plan import plan_lines
from topoctl.render.style import Style, printable
from topotui.blocks import fit
from topotui.line_table import HEADING, LineTable
from topotui.palette import BAD_COLOR, color_of
from topotui.picture import Picture
from topotui.timeline import Preemption, Victim

PHASES: Final = {
    "decide": ("▏", "#f0e442", "the plan"),
    "create": ("░", "#56b4e9", "its container; nobody is stopped yet"),
    "stop": ("█", BAD_COLOR, "hooks, SIGTERM, grace time"),
    "free": ("▒", "#cc79a7", "until the GPUs are really free"),
    "start": ("▓", "#009e73", "until it runs"),
}
"""Of each phase a pattern and a colour (Okabe and Ito's), so that neither is needed, and what it is."""
BAR: Final = 16
COLUMNS: Final = {
    "WHEN": 8,
    "PREEMPTOR": 15,
    "PRIO": 6,
    "VICTIMS": 10,
    "PHASES": BAR + 2,
    "TOTAL": 9,
    "RESULT": 7,
}
"""How wide each is; together 80."""
LABEL: Final = 22
EXPLAINED: Final = 110
"""From so many columns on it is said what a phase is."""


class StopsTable(LineTable):
    """A line for each preemption, the newest first."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[str, Preemption] = {}
        self._rows: dict[str, tuple[str, ...]] = {}

    def update_from(self, found: Iterable[Preemption]) -> None:
        """Bring the lines up to date, oldest first. Who looks at the newest goes on doing so."""
        newest = self.cursor is None or self.cursor == self.keys[0]
        self._found = {f"{one.job} {one.placed_at}": one for one in found}
        rows = {key: _row(one) for key, one in self._found.items()}
        changed = {key for key, row in rows.items() if self._rows.get(key) != row}
        self._rows = rows
        self.show(list(reversed(rows)), changed)
        if newest:
            self.move_to(0)

    @property
    def chosen(self) -> Preemption | None:
        """The preemption under the cursor."""
        return None if self.cursor is None else self._found[self.cursor]

    def heading(self, width: int) -> list[Segment]:
        cells = [fit(name, size) for name, size in COLUMNS.items()]
        return [Segment(fit(f" {' '.join(cells)}", width), HEADING)]

    def line(self, key: str, width: int) -> list[Segment]:
        del width
        one = self._found[key]
        text = Text(" ", end="")
        for cell, size in zip(_cells(one, self._rows[key]), COLUMNS.values(), strict=True):
            cell.truncate(size, overflow="ellipsis", pad=True)
            text.append_text(cell).append(" ")
        return [*text.render(self.app.console)]


class PreemptionsPane(Container):
    """The preemptions of a host, and all about the one under the cursor."""

    def compose(self) -> ComposeResult:
        yield StopsTable()
        with VerticalScroll(id="why-scroll", can_focus=False):
            yield Static(id="why")

    def show(self, picture: Picture) -> None:
        """Draw the lines that changed, and the one under the cursor."""
        self.query_one(StopsTable).update_from(picture.timeline.all)
        self.show_why()

    def show_why(self) -> None:
        """Say all about the one under the cursor."""
        one = self.query_one(StopsTable).chosen
        room = max(40, self.query_one("#why-scroll").size.width - 3)
        text = story(one, room) if one else Text("no preemption so far", style="dim")
        self.query_one("#why", Static).update(text)


def story(one: Preemption, width: int) -> Text:
    """Return all that is known of a preemption in `width` columns."""
    lines = [_title(one), *_bars(one, width)]
    if one.gave_up:
        lines.append(Text(f"given up: {printable(one.gave_up)}", style="bold"))
    if one.plan:
        lines.append(Text("why these", style="bold"))
        lines += [Text(line) for line in plan_lines(one.plan, Style(width=width))]
    return Text("\n").join(lines)


def _title(one: Preemption) -> Text:
    when = time.strftime("%H:%M:%S", time.localtime(one.placed_at))
    return Text.assemble((f"{when} {printable(one.label)}", "bold"), f", {result(one)}")


def result(one: Preemption) -> str:
    """Say what has become of it."""
    if one.started_at is not None:
        return f"runs after {milliseconds(_total(one))}"
    return "gave up" if one.gave_up else "goes on"


def milliseconds(seconds: float) -> str:
    """Return `0.4 ms`, `130 ms`, `12,400 ms`."""
    count = seconds * 1000
    return f"{count:.1f} ms" if count < 10 else f"{count:,.0f} ms"


def _total(one: Preemption) -> float:
    spans = one.spans()
    return max((end for _, _, end in spans), default=one.placed_at) - one.placed_at


def _bars(one: Preemption, width: int) -> list[Text]:
    """Return a bar for each phase, and for each victim, all on one axis of time."""
    spans = one.spans()
    if not spans:
        return []
    explained = width >= EXPLAINED
    room = max(10, width - LABEL - 14 - (40 if explained else 0))
    lines = []
    for name, begin, end in spans:
        pattern, color, what = PHASES[name]
        bar = _bar(one, (begin, end), room, pattern)
        lines.append(
            Text.assemble(
                f"  {name:<{LABEL - 3}} ",
                (bar, color),
                f" {milliseconds(end - begin):>10}  ",
                (what if explained else "", "dim"),
                no_wrap=True,
                overflow="ellipsis",
            )
        )
    for victim in one.victims:
        if victim.told_at is not None and victim.gone_at is not None:
            bar = _bar(one, (victim.told_at, victim.gone_at), room, "▪")
            took = milliseconds(max(0.0, victim.gone_at - victim.told_at))
            lines.append(
                Text.assemble(
                    f"  {_called(victim)[: LABEL - 3]:<{LABEL - 3}} ",
                    (bar, PHASES["stop"][1]),
                    f" {took:>10}",
                    no_wrap=True,
                )
            )
    return lines


def _bar(one: Preemption, span: tuple[float, float], room: int, pattern: str) -> str:
    (begin, end), total = span, _total(one)
    scale = room / total if total > 0 else 0.0
    at = min(room - 1, round((begin - one.placed_at) * scale))
    long = max(1, min(room - at, round((end - begin) * scale)))
    return f"{'·' * at}{pattern * long}{'·' * (room - at - long)}"


def _called(victim: Victim) -> str:
    return printable(victim.label) or f"job {victim.job}"


def _row(one: Preemption) -> tuple[str, ...]:
    when = time.strftime("%H:%M:%S", time.localtime(one.placed_at))
    idents = one.plan.get("idents") or {}
    victims = ", ".join(printable(str(idents.get(str(victim.job), victim.job))) for victim in one.victims)
    phases = " ".join(f"{name}:{seconds:.6f}" for name, seconds in one.phases())
    return (when, printable(one.label), victims, phases, result(one), one.gave_up)


def _cells(one: Preemption, row: tuple[str, ...]) -> tuple[Text, ...]:
    when, label, victims, *_ = row
    total = milliseconds(_total(one)) if one.phases() else ""
    state = "runs" if one.started_at is not None else "gave up" if one.gave_up else "goes on"
    return (
        Text(when),
        Text(label.removeprefix("job ")[:20], no_wrap=True),
        Text("-") if one.priority is None else Text(priority_name(one.priority), color_of(one.priority)),
        Text(victims, no_wrap=True),
        mini(one),
        Text(f"{total:>{COLUMNS['TOTAL']}}"),
        Text(state),
    )


def mini(one: Preemption, room: int = BAR) -> Text:
    """Return the phases one after the other in one bar."""
    text, total = Text(no_wrap=True), _total(one)
    for name, begin, end in one.spans():
        if name == "decide":  # a part of what comes next, by the clock
            continue
        pattern, color, _ = PHASES[name]
        text.append(pattern * max(1, round((end - begin) / total * room) if total > 0 else 1), color)
    return text
