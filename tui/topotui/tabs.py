"""What the screens of a host and of a fleet share: tabs, a line on top, a filter, whom they follow."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import ClassVar, Final, TypeVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Footer, Input, Static, TabbedContent, TabPane

from topoctl.render.style import printable
from topoctl.session import expect
from topod.errors import TopodError
from topod.protocol.client import Client
from topod.protocol.replies import Changes, FleetChanges, JobLines
from topod.protocol.requests import ListJobs
from topod.protocol.views import EventView, JobLine
from topotui.dialogs import Help
from topotui.feed import Feed
from topotui.job_keys import JobKeys
from topotui.jobscreen import JobScreen
from topotui.live import OLD
from topotui.panes import EventsPane
from topotui.record_keys import RecordKeys
from topotui.recording import AnyPicture, Recorder
from topotui.terminal import small
from topotui.whatif import WhatIf

CHANGING_HELP: Final = (
    *("k", "r", "p", "d", "k r p", "c d u"),
    "Whatever changes something says first what it does, and asks.",
)
"""How the lines of a help begin that a screen which only looks leaves out."""
C = TypeVar("C", Changes, FleetChanges)
HISTORY: Final = 200
"""So many jobs that ended before are shown."""
JOB_TABS: Final = ("jobs", "ended")
JOB_ACTIONS: Final = {
    **dict.fromkeys(("details", "log"), JOB_TABS),
    **dict.fromkeys(("cancel", "requeue", "priority"), ("jobs",)),
}
"""The tabs on which they mean something."""
JOB_KEYS: Final = (
    Binding("i", "details", "Details", show=False),
    Binding("l", "log", "Log"),
    Binding("k", "cancel", "Cancel"),
    Binding("r", "requeue", "Requeue"),
    Binding("p", "priority", "Prio"),
)
"""What can be done to the job under the cursor."""


def tab_keys(first: str) -> tuple[Binding, ...]:
    """Return the keys of the tabs; only the first is another one on a host and in a fleet."""
    names = (first, "jobs", "ended", "preemptions", "events")
    return tuple(
        Binding(str(number), f"tab('{name}')", name.capitalize(), show=False)
        for number, name in enumerate(names, 1)
    )


class TabScreen(RecordKeys, JobKeys):
    """Shows somebody live on five tabs; who derives from it knows what is on them."""

    FIRST: ClassVar[str]
    """The name of the first tab."""
    HELP: ClassVar[str]
    FILTER: ClassVar[str]
    """What stands in the empty filter."""
    FILTERED: ClassVar[Collection[str]] = JOB_TABS
    """The tabs whose lines can be filtered; from the others one gets to the first of these."""
    ON_TABS: ClassVar[Mapping[str, Collection[str]]]
    """The tabs on which an action means something, of those that do not everywhere."""
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(
        self,
        connect: Callable[[], Client],
        picture: AnyPicture,
        *,
        read_only: bool = False,
        record: Recorder | None = None,
    ) -> None:
        super().__init__(connect, read_only=read_only)
        self.picture = picture
        self.recorder = record
        self._stop_following: Callable[[], None] = lambda: None

    # --- for who derives from it ----------------------------------------------------------------------------

    def panes(self) -> Sequence[Widget]:
        """Return what is on the first four tabs."""
        raise NotImplementedError

    def begin(self) -> None:
        """Begin to ask what happens."""
        raise NotImplementedError

    def draw(self) -> None:
        """Draw the tab that is on the screen; the others when they come up."""
        raise NotImplementedError

    def told(self) -> str:
        """Return the line on top where all is well; empty: nothing is known yet."""
        raise NotImplementedError

    def filter_by(self, words: str) -> None:
        """Show only lines that have these words."""
        raise NotImplementedError

    def filtered(self) -> str:
        """Return the words that lines must have now."""
        raise NotImplementedError

    def leave(self) -> None:
        """Do what Escape means where no filter is left to clear."""

    def banner(self) -> list[str]:
        """Return what stands before anything else in the line on top."""
        recorded = [self.not_recorded] if self.not_recorded else []
        rec = [] if self.recorder is None else ["● REC"]
        return [*small(*self.app.size), *recorded, *rec, *self._narrowed()]

    def counted(self) -> str:
        """Return how many lines a filter leaves, and of how many; empty: nobody counts."""
        return ""

    def _narrowed(self) -> list[str]:
        """Say that a filter hides lines, and how to have them back."""
        words = self.filtered() if self.tab in self.FILTERED else ""
        return [" ".join(filter(None, (f"/{words}:", self.counted(), "(Escape: all)")))] if words else []

    # --- from beginning to end ------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield Static("connecting ...", id="status", classes="bar", markup=False)
        names = (self.FIRST, "jobs", "ended", "preemptions", "events")
        with TabbedContent(initial=self.FIRST):
            for number, (name, pane) in enumerate(zip(names, (*self.panes(), EventsPane()), strict=True), 1):
                with TabPane(f"{number} {name.capitalize()}", id=name):
                    yield pane
        yield Input(placeholder=self.FILTER, id="filter")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#filter", Input).can_focus = False
        self.action_tab(self.FIRST)
        self.begin()

    def follow(self, answer: type[C], take: Callable[[C], None]) -> None:
        """Ask in a thread what changes; `take` gets every answer in the thread of the screen."""
        feed = Feed(
            answer,
            self._connect,
            lambda: self.picture.cursor,
            on_changes=partial(self.app.call_from_thread, take),
            on_away=partial(self.app.call_from_thread, self.lost),
        )
        feed.start()
        self._stop_following = feed.stop
        self._load_history()

    def on_unmount(self) -> None:
        self._stop_following()
        if self.recorder is not None:
            self.recorder.close()

    @work(thread=True)
    def _load_history(self) -> None:
        """Ask for the jobs that ended before. What comes meanwhile is newer and stays."""
        try:
            with self._connect() as client:
                ended = expect(client.ask(ListJobs(ended=True, brief=True, limit=HISTORY), 20.0), JobLines)
        except TopodError:
            return  # the line on top says that who is followed is away
        self.app.call_from_thread(self._remember, ended.jobs)

    def _remember(self, jobs: list[JobLine]) -> None:
        self.picture.remember(jobs)
        if self.is_attached:
            self.draw()

    def on_resize(self) -> None:
        self.call_after_refresh(self.say)  # it says what there is room for

    # --- news -----------------------------------------------------------------------------------------------

    def show_events(self, seen: int) -> None:
        """Show what happened after the event `seen`, on the screen of a job too."""
        self.query_one(EventsPane).add([event for event in self.picture.events if event.seq > seen])
        view = self.app.screen
        if isinstance(view, JobScreen) and view.show(*self.known(view.job)):
            self.load(view)

    def lost(self, why: str) -> None:
        """Say that who is followed does not answer; what is on the screen stays."""
        self.away = why
        if self.is_attached:
            self.say()

    def say(self) -> None:
        """Say in the line on top how things are."""
        bar = self.query_one("#status", Static)
        bar.set_class(bool(self.away), "away")
        if told := f"{OLD} · {self.away}" if self.away else self.told():
            bar.update(printable(told), layout=bool(self.away))  # else it is one line, whatever it says
        for view in self.app.screen_stack:
            if isinstance(view, JobScreen | WhatIf):
                view.tell(self.away)

    # --- tabs -----------------------------------------------------------------------------------------------

    @property
    def tab(self) -> str:
        """The tab that is on the screen."""
        return self.query_one(TabbedContent).active

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer on each tab what can be done there.

        No letter that is meant for the filter is a command, however quickly it is typed.
        """
        del parameters
        if self.is_mounted and self.why_not(action):
            return False
        return action == "back" or not self.query("#filter.open")

    def why_not(self, action: str) -> str:
        """Return why an action is not offered now."""
        if action == "record" and self.recorder is None and (why := self.why_no_recording()):
            return why
        return super().why_not(action) or self.on_other_tabs(action, self.ON_TABS)

    def on_tabbed_content_tab_activated(self) -> None:
        self.refresh_bindings()
        self.draw()

    def action_tab(self, name: str) -> None:
        self.query_one(TabbedContent).active = name
        for part in self.query(f"#{name} HostPane, #{name} LineTable, #{name} RichLog"):
            self.call_later(self._focus_on, part)

    def _focus_on(self, part: Widget) -> None:
        if not self.query_one("#filter").has_class("open"):  # opened meanwhile, it has the keys
            self.set_focus(part)

    async def action_help(self) -> None:
        left_out = {*(CHANGING_HELP if self.read_only else ()), *(["R"] if self.why_no_recording() else ())}
        lines = [line for line in self.HELP.split("\n") if line.split("  ")[0] not in left_out]
        await self.app.push_screen(Help("\n".join(lines).strip()))

    # --- the filter -----------------------------------------------------------------------------------------

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.has_class("open"):  # else it was closed meanwhile, and its words are in force
            self.filter_by(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            self._close_filter()

    def action_filter(self) -> None:
        if self.tab not in self.FILTERED:
            self.action_tab(next(iter(self.FILTERED)))
        field = self.query_one("#filter", Input)
        field.value = self.filtered()
        field.can_focus = True
        field.add_class("open")
        self.set_focus(field)  # at once: the next key is a letter, and no command

    def _close_filter(self) -> None:
        field = self.query_one("#filter", Input)
        self.filter_by(field.value)  # at once: the next key is for a line that has these words
        field.can_focus = False
        field.remove_class("open")
        self.action_tab(self.tab)

    async def action_back(self) -> None:
        field = self.query_one("#filter", Input)
        if field.has_class("open") or self.filtered():
            field.value = ""
            self._close_filter()
        else:
            self.leave()

    # --- jobs -----------------------------------------------------------------------------------------------

    def known(self, job: int) -> tuple[JobLine | None, Sequence[EventView], float]:
        """Return what the picture has of a job."""
        line = self.picture.jobs.get(job) or self.picture.ended.get(job)
        return line, [event for event in self.picture.events if event.job == job], self.picture.now

    def waiting(self) -> Sequence[JobLine]:
        """Return the queue."""
        return self.picture.queue()
