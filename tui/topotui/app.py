"""`topoctl top`: a host as it is, moment by moment, and what can be done about it."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Static, TabbedContent, TabPane

from topod.model.request import PRIORITIES
from topod.protocol.client import Client
from topod.protocol.replies import Changes
from topod.protocol.requests import Cancel, Drain, Resume, SetPriority
from topotui.dialogs import Ask, Confirm, Help
from topotui.feed import Feed
from topotui.host_pane import HostPane
from topotui.live import LiveScreen
from topotui.machine import free_groups
from topotui.panes import EventsPane, JobsPane, PreemptionsPane
from topotui.picture import Picture
from topotui.whatif import WhatIf

HELP = """\
1-5      the tabs: host, jobs, ended, preemptions, events
v        of the host: the machine, its links, its cores; m, x, c: one of them
/        only jobs that have these words
Enter, l the output of the job
w        what if: what a job would get, and whom it would stop
k        cancel the job, after a question
p        change its priority
d        drain the host, or let it take jobs again
q        leave; nothing that runs is touched"""


class HostScreen(LiveScreen):
    """Shows one host live."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("l,enter", "log", "Output"),
        Binding("k", "cancel", "Cancel"),
        Binding("p", "priority", "Priority"),
        Binding("d", "drain", "Drain"),
        Binding("v", "view", "View"),
        Binding("w", "what_if", "What if"),
        Binding("m", "view('machine')", "Machine", show=False),
        Binding("x", "view('links')", "Links", show=False),
        Binding("c", "view('cores')", "Cores", show=False),
        Binding("1", "tab('host')", "Host", show=False),
        Binding("2", "tab('jobs')", "Jobs", show=False),
        Binding("3", "tab('ended')", "Ended", show=False),
        Binding("4", "tab('preemptions')", "Preemptions", show=False),
        Binding("5", "tab('events')", "Events", show=False),
        Binding("escape", "back", "Fleet", show=False),
        Binding("q", "app.quit", "Quit"),
    ]

    def __init__(
        self, connect: Callable[[], Client], *, read_only: bool = False, over_fleet: bool = False
    ) -> None:
        """`over_fleet`: it was opened from the screen of a fleet, and Escape goes back there."""
        super().__init__(connect, read_only=read_only)
        self.picture = Picture()
        self._over_fleet = over_fleet
        self._feed: Feed[Changes] | None = None

    def compose(self) -> ComposeResult:
        yield Static("connecting ...", id="status", classes="bar")
        with TabbedContent(initial="host"):
            with TabPane("1 Host", id="host"):
                yield HostPane()
            with TabPane("2 Jobs", id="jobs"):
                yield JobsPane()
            with TabPane("3 Ended", id="ended"):
                yield JobsPane(ended=True)
            with TabPane("4 Preemptions", id="preemptions"):
                yield PreemptionsPane()
            with TabPane("5 Events", id="events"):
                yield EventsPane()
        yield Input(placeholder="words that a job must have; Enter: back", id="filter", disabled=True)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#filter").display = False
        self.query_one(HostPane).focus()
        self._feed = Feed(
            Changes,
            self._connect,
            lambda: self.picture.cursor,
            on_changes=partial(self.app.call_from_thread, self.take),
            on_away=partial(self.app.call_from_thread, self.lost),
        )
        self._feed.start()

    def on_unmount(self) -> None:
        if self._feed is not None:
            self._feed.stop()

    # --- news ---------------------------------------------------------------------------------------------

    def take(self, changes: Changes) -> None:
        """Take in an answer of topod and draw what is on the screen."""
        if not self.query("#status"):  # it was closed while the answer was under way
            return
        came_back, self.away = bool(self.away), ""
        seen = self.picture.cursor[2]
        if not self.picture.take(changes) and not came_back:
            return
        self.query_one(EventsPane).add([event for event in self.picture.events if event.seq > seen])
        self.draw()

    def lost(self, why: str) -> None:
        """Say that topod does not answer; what is on the screen stays."""
        self.away = why
        if self.query("#status"):
            self._say()

    def draw(self) -> None:
        """Draw the tab that is on the screen; the others when they come up."""
        self._say()
        match self.query_one(TabbedContent).active:
            case "host":
                self.query_one(HostPane).show(self.picture)
            case "jobs" | "ended" as tab:
                self.query_one(f"#{tab} JobsPane", JobsPane).show(self.picture)
            case "preemptions":
                self.query_one(PreemptionsPane).show(self.picture)
            case _:
                pass

    def _say(self) -> None:
        bar, host, now = self.query_one("#status", Static), self.picture.host, self.picture
        bar.set_class(bool(self.away), "away")
        if self.away:
            bar.update(f"{self.away}; what you see is how it was; trying again ...", layout=False)
            return
        if host is None:
            return
        words = [
            f"{host.name}{' (emulated)' if host.emulated else ''}",
            free_groups(now),
            f"{_jobs(len(now.running()))} on, {len(now.queue())} waiting",
            *([f"drained: {now.about.drain}"] if now.about.drain is not None else []),
            *([f"GPU health unknown: {now.about.blind}"] if now.about.blind else []),
            *now.about.troubles,
            *(["read-only"] if self.read_only else []),
        ]
        bar.update(" · ".join(words), layout=False)

    # --- keys ---------------------------------------------------------------------------------------------

    def on_tabbed_content_tab_activated(self) -> None:
        self.draw()

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        for pane in event.data_table.ancestors:
            if isinstance(pane, JobsPane):
                pane.show_detail(self.picture)
            elif isinstance(pane, PreemptionsPane):
                pane.show_why(self.picture)

    async def on_data_table_row_selected(self) -> None:
        await self.action_log()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "filter":
            for pane in self.query(JobsPane):
                pane.filter = event.value
            self.draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            event.input.display, event.input.disabled = False, True
            self.query_one("#jobs DataTable").focus()

    def action_tab(self, name: str) -> None:
        self.query_one(TabbedContent).active = name
        for part in self.query(f"#{name} DataTable, #{name} HostPane"):
            part.focus()

    def action_view(self, name: str = "") -> None:
        self.action_tab("host")
        self.query_one(HostPane).turn(name)
        self.draw()

    async def action_what_if(self) -> None:
        if self._over_fleet:
            self.notify("a plan is asked of the whole fleet: Escape, then w", severity="warning")
            return
        picture = self.picture
        await self.app.push_screen(
            WhatIf(
                lambda _: self._connect(),
                picture=picture,
                seen=lambda: ({**picture.jobs}, {**picture.gpus}, picture.about),
                read_only=self.read_only,
            )
        )

    async def action_back(self) -> None:
        if self._over_fleet:
            _ = self.dismiss()

    async def action_help(self) -> None:
        await self.app.push_screen(Help(HELP))

    def action_filter(self) -> None:
        self.action_tab("jobs")
        field = self.query_one("#filter", Input)
        field.display, field.disabled = True, False
        field.focus()

    async def action_log(self) -> None:
        job = self._selected()
        if job is not None:
            await self.show_output(job, f"job {job}")

    async def action_cancel(self) -> None:
        job = self._selected()
        if job is not None and self.may():
            text = f"Cancel job {job}? It is told to stop, has its grace time, and does not run again."
            await self.ask_first(Confirm(text), Cancel(jobs=[job]))

    async def action_priority(self) -> None:
        job = self._selected()
        if job is None or not self.may():
            return
        names = ", ".join(f"{name} ({number})" for name, number in PRIORITIES.items())
        await self.app.push_screen(
            Ask(f"Priority of job {job}: {names} or a number"), partial(self._prioritise, job)
        )

    def _prioritise(self, job: int, text: str | None) -> None:
        if not text:
            return
        if (number := self.priority_of(text)) is not None:
            self.do(SetPriority(job=job, priority=number))

    async def action_drain(self) -> None:
        if not self.may():
            return
        if self.picture.about.drain is not None:
            text = "Let the host take jobs again?"
            await self.ask_first(Confirm(text), Resume())
        else:
            text = "Drain the host: no job starts any more, those that run go on. Why?"
            await self.app.push_screen(Ask(text), self._drain)

    def _drain(self, why: str | None) -> None:
        if why:
            self.do(Drain(reason=why))

    def _selected(self) -> int | None:
        tab = self.query_one(TabbedContent).active
        return self.query_one(f"#{tab} JobsPane", JobsPane).selected if tab in ("jobs", "ended") else None


class TopApp(App[None]):
    """Shows one host live, and nothing else."""

    TITLE = "topod"
    CSS_PATH = "top.tcss"

    def __init__(self, connect: Callable[[], Client], *, read_only: bool = False) -> None:
        super().__init__()
        self.host = HostScreen(connect, read_only=read_only)

    def get_default_screen(self) -> Screen[None]:
        return self.host

    @property
    def picture(self) -> Picture:
        """What is known of the host."""
        return self.host.picture


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"
