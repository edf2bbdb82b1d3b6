"""What the screens look like at several sizes, from a recording of a real host; no clock has a part in it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.screen import Screen

import topotui
from tests.snapshots import colors_of, same, svg_of, text_of
from topod.protocol.client import Client
from topotui import words
from topotui.app import HostScreen
from topotui.dialogs import Confirm
from topotui.fleet import FleetScreen
from topotui.jobscreen import JobScreen
from topotui.picture import Picture
from topotui.player import Player
from topotui.recording import load
from topotui.replay import ReplayApp
from topotui.tabs import TabScreen

HERE = Path(__file__).parent
SIZES = [(80, 24), (120, 40), (200, 50)]
MIDDLE = 10
"""After so many answers jobs run, wait, and one was stopped for another."""


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def on_screen(
    story: Callable[[ReplayApp, Pilot[None]], Awaitable[None]], size: tuple[int, int] = (80, 24)
) -> None:
    async def run() -> None:
        app = ReplayApp(load(HERE / "story.jsonl"))
        app.animation_level = "none"
        app.replay.player.playing = False
        app.replay.player.go(MIDDLE)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await story(app, pilot)

    asyncio.run(run())


class StillHost(HostScreen):
    """Shows a moment of a host, and follows nobody."""

    def begin(self) -> None:
        self.show_events(0)


class StillFleet(FleetScreen):
    """The same of a fleet."""

    def begin(self) -> None:
        self.show_events(0)


def still(name: str, at: int) -> TabScreen:
    """Return the screen of somebody as it was after so many answers of a recording; 0: before the first."""
    recording = load(HERE / name)
    player = Player(recording)
    player.go(at)
    picture = player.picture if at else recording.nothing()
    screen = StillFleet(lambda _: Client()) if recording.head.fleet else StillHost(Client)
    screen.picture = picture
    return screen


FLEET = (("fleet", "1"), ("fleet-jobs", "2 down"), ("fleet-job", "enter"), ("fleet-ended", "escape 3"),
         ("fleet-preemptions", "4"), ("fleet-events", "5"), ("fleet-help", "?"))  # fmt: skip
HOST = (("host", "1"), ("links", "x"), ("cores", "c"), ("jobs", "2 down down"), ("job", "enter"),
        ("events", "escape 5"), ("help", "?"))  # fmt: skip
LATER = (("ended", "3"), ("preemptions", "4"))
NONE = (
    ("none", "1"),
    ("none-jobs", "2"),
    ("none-ended", "3"),
    ("none-preemptions", "4"),
    ("none-events", "5"),
)
Pictures = tuple[tuple[str, str], ...]
"""The names of pictures, and which keys lead from one to the next."""


class Still(App[None]):
    """A screen for a picture of it."""

    TITLE = "topod"
    CSS_PATH: ClassVar = [Path(topotui.__file__).parent / name for name in ("top.tcss", "fleet.tcss")]

    def __init__(self, screen: TabScreen) -> None:
        super().__init__()
        self._of = screen

    def get_default_screen(self) -> Screen[None]:
        return self._of


def look_alike(screen: TabScreen, pictures: Pictures, sizes: Sequence[tuple[int, int]] = SIZES) -> None:
    """Compare each picture at each size; a screen starts once, and its terminal grows and shrinks."""

    async def run() -> None:
        app = Still(screen)
        app.animation_level = "none"
        async with app.run_test(size=sizes[0]) as pilot:
            for name, keys in pictures:
                await pilot.press(*keys.split())
                for size in sizes:
                    await pilot.resize_terminal(*size)
                    await pilot.pause()
                    same(svg_of(app), HERE / "snapshots" / f"{name}-{size[0]}x{size[1]}.txt")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("story", "at", "pictures"),
    [("story.jsonl", MIDDLE, HOST), ("story.jsonl", 17, LATER), ("fleet.jsonl", 10, FLEET)],
    ids=["host", "host, later", "fleet"],
)
def test_every_tab_looks_as_it_did(story: str, at: int, pictures: Pictures) -> None:
    look_alike(still(story, at), pictures)


@pytest.mark.parametrize("story", ["story.jsonl", "fleet.jsonl"])
def test_an_empty_tab_says_why(story: str) -> None:
    head = story.partition(".")[0]
    look_alike(still(story, 1), tuple((f"{head}-{name}", keys) for name, keys in NONE), SIZES[:1])


def test_without_colours_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures: list[str] = []

    async def story(app: ReplayApp, pilot: Pilot[None]) -> None:
        await pilot.press("4")
        await pilot.pause()
        pictures.append(svg_of(app))

    on_screen(story)
    monkeypatch.setenv("NO_COLOR", "1")
    on_screen(story)
    colored, plain = pictures
    assert text_of(colored) == text_of(plain)
    assert any(not is_grey(color) for color in colors_of(colored))
    assert all(is_grey(color) for color in colors_of(plain))


def is_grey(color: str) -> bool:
    parts = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return max(parts) - min(parts) < 6  # the picture's own foreground is a touch of green


def test_a_recording_is_played_by_keys_and_changes_nothing() -> None:
    async def story(app: ReplayApp, pilot: Pilot[None]) -> None:
        player = app.replay.player
        await pilot.press(".")
        assert (player.at, player.playing) == (MIDDLE + 1, False)
        await pilot.press(",", ",", "+")
        assert (player.at, player.speed) == (MIDDLE - 1, 2.0)
        assert "REPLAY ▮▮ 2x 9/17" in text_of(svg_of(app))
        await pilot.press("]")
        at = player.at
        assert at >= MIDDLE
        assert isinstance(app.picture, Picture)
        assert app.picture.timeline.all
        await pilot.press("[", "2", "k", "r", "p", "d", "R")
        assert app.screen is app.replay
        assert player.at <= at
        await pilot.press("space")
        assert player.playing

    on_screen(story)


def test_a_question_says_what_will_happen() -> None:
    async def story(app: ReplayApp, pilot: Pilot[None]) -> None:
        text = words.resume(len(app.picture.queue()))
        answers: list[bool | None] = []
        await app.push_screen(Confirm(text), answers.append)
        await pilot.pause()
        shown = text_of(svg_of(app))
        assert "Let the host take jobs again?" in shown
        assert "Yes (y)" in shown
        await pilot.click("#yes")
        await pilot.pause()
        assert answers == [True]

    on_screen(story)


def test_what_is_hidden_or_stale_is_said_and_a_tile_tells_whose_it_is() -> None:
    screen = still("story.jsonl", MIDDLE)

    def seen() -> str:
        return text_of(svg_of(app))

    async def run() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("2", "slash", *"low pend", "enter")
            await pilot.pause()
            assert "/low pend: 1 of 6 (Escape: all)" in seen()
            assert "train-b" in seen()
            assert "train-a" not in seen()
            await pilot.press("escape")
            await pilot.pause()
            assert "train-a" in seen()
            assert "Escape" not in seen()

            # While another tab is seen the terminal grows.
            await pilot.resize_terminal(120, 40)
            await pilot.press("1")
            await pilot.pause()
            same(svg_of(app), HERE / "snapshots" / "host-120x40.txt")
            picture = seen().splitlines()
            line = next(number for number, text in enumerate(picture) if "GPU5" in text)
            await pilot.click(offset=(picture[line].index("GPU5"), line + 1))
            assert isinstance(app.screen, JobScreen)
            assert app.screen.job == 5

            screen.lost(f"no topod answers on /run/{'long/' * 20}socket")
            await pilot.pause()
            assert "no answer" in seen()
            await pilot.press("escape")
            await pilot.pause()
            assert "long/socket" in seen()

    app = Still(screen)
    app.animation_level = "none"
    asyncio.run(run())
