"""What the screens look like at several sizes, from a recording of a real host; no clock has a part in it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from tests.snapshots import colors_of, same, svg_of, text_of
from topotui import words
from topotui.dialogs import Confirm
from topotui.jobscreen import JobScreen
from topotui.recording import load
from topotui.replay import ReplayApp

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


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_screens_look_as_they_did(size: tuple[int, int]) -> None:
    def file(name: str) -> Path:
        return HERE / "snapshots" / f"{name}-{size[0]}x{size[1]}.txt"

    async def story(app: ReplayApp, pilot: Pilot[None]) -> None:
        await pilot.press("2", "down", "down")
        await pilot.pause()
        same(svg_of(app), file("jobs"))
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, JobScreen)
        same(svg_of(app), file("job"))
        await pilot.press("escape")
        app.replay.player.go(app.replay.player.count)
        app.replay.show_from_start()
        await pilot.press("3")
        await pilot.pause()
        same(svg_of(app), file("ended"))
        await pilot.press("4")
        await pilot.pause()
        same(svg_of(app), file("preemptions"))

    on_screen(story, size)


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
        assert app.picture.timeline.all
        await pilot.press("[", "2", "k", "r", "p", "d", "R")
        assert not isinstance(app.screen, Confirm)
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


def test_jobs_are_filtered_by_words_and_escape_shows_all_again() -> None:
    async def story(app: ReplayApp, pilot: Pilot[None]) -> None:
        await pilot.press("2", "slash", *"low pend", "enter")
        await pilot.pause()
        shown = text_of(svg_of(app))
        assert "train-b" in shown
        assert "train-a" not in shown
        await pilot.press("escape")
        await pilot.pause()
        assert "train-a" in text_of(svg_of(app))

    on_screen(story)
