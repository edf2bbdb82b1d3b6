"""`topoctl top`: a host as it is, moment by moment, and what can be done about it."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from textual import work
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget

from topoctl.session import expect
from topod.errors import TopodError
from topod.protocol.client import Client
from topod.protocol.replies import Changes, Events
from topod.protocol.requests import Drain, ReadEvents, Resume
from topod.protocol.views import EventView, JobLine
from topotui import words
from topotui.commands import HostCommands
from topotui.dialogs import Ask, Confirm
from topotui.host_pane import HostPane
from topotui.jobs import JobsPane
from topotui.line_table import LineTable
from topotui.machine import free_groups
from topotui.picture import Picture
from topotui.preemptions import PreemptionsPane
from topotui.recording import Recorder
from topotui.tabs import JOB_ACTIONS, JOB_KEYS, JOB_TABS, TabScreen, tab_keys
from topotui.terminal import ScreenApp
from topotui.timeline import TOLD
from topotui.whatif import WhatIf

EVENTS_AT_ONCE: Final = 1000
PAST_EVENTS: Final = 20_000
"""So many events before those that come first are looked through for preemptions."""
WIDE: Final = 150
"""From so many columns on details stand beside a table, not below it."""
VIEWS: Final = (
    Binding("v", "view", "View"),
    Binding("m", "view('machine')", "Machine", show=False),
    Binding("x", "view('links')", "Links", show=False),
    Binding("c", "view('cores')", "Cores", show=False),
)
HELP = """\
1-5      the tabs: host, jobs, ended, preemptions, events
v        the machine, its links, its cores; m, x, c: one of them
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
Home End the first line, and the last; click on a GPU: its job
q        leave, as Ctrl+C does; nothing that runs is touched

Whatever changes something says first what it does, and asks."""


class HostScreen(TabScreen):
    """Shows one host live."""

    FIRST = "host"
    HELP = HELP
    FILTER = "words that a job must have; Enter: back, Escape: all"
    ON_TABS = {**JOB_ACTIONS, **dict.fromkeys(("view", "drain"), ("host",))}
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
    COMMANDS = {HostCommands}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("slash", "filter", "Filter", key_display="/"),
        *JOB_KEYS,
        Binding("d", "drain", "Drain"),
        *VIEWS,
        Binding("w", "what_if", "What if"),
        Binding("R", "record", "Record", show=False),
        *tab_keys("host"),
        Binding("escape", "back", "Fleet", show=False),
        Binding("q", "app.quit", "Quit"),
    ]
    picture: Picture

    def __init__(
        self,
        connect: Callable[[], Client],
        *,
        read_only: bool = False,
        over_fleet: bool = False,
        record: Recorder | None = None,
    ) -> None:
        """`over_fleet`: it was opened from the screen of a fleet, and Escape goes back there."""
        super().__init__(connect, Picture(), read_only=read_only, record=record)
        self._over_fleet = over_fleet
        self._past_wanted = False
        if over_fleet:
            self.elsewhere = "the fleet has these jobs, under its own numbers: Escape, then 2"

    def panes(self) -> Sequence[Widget]:
        return HostPane(), JobsPane(), JobsPane(ended=True), PreemptionsPane()

    def begin(self) -> None:
        self._past_wanted = True
        self.follow(Changes, self.take)

    # --- news ---------------------------------------------------------------------------------------------

    def take(self, changes: Changes) -> None:
        """Take in an answer of topod and draw what is on the screen."""
        if not self.is_attached:  # it was closed while the answer was under way
            return
        came_back, self.away = bool(self.away), ""
        seen = self.picture.cursor[2]
        if not self.picture.take(changes) and not came_back:
            return
        if self._past_wanted and self.picture.events:
            self._past_wanted = False
            self._load_past(self.picture.events[0].seq)
        self.write(changes)
        self.show_events(seen)
        self.draw()

    @work(thread=True)
    def _load_past(self, before: int) -> None:
        """Ask for what was before the first event told: a large array of jobs has more events than that."""
        older: list[EventView] = []
        try:
            with self._connect() as client:
                for end in range(before, max(1, before - PAST_EVENTS), -EVENTS_AT_ONCE):
                    since = max(0, end - EVENTS_AT_ONCE - 1)
                    reply = client.ask(ReadEvents(since=since, limit=EVENTS_AT_ONCE), 20.0)
                    found = [one for one in expect(reply, Events).events if one.seq < end]
                    if not found:  # what was before is kept no longer
                        break
                    older[:0] = [one for one in found if one.name in TOLD]
        except TopodError:
            pass  # the line on top says where topod is away; what came is shown
        self.app.call_from_thread(self._remember_past, older)

    def _remember_past(self, older: list[EventView]) -> None:
        self.picture.remember_events(older)
        if self.is_attached:
            self.draw()

    def draw(self) -> None:
        match self.tab:
            case "host":
                self.query_one(HostPane).show(self.picture)
            case "jobs" | "ended" as tab:
                self.query_one(f"#{tab} JobsPane", JobsPane).show(self.picture)
            case "preemptions":
                self.query_one(PreemptionsPane).show(self.picture)
            case _:
                pass
        self.say()  # last: it says how many lines are shown

    def told(self) -> str:
        host, now = self.picture.host, self.picture
        if host is None:
            return ""
        parts = [
            *self.banner(),
            f"{host.name}{' (emulated)' if host.emulated else ''}",
            free_groups(now),
            f"{words.jobs(len(now.running()))} on, {len(now.queue())} waiting",
            *([f"drained: {now.about.drain}"] if now.about.drain is not None else []),
            *([f"GPU health unknown: {now.about.blind}"] if now.about.blind else []),
            *now.about.troubles,
            *(["read-only"] if self.read_only else []),
        ]
        return " · ".join(parts)

    # --- keys ---------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def on_line_table_moved(self, event: LineTable.Moved) -> None:
        for pane in event.table.ancestors:
            if isinstance(pane, JobsPane):
                pane.show_detail(self.picture)
            elif isinstance(pane, PreemptionsPane):
                pane.show_why()

    async def on_line_table_chosen(self) -> None:
        if self.tab in JOB_TABS:
            await self.action_details()

    async def on_host_pane_clicked(self, event: HostPane.Clicked) -> None:
        view = self.picture.gpus.get(event.gpu)
        if view is not None and view.job is not None:
            await self.open_job(view.job)
        elif view is not None:
            self.notify(words.gpu(view))

    def filter_by(self, words: str) -> None:
        for pane in self.query(JobsPane):
            pane.filter = words
        self.draw()

    def filtered(self) -> str:
        return self.query(JobsPane).first().filter

    def counted(self) -> str:
        pane = self.query_one(f"#{self.tab} JobsPane", JobsPane)
        return "{} of {}".format(*pane.counts)

    def action_view(self, name: str = "") -> None:
        self.action_tab("host")
        self.query_one(HostPane).turn(name)
        self.draw()

    async def action_what_if(self) -> None:
        if self._over_fleet:
            self.notify("a plan is asked of the whole fleet: Escape, then w", severity="warning")
            return
        picture = self.picture
        view = WhatIf(
            lambda _: self._connect(),
            picture=picture,
            seen=lambda: ({**picture.jobs}, {**picture.gpus}, picture.about),
            read_only=self.read_only,
        )
        await self.app.push_screen(view)
        view.tell(self.away)

    def leave(self) -> None:
        if self._over_fleet:
            _ = self.dismiss()

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

    def chosen(self) -> JobLine | None:
        tab = self.tab
        job = self.query_one(f"#{tab} JobsPane", JobsPane).selected if tab in JOB_TABS else None
        return None if job is None else self.known(job)[0]


class TopApp(ScreenApp):
    """Shows one host live, and nothing else."""

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
