"""All about one job, over the screen: what it is and has, its attempts, its plan, its story."""

from collections.abc import Sequence
from typing import Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Label, Static

from topoctl.render.events import clock
from topoctl.render.jobs import label
from topoctl.render.show import job_text
from topoctl.render.style import Style, printable
from topod.protocol.units import format_duration
from topod.protocol.views import EventView, JobLine, JobView
from topotui.attempts import Attempt, attempts
from topotui.jobs import detail
from topotui.live import OLD
from topotui.picture import ENDED

MARGIN: Final = 6


class JobScreen(ModalScreen[str | None]):
    """Shows one job as it changes; a key that does something to it is the answer."""

    BINDINGS = [
        Binding("escape,q,i,enter", "dismiss(None)", "Back"),
        Binding("l", "dismiss('log')", "Output"),
        Binding("k", "dismiss('cancel')", "Cancel"),
        Binding("r", "dismiss('requeue')", "Requeue"),
        Binding("p", "dismiss('priority')", "Priority"),
    ]

    def __init__(self, job: int, *, read_only: bool = False) -> None:
        super().__init__()
        self.job = job
        self._read_only = read_only
        self.text = ""
        """What is shown, without colours."""
        self._line: JobLine | None = None
        self._whole: JobView | None = None
        self._events: Sequence[EventView] = ()
        self._now = 0.0
        self._away = ""

    def compose(self) -> ComposeResult:
        yield Label(f"job {self.job}", classes="bar", id="job-title", markup=False)
        with VerticalScroll():
            yield Static(id="job")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def show(self, line: JobLine | None, events: Sequence[EventView], now: float) -> bool:
        """Show what the picture has; return whether the rest should be asked for again."""
        stale = line != self._line
        if line is not None and self._line is not None and line.state != self._line.state:
            self.refresh_bindings()
        self._line, self._now = line, now
        if len(events) > len(self._events):
            self._events = events
        self._draw()
        return stale

    def tell(self, away: str) -> None:
        """Say why nobody answers, and that this is how it was; empty: somebody does."""
        if away != self._away:
            self._away = away
            self._draw()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done to the job as it is."""
        if action != "dismiss" or parameters not in (("cancel",), ("requeue",), ("priority",)):
            return True
        state = self._line.state if self._line is not None else ""
        return not (self._read_only or state in ENDED or (state == "pending" and parameters == ("requeue",)))

    def fill(self, job: JobView, events: Sequence[EventView]) -> None:
        """Show what topod says of it."""
        self._whole, self._events = job, events
        self._draw()

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        line = self._whole or self._line
        if line is None:
            return
        room = max(40, self.size.width - MARGIN)
        story = attempts(self._events)
        parts = [_table(story, self._now)] if story else []
        if self._whole is not None:
            told = job_text(self._whole, self._events, self._now, Style(width=room, color=True))
            whole = Text.from_ansi(told.rstrip("\n"))
        else:
            whole = detail(line, self._now, hint="")
        # Several attempts are what one wants to know first.
        parts.insert(len(parts) if len(story) > 1 else 0, whole)
        text = Text("\n\n").join(parts)
        self.text = text.plain
        told = f"{printable(label(line))} · {line.state}"
        bar = self.query_one("#job-title", Label)
        bar.set_class(bool(self._away), "away")
        bar.update(f"{told}; {OLD} · {printable(self._away)}" if self._away else told)
        self.query_one("#job", Static).update(text)


def _table(found: Sequence[Attempt], now: float) -> Text:
    lines = [Text("attempts", style="bold")]
    lines.append(Text(f"  {'#':>3}  {'BEGAN':<19}  {'RAN':>7}  {'ENDED':<12} EXIT  WHY", style="dim"))
    for one in found:
        ran = format_duration(max(0.0, (one.ended if one.ended is not None else now) - one.began))
        code = "-" if one.exit_code is None else str(one.exit_code)
        how = one.how or ("goes on" if not one.restored else "restored")
        began = clock(one.began, now)
        lines.append(
            Text(
                f"  {one.number:>3}  {began:<19}  {ran:>7}  {how:<12} {code:>4}  {printable(one.why)}",
                no_wrap=True,
                overflow="ellipsis",
            )
        )
    return Text("\n").join(lines)
