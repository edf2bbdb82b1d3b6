"""A recording on the screen: as it was, moment by moment, and nothing that could be changed."""

import time
from collections.abc import Callable
from typing import ClassVar, Final

from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import TabbedContent

from topod.protocol.client import Client
from topotui.app import VIEWS, HostScreen
from topotui.fleet import FleetScreen
from topotui.fleet_tiles import LEGEND
from topotui.jobscreen import JobScreen
from topotui.panes import EventsPane
from topotui.player import Player
from topotui.recording import AnyPicture, Recording
from topotui.tabs import TabScreen, tab_keys
from topotui.terminal import ScreenApp

FRAME_SECONDS: Final = 0.1
WIDE: Final = 110
"""From so many columns on the line on top has the day."""
KEYS: Final = """\
space    play, and stop
. ,      one answer of topod forward, and back
] [      to the next preemption, and the one before
+ -      quicker, slower
1-5      the tabs: %s, jobs, ended, preemptions, events
/        only lines that have these words; Escape: all again
Enter, i all about the job under the cursor
q        leave

Nothing can be changed: this is how it was."""
PLAY: Final = (
    Binding("question_mark", "help", "Help", key_display="?"),
    Binding("space", "play", "Play/stop", priority=True),
    Binding("full_stop", "step(1)", "Step", key_display="."),
    Binding("comma", "step(-1)", "Back", key_display=","),
    Binding("right_square_bracket", "preemption(True)", "Next preemption", key_display="]"),
    Binding("left_square_bracket", "preemption(False)", "Previous", key_display="[", show=False),
    Binding("plus,equals_sign", "speed(1)", "Quicker", key_display="+"),
    Binding("minus", "speed(-1)", "Slower", key_display="-", show=False),
    Binding("slash", "filter", "Filter", key_display="/", show=False),
    Binding("i", "details", "Details", show=False),
    Binding("escape", "back", "Back", show=False),
    Binding("q", "app.quit", "Quit"),
)


class Replaying(TabScreen):
    """Shows a recording as if it happened now, on a screen that else follows somebody."""

    player: Player
    _recording: Recording
    _clock: Callable[[], float]

    def load_recording(self, recording: Recording, clock: Callable[[], float]) -> None:
        """Begin with the first answer. `clock`: seconds from any moment on."""
        self.player = Player(recording)
        self.picture = self.player.picture
        self._recording = recording
        self._clock = clock
        self._seen = clock()
        self._told = 0

    def begin(self) -> None:
        """Play."""
        self.picture = self.player.picture
        self.show_from_start()
        self.set_interval(FRAME_SECONDS, self._frame)
        if self._recording.cut:
            self.notify("the last line of the recording was cut short, and is left out", severity="warning")

    def _frame(self) -> None:
        now = self._clock()
        passed, self._seen = now - self._seen, now
        playing = self.player.playing
        if self.player.pass_time(passed):
            self._show()
        elif playing != self.player.playing:
            self.say()

    def _show(self) -> None:
        before = self.picture
        self.picture = self.player.picture
        if before is not self.picture:
            self.show_from_start()
            return
        self.show_events(self._told)
        self.draw()
        self._told = self.picture.cursor[2]

    def show_from_start(self) -> None:
        """Draw a picture that has nothing to do with the one before."""
        pane = self.query_one(EventsPane)
        pane.forget()
        pane.add(list(self.picture.events))
        self._told = self.picture.cursor[2]
        self.draw()
        if isinstance(self.app.screen, JobScreen):
            self.app.screen.show(*self.known(self.app.screen.job))

    def banner(self) -> list[str]:
        player = self.player
        sign = "▶" if player.playing else "■ end" if player.ended else "▮▮"
        day = "%Y-%m-%d " if self.size.width >= WIDE else ""
        at = time.strftime(f"{day}%H:%M:%S", time.localtime(self.picture.now))
        return [*super().banner(), f"REPLAY {sign} {player.speed:g}x {player.at}/{player.count} {at}"]

    def refusal(self) -> str:
        """Say that nothing may be changed."""
        return "this is a recording: nothing can be changed"

    async def show_output(self, job: int, called: str) -> None:
        """Say that there is no output."""
        del job, called
        self.notify("a recording has no output of jobs", severity="warning")

    def load(self, view: JobScreen) -> None:
        """Leave a job's screen as it is: nobody can be asked about it."""

    # --- keys -----------------------------------------------------------------------------------------------

    def action_play(self) -> None:
        if self.player.ended:
            self.player.go(1)
        self.player.playing = not self.player.playing or self.player.at == 1
        self._show()
        self.say()

    def action_step(self, by: int) -> None:
        self.player.playing = False
        self.player.go(self.player.at + by)
        self._show()
        self.say()

    def action_speed(self, by: int) -> None:
        self.player.change_speed(by)
        self.say()

    def action_preemption(self, forward: bool) -> None:
        self.player.playing = False
        if not self.player.go_to_preemption(forward=forward):
            self.notify("no preemption after this" if forward else "no preemption before this")
        self._show()
        self.query_one(TabbedContent).active = "preemptions"
        self.say()


class ReplayScreen(Replaying, HostScreen, inherit_bindings=False):
    """Shows the recording of a host."""

    HELP = KEYS % "host"
    COMMANDS = set()
    BINDINGS: ClassVar[list[BindingType]] = [
        *PLAY,
        *tab_keys("host"),
        Binding("v", "view", "View", show=False),
        *VIEWS[1:],
    ]

    def __init__(self, recording: Recording, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(Client, read_only=True)
        self.load_recording(recording, clock)


class FleetReplayScreen(Replaying, FleetScreen, inherit_bindings=False):
    """Shows the recording of a fleet."""

    HELP = f"{KEYS % 'fleet'}\n\n{LEGEND}"
    BINDINGS: ClassVar[list[BindingType]] = [
        *PLAY,
        *tab_keys("fleet"),
        Binding("s", "sort", "Sort", show=False),
        Binding("S,shift+s", "turn", "Turn", show=False),
    ]

    def __init__(self, recording: Recording, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(lambda _: Client(), read_only=True)
        self.load_recording(recording, clock)

    async def open_host(self, host: str) -> None:
        """Say that there is no more of a host."""
        self.notify(f"a recording of a fleet has no screen of {host}", severity="warning")


class ReplayApp(ScreenApp):
    """Shows one recording."""

    CSS_PATH = ["top.tcss", "fleet.tcss"]

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        screen = FleetReplayScreen if recording.head.fleet else ReplayScreen
        self.replay: Replaying = screen(recording)

    def get_default_screen(self) -> Screen[None]:
        return self.replay

    @property
    def picture(self) -> AnyPicture:
        """What was known at this moment of the recording."""
        return self.replay.picture
