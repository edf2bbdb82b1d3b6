"""The What-if screen on a live topod and over a live fleet, driven by keys."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input, Static

from tests.integration.daemon_process import Topod
from tests.integration.fleet_process import Fleet
from topod.protocol.client import Client
from topod.protocol.requests import Cancel
from topotui.app import TopApp
from topotui.dialogs import Confirm, WhatToRun
from topotui.fleet import FleetApp
from topotui.whatif import WhatIf

SECONDS = 60.0


def watched(
    app: App[None], story: Callable[[Pilot[None]], Awaitable[None]], size: tuple[int, int] = (100, 40)
) -> None:
    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await story(pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], what: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not what():
            await pilot.pause(0.05)


def text_of(pilot: Pilot[None], selector: str) -> str:
    return "\n".join(str(one.render()) for one in pilot.app.screen.query(selector).results(Static))


@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=["80x24", "200x50"])
def test_a_plan_is_shown_on_the_picture_and_submitted_after_a_question(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    with Topod(tmp_path / "d", host="l40s-x8") as topod:
        small = topod.start().submit("sleep", "600", gpus=8, priority=100, name="small")
        topod.wait(small.id, "running")
        app = TopApp(lambda: Client(topod.socket))

        async def story(pilot: Pilot[None]) -> None:
            await until(pilot, lambda: small.id in app.picture.jobs and len(app.picture.gpus) == 8)
            await pilot.press("w")
            await until(pilot, lambda: f"stops job {small.id}" in text_of(pilot, "#verdict"))
            picture = text_of(pilot, "#planned")
            assert picture.count("★ takes" if size[0] == 200 else "═ GPU0 ★") >= 1
            assert picture.count(f"✗ stops {small.id} low") == 8
            await pilot.press("2")
            await until(pilot, lambda: "takes GPUs 0-1" in text_of(pilot, "#verdict"))
            if size[0] == 80:
                await pilot.press("v")
            assert "cost, in order" in text_of(pilot, "#reasons")
            await pilot.press("s")
            await until(pilot, lambda: isinstance(app.screen, WhatToRun))
            await pilot.press("enter")
            assert "nothing to run" in text_of(pilot, "#wrong")
            await pilot.press(*"sleep", "space", *"'600", "enter")
            assert "No closing quotation" in text_of(pilot, "#wrong")
            await pilot.press("'", "enter")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            assert "It runs: sleep '600'" in text_of(pilot, "Label")
            assert f"stops job {small.id}" in text_of(pilot, "Label")
            if size[0] == 200:  # the world changes while the question stands
                await asyncio.to_thread(topod.ask, Cancel(jobs=[small.id]))
                await until(pilot, lambda: "stops nobody" in text_of(pilot, "Label"))
                await pilot.press("n", "s")
                await until(pilot, lambda: isinstance(app.screen, WhatToRun))
                assert app.screen.query_one("#command", Input).value == "sleep '600'"
                await pilot.press("enter")
                await until(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("y")
            await until(pilot, lambda: any(job.gpu_indices == [0, 1] for job in app.picture.jobs.values()))
            await until(pilot, lambda: app.screen is app.host)

        watched(app, story, size)


def test_what_changes_meanwhile_changes_the_plan_and_read_only_submits_nothing(tmp_path: Path) -> None:
    with Topod(tmp_path / "d", host="one-gpu") as topod:
        topod.start()
        app = TopApp(lambda: Client(topod.socket), read_only=True)

        async def story(pilot: Pilot[None]) -> None:
            await until(pilot, lambda: bool(app.picture.gpus))
            await pilot.press("w")
            await until(pilot, lambda: "would start now" in text_of(pilot, "#verdict"))
            job = await asyncio.to_thread(topod.submit, "sleep", "600", gpus=1, priority=500)
            await until(pilot, lambda: "would wait" in text_of(pilot, "#verdict"))
            assert f"job {job.id}" in text_of(pilot, "#verdict")
            await asyncio.to_thread(topod.kill)
            await until(pilot, lambda: "no answer" in text_of(pilot, "#asked"))
            assert f"job {job.id}" in text_of(pilot, "#verdict")
            await asyncio.to_thread(topod.start)
            await until(pilot, lambda: "no answer" not in text_of(pilot, "#asked"))
            await pilot.press("s")
            assert isinstance(app.screen, WhatIf)
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.host)

        watched(app, story, (80, 24))


def test_over_a_fleet_the_picture_is_that_of_the_host_that_the_plan_names(tmp_path: Path) -> None:
    with Fleet(tmp_path, hosts=("a", "b")) as fleet:
        app = FleetApp(lambda host: Client(fleet.remote(), host=host))

        async def story(pilot: Pilot[None]) -> None:
            await until(pilot, lambda: len(app.fleet.picture.rows) == 2)
            await pilot.press("w")
            await until(pilot, lambda: " on a" in text_of(pilot, "#verdict"))
            assert text_of(pilot, "#planned").count("★") >= 1
            await pilot.press("8", "left", "2")
            await until(pilot, lambda: "host 1 of 2" in text_of(pilot, "#verdict"))
            await pilot.press("o")
            await until(pilot, lambda: "on b, host 2 of 2" in text_of(pilot, "#verdict"))

        watched(app, story)
