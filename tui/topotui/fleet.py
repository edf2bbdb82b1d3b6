"""`topoctl top` of a fleet: hosts, jobs and preemptions, moment by moment; what can be done about them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget

from topoctl.render.jobs import ident
from topod.protocol.client import Client
from topod.protocol.replies import FleetChanges
from topod.protocol.requests import DrainHost, ResumeHost
from topod.protocol.views import FleetRow, JobLine
from topotui.app import HostScreen
from topotui.commands import FleetCommands
from topotui.dialogs import Ask, Confirm
from topotui.fleet_lines import SORTS, fleet_words, queue_words
from topotui.fleet_panes import ALL, FleetJobsPane, HostsPane, StopsPane
from topotui.fleet_picture import FleetPicture, News
from topotui.fleet_tiles import LEGEND
from topotui.line_table import LineTable
from topotui.recording import Recorder
from topotui.tabs import JOB_ACTIONS, JOB_KEYS, JOB_TABS, TabScreen, tab_keys
from topotui.terminal import ScreenApp
from topotui.whatif import WhatIf

HELP = f"""\
1-5      the tabs: hosts, jobs, ended, preemptions, events
/        only lines that have these words: rack=b, silent, job:12
s, S     sort the hosts by the next column; the other way round
Enter    a host: its own screen, Escape: back; a job: all about it
c d u    cordon a host: no new jobs; drain it: its jobs go elsewhere; undo
w        what if: what a job would get, and where
i, l     all about a job; its output
k r p    cancel a job; stop it and queue it again; change its priority
R        record what happens to a file, or stop that
Ctrl+P   all commands by name
q        leave, as Ctrl+C does; nothing that runs is touched

{LEGEND}"""


class FleetScreen(TabScreen):
    """Shows a fleet live."""

    FIRST = "fleet"
    HELP = HELP
    FILTER = "words that a line must have; Enter: back, Escape: all"
    FILTERED = ("fleet", *JOB_TABS)
    ON_TABS = {
        **dict.fromkeys(("sort", "turn", "cordon", "drain", "resume"), ("fleet",)),
        **JOB_ACTIONS,
    }
    COMMANDS = {FleetCommands}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "sort", "Sort"),
        Binding("S,shift+s", "turn", "Turn", show=False),
        *JOB_KEYS,
        Binding("c", "cordon", "Cordon"),
        Binding("d", "drain", "Drain"),
        Binding("u", "resume", "Resume"),
        Binding("w", "what_if", "What if"),
        Binding("R", "record", "Record", show=False),
        *tab_keys("fleet"),
        Binding("escape", "back", "All", show=False),
        Binding("q", "app.quit", "Quit"),
    ]
    picture: FleetPicture

    def __init__(
        self,
        connect: Callable[[str], Client],
        *,
        read_only: bool = False,
        record: Recorder | None = None,
    ) -> None:
        """`connect` asks the fleet, or the host of that name through it."""
        super().__init__(lambda: connect(""), FleetPicture(), read_only=read_only, record=record)
        self._of_host = connect

    def panes(self) -> Sequence[Widget]:
        at = self._now
        return HostsPane(at), FleetJobsPane(at), FleetJobsPane(at, ended=True), StopsPane(at)

    def begin(self) -> None:
        self.follow(FleetChanges, self.take)

    def _now(self) -> FleetPicture:
        return self.picture

    # --- news ---------------------------------------------------------------------------------------------

    def take(self, changes: FleetChanges) -> None:
        """Take in an answer of the coordinator and draw what is on the screen."""
        if not self.is_attached:  # it was closed while the answer was under way
            return
        self.away = ""
        seen = self.picture.cursor[2]
        news = self.picture.take(changes)
        if news:
            self.write(changes)
        self.show_events(seen)
        self.say()
        if self.is_current:
            self.draw(news)

    def draw(self, news: News = ALL) -> None:
        self.say()
        match self.tab:
            case "fleet":
                self.query_one(HostsPane).show(news)
            case "jobs" | "ended" as tab:
                self.query_one(f"#{tab} FleetJobsPane", FleetJobsPane).show(news)
            case "preemptions":
                self.query_one(StopsPane).show(news)
            case _:
                pass

    def told(self) -> str:
        picture = self.picture
        if picture.about is None:
            return ""
        hosts, groups = fleet_words(picture.rows)
        jobs = list(picture.jobs.values())
        rest = [*(["read-only"] if self.read_only else []), *picture.about.troubles]
        # The first that the screen has room for; of the last the end is cut off.
        ways = [
            *([(f"{hosts}: {groups}", queue_words(jobs))] if groups else []),
            (hosts, queue_words(jobs)),
            (hosts, queue_words(jobs, brief=True)),
        ]
        lines = [" · ".join([*self.banner(), *way, *rest]) for way in ways]
        return next((line for line in lines if len(line) <= self.size.width - 2), lines[-1])

    # --- keys ---------------------------------------------------------------------------------------------

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self.draw)

    def on_line_table_moved(self, event: LineTable.Moved) -> None:
        for pane in event.table.ancestors:
            if isinstance(pane, HostsPane | FleetJobsPane | StopsPane):
                pane.show_detail()

    async def on_line_table_chosen(self, event: LineTable.Chosen) -> None:
        if self.tab == "fleet":
            await self.open_host(event.key)
        elif self.tab in JOB_TABS:
            await self.action_details()

    async def open_host(self, host: str) -> None:
        """Show a host's own screen, until Escape."""
        there = HostScreen(partial(self._of_host, host), read_only=self.read_only, over_fleet=True)
        await self.app.push_screen(there)

    def filter_by(self, words: str) -> None:
        if self.tab == "fleet":
            lines = self.query_one(HostsPane).lines
            lines.filter = words
            lines.again()
        else:
            for pane in self.query(FleetJobsPane):
                pane.lines.filter = words
            self.draw()

    def filtered(self) -> str:
        if self.tab == "fleet":
            return self.query_one(HostsPane).lines.filter
        return self.query(FleetJobsPane).first().lines.filter if self.tab in JOB_TABS else ""

    def action_sort(self) -> None:
        lines = self.query_one(HostsPane).lines
        lines.sort = SORTS[(SORTS.index(lines.sort) + 1) % len(SORTS)]
        lines.again()

    def action_turn(self) -> None:
        lines = self.query_one(HostsPane).lines
        lines.backwards = not lines.backwards
        lines.again()

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

    def _host(self) -> FleetRow | None:
        return self.query_one(HostsPane).selected if self.tab == "fleet" else None

    def chosen(self) -> JobLine | None:
        tab = self.tab
        return self.query_one(f"#{tab} FleetJobsPane", FleetJobsPane).selected if tab in JOB_TABS else None


def _their_jobs(row: FleetRow) -> str:
    return (
        "no job runs there"
        if not row.jobs
        else "its job runs on"
        if row.jobs == 1
        else f"its {row.jobs} jobs run on"
    )


class FleetApp(ScreenApp):
    """Shows a fleet live, and its hosts."""

    CSS_PATH = ["top.tcss", "fleet.tcss"]

    def __init__(
        self,
        connect: Callable[[str], Client],
        *,
        read_only: bool = False,
        record: Recorder | None = None,
    ) -> None:
        """`connect` asks the fleet, or the host of that name through it."""
        super().__init__()
        self.fleet = FleetScreen(connect, read_only=read_only, record=record)

    def get_default_screen(self) -> Screen[None]:
        return self.fleet
