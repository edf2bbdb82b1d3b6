"""`topoctl top` of a live fleet, driven by keys as a person would."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Label, Static

from tests.integration.fleet_process import Fleet
from topod.errors import DataError
from topod.protocol.client import Client
from topotui.app import HostScreen
from topotui.dialogs import Ask, Confirm
from topotui.fleet import FleetApp
from topotui.fleet_panes import HostLines, JobLines
from topotui.fleet_picture import FleetPicture
from topotui.jobscreen import JobScreen
from topotui.logview import LogView
from topotui.player import Player
from topotui.recording import Recorder, load

SECONDS = 60.0


def watched(
    fleet: Fleet,
    story: Callable[[FleetApp, Pilot[None]], Awaitable[None]],
    size: tuple[int, int],
    *,
    read_only: bool = False,
    record: Recorder | None = None,
) -> None:
    async def run() -> None:
        def connect(host: str) -> Client:
            return Client(fleet.coordinator.socket, host=host)

        app = FleetApp(connect, read_only=read_only, record=record)
        async with app.run_test(size=size) as pilot:
            await story(app, pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], what: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not what():
            await pilot.pause(0.05)


async def asked(pilot: Pilot[None], key: str, question: str, answer: str) -> None:
    """Press a key, read what it would do, and answer."""
    await pilot.press(*([key] if key else []))
    await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
    assert question in str(pilot.app.screen.query_one(Label).render())
    await pilot.press(answer)
    await until(pilot, lambda: not isinstance(pilot.app.screen, Confirm))


def bar(app: FleetApp) -> str:
    return str(app.fleet.query_one("#status", Static).render())


def line(app: FleetApp, host: str) -> str:
    lines = app.fleet.query_one(HostLines)
    return "".join(segment.text for segment in lines.line(host, lines.size.width))


def test_a_fleet_is_watched_and_steered_by_keys(tmp_path: Path) -> None:
    file = tmp_path / "seen.jsonl"
    with Fleet(tmp_path / "fleet", hosts=("a", "b")) as fleet:

        async def look(app: FleetApp, pilot: Pilot[None]) -> None:
            await until(pilot, lambda: "2 ready" in bar(app))
            assert "● REC" in bar(app)
            hosts = app.fleet.query_one(HostLines)
            job = await asyncio.to_thread(fleet.submit, "sleep 600", gpus=2, priority=1000)
            await until(pilot, lambda: any(line(app, name).count("H") == 2 for name in "ab"))
            where = next(name for name in "ab" if "H" in line(app, name))
            assert line(app, where).count("·") == 6
            other = "b" if where == "a" else "a"

            # A filter, and a host's own screen through the coordinator.
            await pilot.press("slash", *f"job:{job.id}", "enter")
            await until(pilot, lambda: list(hosts.keys) == [where])
            await pilot.press("enter")
            await until(
                pilot, lambda: isinstance(app.screen, HostScreen) and app.screen.picture.host is not None
            )
            there = app.screen
            assert isinstance(there, HostScreen)
            assert len(there.picture.running()) == 1
            await pilot.press("2", "k")  # the jobs there have numbers of the host's own
            assert not isinstance(pilot.app.screen, Confirm)
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.fleet)
            await pilot.press("escape")
            await until(pilot, lambda: list(hosts.keys) == ["a", "b"])
            assert app.fleet.query_one("#filter", Input).value == ""

            # Cordon the other host and let it work again; each after a question.
            await pilot.press("home", *(["down"] if other == "b" else []), "c")
            assert isinstance(app.screen, Ask)
            await pilot.press(*"fan", "enter")
            await until(pilot, lambda: app.fleet.picture.rows[other].state == "cordoned")
            assert "fan" in line(app, other)
            await pilot.press("u")
            assert isinstance(app.screen, Confirm)
            await pilot.press("y")
            await until(pilot, lambda: app.fleet.picture.rows[other].state == "ready")

            # A job that stops another one, and its end by a key.
            low = await asyncio.to_thread(fleet.submit, "sleep 600", gpus=8, priority=100)
            await until(pilot, lambda: low.id in app.fleet.picture.jobs)
            high = await asyncio.to_thread(fleet.submit, "sleep 600", gpus=8, priority=1000)
            stops = app.fleet.picture.preemptions
            await until(pilot, lambda: any(one.started_at is not None for one in stops.all))
            assert [list(one.victims) for one in stops.all] == [[str(low.id)]]
            await pilot.press("2")
            jobs = app.fleet.query_one("#job-lines", JobLines)
            await until(pilot, lambda: str(high.id) in jobs.keys)
            jobs.move_to(list(jobs.keys).index(str(high.id)))
            its_host = app.fleet.picture.jobs[high.id].hosts[0]
            await asked(pilot, "r", f"It is running on {its_host}, GPUs 0-7.", "n")

            # All about it, and what is done from there; its output.
            await pilot.press("i")
            view = app.screen
            assert isinstance(view, JobScreen)
            await until(pilot, lambda: f"{its_host} (job" in view.text and "sleep 600" in view.text)
            await pilot.press("p")
            await until(pilot, lambda: isinstance(app.screen, Ask))
            await pilot.press(*"900", "enter")
            await asked(pilot, "", "From high (1000) to 900.", "y")
            await until(pilot, lambda: app.fleet.picture.jobs[high.id].priority == 900)
            await pilot.press("l")
            output = app.screen
            assert isinstance(output, LogView)
            await until(pilot, lambda: f"job {high.id} on {its_host}" in output.text)
            await pilot.press("escape")

            # Requeued it waits, for the other one takes its place, and starts again; then it is cancelled.
            await asked(pilot, "r", "It goes back into the queue with its submit time", "y")
            await until(pilot, lambda: app.fleet.picture.jobs[high.id].starts == 2)
            await until(pilot, lambda: app.fleet.picture.jobs[high.id].state == "running")
            jobs.move_to(list(jobs.keys).index(str(high.id)))
            await asked(pilot, "k", "SIGKILL 5 s later. It does not run again.", "y")
            await until(pilot, lambda: high.id in app.fleet.picture.ended)

            # What was seen since the beginning was recorded, and is seen again.
            await pilot.press("R")
            await until(pilot, lambda: app.fleet.recorder is None)
            player = Player(load(file))
            player.go(player.count)
            assert isinstance(player.picture, FleetPicture)
            assert [player.picture.ended[high.id].state] == ["cancelled"]
            assert len(player.picture.preemptions.all) == len(stops.all)
            with pytest.raises(DataError, match="it is a recording of a fleet, and this is a host"):
                Recorder(file)

            # Another leadership: said, and then all is there again.
            await asyncio.to_thread(fleet.coordinator.kill)
            await until(pilot, lambda: "trying again" in bar(app))
            assert job.id in app.fleet.picture.jobs
            await asyncio.to_thread(fleet.coordinator.start)
            await until(pilot, lambda: "2 ready" in bar(app))

        async def look_only(app: FleetApp, pilot: Pilot[None]) -> None:
            await until(pilot, lambda: "2 ready" in bar(app))
            await pilot.press("d")
            assert app.screen is app.fleet
            assert "read-only" in bar(app)

        watched(fleet, look, (80, 24), record=Recorder(file, fleet=True))
        watched(fleet, look_only, (200, 50), read_only=True)
