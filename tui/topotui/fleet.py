"""`topoctl top` of a fleet: hosts, jobs and preemptions, moment by moment; what can be done about them."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Input, Static, TabbedContent, TabPane

from topoctl.render.jobs import ident
from topoctl.render.style import printable
from topod.model.request import PRIORITIES
from topod.protocol.client import Client
from topod.protocol.replies import FleetChanges
from topod.protocol.requests import Cancel, DrainHost, ResumeHost, SetPriority
from topod.protocol.views import FleetRow, JobLine
from topotui.app import HostScreen
from topotui.dialogs import Ask, Confirm, Help
from topotui.feed import Feed
from topotui.fleet_lines import SORTS, fleet_words, queue_words
from topotui.fleet_panes import ALL, FleetJobsPane, HostsPane, StopsPane
from topotui.fleet_picture import FleetPicture, News
from topotui.fleet_tiles import LEGEND
from topotui.line_table import LineTable
from topotui.live import LiveScreen
from topotui.panes import EventsPane
from topotui.whatif import WhatIf

HELP = f"""\
1-5      the tabs: hosts, jobs, ended, preemptions, events
/        only lines that have these words: rack=b, silent, job:12
s, S     sort the hosts by the next column; the other way round
Enter    a host: its own screen, Escape: back; a job: its output
c        cordon a host: no new jobs        d  drain it: its jobs go on elsewhere
u        let the host take jobs again      w  what if: what a job would get, and where
k        cancel a job, after a question    p  change its priority
q        leave; nothing that runs is touched

{LEGEND}"""

ON_TABS: Final = {
    **dict.fromkeys(("sort", "turn", "cordon", "drain", "resume"), ("fleet",)),
    **dict.fromkeys(("log", "cancel", "priority"), ("jobs", "ended")),
}
"""The tabs on which an action means something, of those that do not everywhere."""


class FleetScreen(LiveScreen):
    """Shows a fleet live."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "sort", "Sort"),
        Binding("S,shift+s", "turn", "Turn", show=False),
        Binding("l", "log", "Output"),
        Binding("c", "cordon", "Cordon"),
        Binding("d", "drain", "Drain"),
        Binding("u", "resume", "Resume"),
        Binding("w", "what_if", "What if"),
        Binding("k", "cancel", "Cancel"),
        Binding("p", "priority", "Priority"),
        Binding("1", "tab('fleet')", "Fleet", show=False),
        Binding("2", "tab('jobs')", "Jobs", show=False),
        Binding("3", "tab('ended')", "Ended", show=False),
        Binding("4", "tab('preemptions')", "Preemptions", show=False),
        Binding("5", "tab('events')", "Events", show=False),
        Binding("escape", "unfilter", "All", show=False),
        Binding("q", "app.quit", "Quit"),
    ]

    def __init__(self, connect: Callable[[str], Client], *, read_only: bool = False) -> None:
        """`connect` asks the fleet, or the host of that name through it."""
        super().__init__(lambda: connect(""), read_only=read_only)
        self.picture = FleetPicture()
        self._of_host = connect
        self._feed: Feed[FleetChanges] | None = None
        self._stale: set[str] = set()
        """Tabs that are behind the picture."""

    def compose(self) -> ComposeResult:
        yield Static("connecting ...", id="status", classes="bar")
        with TabbedContent(initial="fleet"):
            with TabPane("1 Fleet", id="fleet"):
                yield HostsPane(self.picture)
            with TabPane("2 Jobs", id="jobs"):
                yield FleetJobsPane(self.picture)
            with TabPane("3 Ended", id="ended"):
                yield FleetJobsPane(self.picture, ended=True)
            with TabPane("4 Preemptions", id="preemptions"):
                yield StopsPane(self.picture)
            with TabPane("5 Events", id="events"):
                yield EventsPane()
        yield Input(
            placeholder="words that a line must have; Enter: back, Escape: all", id="filter", disabled=True
        )
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#filter").display = False
        self.query_one("#hosts").focus()
        self._feed = Feed(
            FleetChanges,
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

    def take(self, changes: FleetChanges) -> None:
        """Take in an answer of the coordinator and draw what is on the screen."""
        if not self.is_attached:  # it was closed while the answer was under way
            return
        self.away = ""
        seen = self.picture.cursor[2]
        news = self.picture.take(changes)
        if self.picture.cursor[2] != seen:
            self.query_one(EventsPane).add([event for event in self.picture.events if event.seq > seen])
        if news:
            self._stale = {"fleet", "jobs", "ended", "preemptions"}
        self.say()
        if self.is_current:
            self.draw(news)

    def lost(self, why: str) -> None:
        """Say that the coordinator does not answer; what is on the screen stays."""
        self.away = why
        if self.is_attached:
            self.say()

    def draw(self, news: News) -> None:
        """Draw the tab that is on the screen; the others when they come up."""
        tab = self.query_one(TabbedContent).active
        self._stale.discard(tab)
        match tab:
            case "fleet":
                self.query_one(HostsPane).show(news)
            case "jobs" | "ended":
                self.query_one(f"#{tab} FleetJobsPane", FleetJobsPane).show(news)
            case "preemptions":
                self.query_one(StopsPane).show(news)
            case _:
                pass

    def say(self) -> None:
        """Write the first line."""
        bar, picture = self.query_one("#status", Static), self.picture
        bar.set_class(bool(self.away), "away")
        if self.away:
            why = f"no answer, trying again; this is how it was · {self.away}"
            bar.update(printable(why), layout=False)
            return
        hosts, groups = fleet_words(picture.rows)
        words = [hosts, queue_words(picture.jobs.values())]
        words += ["read-only"] if self.read_only else []
        words += picture.about.troubles if picture.about is not None else []
        told = " · ".join(words)
        if groups and len(told) + len(groups) + 4 < self.size.width:
            told = " · ".join([f"{hosts}: {groups}", *words[1:]])
        bar.update(printable(told), layout=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - a hook
        """Offer on each tab what can be done there."""
        tabs = ON_TABS.get(action)
        return tabs is None or not self.is_mounted or self._tab in tabs

    # --- keys ---------------------------------------------------------------------------------------------

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self.draw, ALL)

    def on_tabbed_content_tab_activated(self) -> None:
        self.refresh_bindings()
        self.draw(ALL)

    def on_line_table_moved(self, event: LineTable.Moved) -> None:
        for pane in event.table.ancestors:
            if isinstance(pane, HostsPane | FleetJobsPane):
                pane.show_detail()

    async def on_line_table_chosen(self, event: LineTable.Chosen) -> None:
        if event.table.id == "hosts":
            await self._open(event.key)
        elif event.table.id in ("job-lines", "ended-lines"):
            await self.action_log()

    async def _open(self, host: str) -> None:
        there = HostScreen(partial(self._of_host, host), read_only=self.read_only, over_fleet=True)
        await self.app.push_screen(there)

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id != "filter":
            return
        if self._tab == "fleet":
            lines = self.query_one(HostsPane).lines
            lines.filter = event.value
            lines.again()
        else:
            for pane in self.query(FleetJobsPane):
                pane.lines.filter = event.value
            self.draw(ALL)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            self._leave_filter()

    def _leave_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display, field.disabled = False, True
        for table in self.query(f"#{self._tab} LineTable"):
            table.focus()

    @property
    def _tab(self) -> str:
        return self.query_one(TabbedContent).active

    def action_tab(self, name: str) -> None:
        self.query_one(TabbedContent).active = name
        for table in self.query(f"#{name} LineTable"):
            table.focus()

    async def action_help(self) -> None:
        await self.app.push_screen(Help(HELP))

    def action_filter(self) -> None:
        if self._tab not in ("fleet", "jobs", "ended"):
            self.action_tab("fleet")
        field = self.query_one("#filter", Input)
        fleet = self._tab == "fleet"
        lines = self.query_one(HostsPane).lines if fleet else self.query_one("#jobs JobLines")
        field.value = str(getattr(lines, "filter", ""))
        field.display, field.disabled = True, False
        field.focus()

    def action_unfilter(self) -> None:
        self.query_one("#filter", Input).value = ""
        self._leave_filter()

    def action_sort(self) -> None:
        lines = self.query_one(HostsPane).lines
        lines.sort = SORTS[(SORTS.index(lines.sort) + 1) % len(SORTS)]
        lines.again()

    def action_turn(self) -> None:
        lines = self.query_one(HostsPane).lines
        lines.backwards = not lines.backwards
        lines.again()

    async def action_log(self) -> None:
        if (job := self._job()) is not None:
            await self.show_output(job.id, f"job {ident(job)}")

    # --- what is done -------------------------------------------------------------------------------------

    async def action_what_if(self) -> None:
        await self.app.push_screen(
            WhatIf(self._of_host, picture=None, seen=lambda: self.picture.cursor, read_only=self.read_only)
        )

    async def action_cordon(self) -> None:
        if (row := self._host()) is not None and self.may():
            text = f"Cordon {row.name}: it gets no new jobs; {_their_jobs(row)} to the end. Why?"
            await self.app.push_screen(Ask(text), partial(self._close, row.name, requeue=False))

    async def action_drain(self) -> None:
        if (row := self._host()) is not None and self.may():
            jobs = self.picture.jobs_on(row.name)
            names = ", ".join(ident(job) for job in jobs[:8]) + (" ..." if len(jobs) > 8 else "")
            what = (
                f"its jobs ({names}) are stopped and go on elsewhere"
                if jobs
                else "no job of the fleet is on it"
            )
            text = f"Drain {row.name}: it gets no new jobs; {what}. Why?"
            await self.app.push_screen(Ask(text), partial(self._close, row.name, requeue=True))

    def _close(self, host: str, why: str | None, *, requeue: bool) -> None:
        if why:
            self.do(DrainHost(host=host, reason=why, requeue=requeue))

    async def action_resume(self) -> None:
        row = self._host()
        if row is None or not self.may():
            return
        if row.state not in ("cordoned", "drained"):
            self.notify(f"{row.name} is neither cordoned nor drained: {row.state}")
            return
        text = f"{row.name} is {row.state}: {row.reason}.\nLet it take jobs again?"
        await self.ask_first(Confirm(text), ResumeHost(host=row.name))

    async def action_cancel(self) -> None:
        if (job := self._job()) is not None and self.may():
            where = ", ".join(job.hosts)
            text = (
                f"Cancel {_called(job)}, which waits? It will not run."
                if job.state == "pending"
                else f"Cancel {_called(job)} on {where}? It is told to stop, has its grace time,"
                " gives back its GPUs and does not run again."
            )
            await self.ask_first(Confirm(text), Cancel(jobs=[job.id]))

    async def action_priority(self) -> None:
        if (job := self._job()) is not None and self.may():
            names = ", ".join(f"{name} ({number})" for name, number in PRIORITIES.items())
            text = (
                f"Priority of {_called(job)}, now {job.priority}: {names} or a number.\n"
                "A higher one may stop others at once; with a lower one others may stop it."
            )
            await self.app.push_screen(Ask(text), partial(self._prioritise, job.id))

    def _prioritise(self, job: int, text: str | None) -> None:
        if text and (number := self.priority_of(text)) is not None:
            self.do(SetPriority(job=job, priority=number))

    def _host(self) -> FleetRow | None:
        return self.query_one(HostsPane).selected if self._tab == "fleet" else None

    def _job(self) -> JobLine | None:
        tab = self._tab
        return (
            self.query_one(f"#{tab} FleetJobsPane", FleetJobsPane).selected
            if tab in ("jobs", "ended")
            else None
        )


def _called(job: JobLine) -> str:
    return f"job {ident(job)} ({job.name})"


def _their_jobs(row: FleetRow) -> str:
    return (
        "no job runs there"
        if not row.jobs
        else "its job runs on"
        if row.jobs == 1
        else f"its {row.jobs} jobs run on"
    )


class FleetApp(App[None]):
    """Shows a fleet live, and its hosts."""

    TITLE = "topod"
    CSS_PATH = ["top.tcss", "fleet.tcss"]

    def __init__(self, connect: Callable[[str], Client], *, read_only: bool = False) -> None:
        """`connect` asks the fleet, or the host of that name through it."""
        super().__init__()
        self.fleet = FleetScreen(connect, read_only=read_only)

    def get_default_screen(self) -> Screen[None]:
        return self.fleet
