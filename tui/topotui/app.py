"""`topoctl top`: a host as it is, moment by moment, and what can be done about it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Final

from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import DataTable, Footer, Input, Static, TabbedContent, TabPane

from topoctl.render.style import printable
from topoctl.session import expect
from topod.errors import TopodError
from topod.protocol.client import Client
from topod.protocol.replies import Changes, JobLines
from topod.protocol.requests import Drain, ListJobs, Resume
from topod.protocol.views import EventView, JobLine
from topotui import words
from topotui.commands import HostCommands
from topotui.dialogs import Ask, Confirm, Help
from topotui.feed import Feed
from topotui.host_pane import HostPane
from topotui.job_keys import JobKeys
from topotui.jobs import JobsPane
from topotui.jobscreen import JobScreen
from topotui.machine import free_groups
from topotui.panes import EventsPane
from topotui.picture import Picture
from topotui.preemptions import PreemptionsPane
from topotui.record_keys import RecordKeys
from topotui.recording import Recorder
from topotui.whatif import WhatIf

HISTORY: Final = 200
"""So many jobs that ended before are shown."""
WIDE: Final = 150
"""From so many columns on details stand beside a table, not below it."""
VIEWS: Final = (
    Binding("v", "view", "View"),
    Binding("m", "view('machine')", "Machine", show=False),
    Binding("x", "view('links')", "Links", show=False),
    Binding("c", "view('cores')", "Cores", show=False),
)
JOB_TABS: Final = ("jobs", "ended")
ON_TABS: Final = {
    **dict.fromkeys(("details", "log", "cancel", "requeue", "priority"), JOB_TABS),
    **dict.fromkeys(("view", "drain"), ("host",)),
}
"""The tabs on which an action means something, of those that do not everywhere."""

TABS: Final = (
    Binding("1", "tab('host')", "Host", show=False),
    Binding("2", "tab('jobs')", "Jobs", show=False),
    Binding("3", "tab('ended')", "Ended", show=False),
    Binding("4", "tab('preemptions')", "Preemptions", show=False),
    Binding("5", "tab('events')", "Events", show=False),
)
HELP = """\
1-5      the tabs: host, jobs, ended, preemptions, events
v        of the host: the machine, its links, its cores; m, x, c: one of them
/        only jobs that have these words; Escape: all again
Enter, i all about the job under the cursor
l        its output
w        what if: what a job would get, and whom it would stop
k        cancel it
r        requeue it: stop it and queue it again
p        change its priority
d        drain the host, or let it take jobs again
R        record what happens to a file, or stop that
Ctrl+P   all commands by name
q        leave; nothing that runs is touched

Whatever changes something says first what it does, and asks."""


class HostScreen(RecordKeys, JobKeys):
    """Shows one host live."""

    HELP = HELP
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
    COMMANDS = {HostCommands}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("i", "details", "Details", show=False),
        Binding("l", "log", "Log"),
        Binding("k", "cancel", "Cancel"),
        Binding("r", "requeue", "Requeue"),
        Binding("p", "priority", "Prio"),
        Binding("d", "drain", "Drain"),
        *VIEWS,
        Binding("w", "what_if", "What if"),
        Binding("R", "record", "Record", show=False),
        *TABS,
        Binding("escape", "back", "Fleet", show=False),
        Binding("q", "app.quit", "Quit"),
    ]

    def __init__(
        self,
        connect: Callable[[], Client],
        *,
        read_only: bool = False,
        over_fleet: bool = False,
        record: Recorder | None = None,
    ) -> None:
        """`over_fleet`: it was opened from the screen of a fleet, and Escape goes back there."""
        super().__init__(connect, read_only=read_only)
        self.picture = Picture()
        self._over_fleet = over_fleet
        self._feed: Feed[Changes] | None = None
        self.recorder = record

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
        yield Input(placeholder="words that a job must have; Enter: back", id="filter")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#filter", Input).can_focus = False
        self.query_one(HostPane).focus()
        self.begin()

    def begin(self) -> None:
        """Begin to ask what happens."""
        self._feed = Feed(
            Changes,
            self._connect,
            lambda: self.picture.cursor,
            on_changes=partial(self.app.call_from_thread, self.take),
            on_away=partial(self.app.call_from_thread, self.lost),
        )
        self._feed.start()
        self._load_history()

    def on_unmount(self) -> None:
        if self._feed is not None:
            self._feed.stop()
        if self.recorder is not None:
            self.recorder.close()

    @work(thread=True)
    def _load_history(self) -> None:
        """Ask for the jobs that ended before. What comes meanwhile is newer and stays."""
        try:
            with self._connect() as client:
                ended = expect(client.ask(ListJobs(ended=True, brief=True, limit=HISTORY), 20.0), JobLines)
        except TopodError:
            return  # the line to topod says that it is away
        self.app.call_from_thread(self._remember, ended.jobs)

    def _remember(self, jobs: list[JobLine]) -> None:
        self.picture.remember(jobs)
        if self.query("#status"):
            self.draw()

    # --- news ---------------------------------------------------------------------------------------------

    def take(self, changes: Changes) -> None:
        """Take in an answer of topod and draw what is on the screen."""
        if not self.query("#status"):  # it was closed while the answer was under way
            return
        came_back, self.away = bool(self.away), ""
        seen = self.picture.cursor[2]
        if not self.picture.take(changes) and not came_back:
            return
        self.write(changes)
        self.show_news(seen)

    def show_news(self, seen: int) -> None:
        """Draw what is on the screen, after the event `seen`."""
        self.query_one(EventsPane).add([event for event in self.picture.events if event.seq > seen])
        self.draw()
        view = self.app.screen
        if isinstance(view, JobScreen) and view.show(*self.known(view.job)):
            self.load(view)

    def lost(self, why: str) -> None:
        """Say that topod does not answer; what is on the screen stays."""
        self.away = why
        if self.query("#status"):
            self.say()

    def draw(self) -> None:
        """Draw the tab that is on the screen; the others when they come up."""
        self.say()
        match self.query_one(TabbedContent).active:
            case "host":
                self.query_one(HostPane).show(self.picture)
            case "jobs" | "ended" as tab:
                self.query_one(f"#{tab} JobsPane", JobsPane).show(self.picture)
            case "preemptions":
                self.query_one(PreemptionsPane).show(self.picture)
            case _:
                pass

    def banner(self) -> list[str]:
        """Return what stands before anything else in the line on top."""
        return [] if self.recorder is None else ["● REC"]

    def say(self) -> None:
        """Say in the line on top how things are."""
        bar, host, now = self.query_one("#status", Static), self.picture.host, self.picture
        bar.set_class(bool(self.away), "away")
        if self.away:
            told = f"no answer, trying again; this is how it was · {self.away}"
            bar.update(printable(told), layout=False)
            return
        if host is None:
            return
        parts = [
            *self.banner(),
            f"{host.name}{' (emulated)' if host.emulated else ''}",
            free_groups(now),
            f"{_jobs(len(now.running()))} on, {len(now.queue())} waiting",
            *([f"drained: {now.about.drain}"] if now.about.drain is not None else []),
            *([f"GPU health unknown: {now.about.blind}"] if now.about.blind else []),
            *now.about.troubles,
            *(["read-only"] if self.read_only else []),
        ]
        bar.update(" · ".join(parts), layout=False)

    # --- keys ---------------------------------------------------------------------------------------------

    def on_tabbed_content_tab_activated(self) -> None:
        self.refresh_bindings()
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
        if self.query_one(TabbedContent).active in JOB_TABS:
            await self.action_details()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "filter":
            self._filter(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            self._close_filter()

    def _filter(self, words: str) -> None:
        for pane in self.query(JobsPane):
            pane.filter = words
        self.draw()

    def _close_filter(self) -> None:
        field = self.query_one("#filter", Input)
        self._filter(field.value)  # at once: the next key is for a job that has these words
        field.can_focus = False
        field.remove_class("open")
        self.action_tab(self.query_one(TabbedContent).active)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer on each tab what can be done there.

        No letter that is meant for the filter is a command, however quickly it is typed.
        """
        del parameters
        tabs = ON_TABS.get(action)
        if tabs is not None and self.is_mounted and self.query_one(TabbedContent).active not in tabs:
            return False
        return action == "back" or not self.query("#filter.open")

    def action_tab(self, name: str) -> None:
        self.query_one(TabbedContent).active = name
        for part in self.query(f"#{name} DataTable, #{name} HostPane"):
            self.call_later(self._focus_on, part)

    def _focus_on(self, part: Widget) -> None:
        if not self.query_one("#filter").has_class("open"):  # opened meanwhile, it has the keys
            self.set_focus(part)

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
        field = self.query_one("#filter", Input)
        if field.has_class("open") or field.value:
            field.value = ""
            self._close_filter()
        elif self._over_fleet:
            _ = self.dismiss()

    async def action_help(self) -> None:
        await self.app.push_screen(Help(self.HELP))

    def action_filter(self) -> None:
        if self.query_one(TabbedContent).active not in JOB_TABS:
            self.action_tab("jobs")
        field = self.query_one("#filter", Input)
        field.can_focus = True
        field.add_class("open")
        self.set_focus(field)  # at once: the next key is a letter, and no command

    async def action_drain(self) -> None:
        if not self.may():
            return
        waiting = len(self.picture.queue())
        if self.picture.about.drain is not None:
            await self.ask_first(Confirm(words.resume(waiting)), Resume())
        else:
            await self.app.push_screen(Ask("Drain the host: why?", "maintenance"), self._drain)

    async def _drain(self, why: str | None) -> None:
        if why:
            text = words.drain(len(self.picture.running()), len(self.picture.queue()), why)
            await self.ask_first(Confirm(text), Drain(reason=why))

    # --- jobs ---------------------------------------------------------------------------------------------

    def chosen(self) -> JobLine | None:
        """Return the job under the cursor."""
        tab = self.query_one(TabbedContent).active
        job = self.query_one(f"#{tab} JobsPane", JobsPane).selected if tab in JOB_TABS else None
        return None if job is None else self.known(job)[0]

    def known(self, job: int) -> tuple[JobLine | None, Sequence[EventView], float]:
        """Return what the picture has of a job."""
        line = self.picture.jobs.get(job) or self.picture.ended.get(job)
        return line, [event for event in self.picture.events if event.job == job], self.picture.now

    def waiting(self) -> Sequence[JobLine]:
        """Return the queue."""
        return self.picture.queue()


class TopApp(App[None]):
    """Shows one host live, and nothing else."""

    TITLE = "topod"
    CSS_PATH = "top.tcss"

    def __init__(
        self, connect: Callable[[], Client], *, read_only: bool = False, record: Recorder | None = None
    ) -> None:
        super().__init__()
        self.host = HostScreen(connect, read_only=read_only, record=record)

    def get_default_screen(self) -> Screen[None]:
        return self.host

    @property
    def picture(self) -> Picture:
        """What is known of the host."""
        return self.host.picture


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"
