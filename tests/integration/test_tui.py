"""`topoctl top` on a live topod, driven by keys as a person would."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from textual.command import CommandList, CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input, Label, Static, TabbedContent

from tests.integration.daemon_process import Topod, topod_in
from topod.model.arrays import ArrayPlan
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.client import Client
from topod.protocol.replies import Jobs
from topod.protocol.requests import Cancel, Submit
from topotui.app import TopApp
from topotui.dialogs import Ask, Confirm
from topotui.jobs import JobTable
from topotui.jobscreen import JobScreen
from topotui.logview import LogView
from topotui.player import Player
from topotui.recording import load

SECONDS = 60.0
SIZES = [(80, 24), (200, 50)]


@pytest.fixture
def topod(tmp_path: Path) -> Iterator[Topod]:
    yield from topod_in(tmp_path / "d")


def watched(
    topod: Topod,
    story: Callable[[TopApp, Pilot[None]], Awaitable[None]],
    size: tuple[int, int] = (100, 40),
    *,
    read_only: bool = False,
) -> None:
    async def run() -> None:
        app = TopApp(lambda: Client(topod.socket), read_only=read_only)
        async with app.run_test(size=size) as pilot:
            await story(app, pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], what: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not what():
            await pilot.pause(0.05)


def text_of(app: TopApp, selector: str) -> str:
    return str(app.screen.query_one(selector, Static).render())


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "200x50"])
def test_the_machine_shows_who_holds_which_gpu_as_it_changes(topod: Topod, size: tuple[int, int]) -> None:
    async def story(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: text_of(app, "#machine").count("▯ free") == 8)
        job = await asyncio.to_thread(topod.submit, "sleep", "600", gpus=2, name="hold", priority=1000)
        await until(pilot, lambda: text_of(app, "#machine").count(f"▮ {job.id} high") == 2)
        assert "6 of 8 GPUs free" in text_of(app, "#status")
        assert all(len(line) <= size[0] for line in text_of(app, "#machine").splitlines())
        await pilot.press("x")
        await until(pilot, lambda: "NV2" in text_of(app, "#matrix"))
        await pilot.press("v")
        await until(pilot, lambda: f"job {job.id}" in text_of(app, "#holders"))
        assert text_of(app, "#cores").count("NUMA") == 2

    watched(topod, story, size)


def test_a_job_is_cancelled_by_a_key_after_a_question(topod: Topod) -> None:
    job = topod.submit("sleep", "600", gpus=1)
    topod.wait(job.id, "running")

    async def story(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: job.id in app.picture.jobs)
        await pilot.press("2")
        await until(pilot, lambda: len(app.screen.query_one("#jobs JobTable", JobTable).keys) == 1)
        await pilot.press("k")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        assert app.picture.jobs[job.id].state == "running"
        await pilot.press("k")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "It does not run again" in str(app.screen.query_one(Label).render())
        await pilot.press("y")
        await until(pilot, lambda: job.id in app.picture.ended)
        assert app.picture.ended[job.id].state == "cancelled"

    watched(topod, story)


def test_a_job_is_looked_at_requeued_and_raised_by_keys(topod: Topod) -> None:
    job = topod.submit("sleep", "600", gpus=1, grace_seconds=1.0, priority=100)
    topod.wait(job.id, "running")

    async def story(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: job.id in app.picture.jobs)
        await pilot.press("2", "enter")
        first = app.screen
        assert isinstance(first, JobScreen)
        await until(pilot, lambda: "grace, then requeue" in first.text)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "SIGKILL 1 s later" in str(app.screen.query_one(Label).render())
        await pilot.press("y")
        await until(pilot, lambda: app.picture.jobs[job.id].starts == 2)
        await pilot.press("i")
        view = app.screen
        assert isinstance(view, JobScreen)
        await until(pilot, lambda: "requeued by" in view.text)
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        await pilot.press(*"high", "enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "From low (100) to high (1000)" in str(app.screen.query_one(Label).render())
        await pilot.press("y")
        await until(pilot, lambda: app.picture.jobs[job.id].priority == 1000)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await pilot.press(*"show events")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await until(pilot, lambda: app.host.query_one(TabbedContent).active == "events")

    watched(topod, story)


def test_what_is_recorded_by_a_key_is_replayed(topod: Topod, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    before = topod.submit("true")
    topod.wait(before.id)

    async def story(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: before.id in app.picture.ended)
        await pilot.press("R")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        app.screen.query_one(Input).value = str(file)
        await pilot.press("enter")
        await until(pilot, lambda: "REC" in text_of(app, "#status"))
        job = await asyncio.to_thread(topod.submit, "sleep", "600", gpus=1)
        await until(pilot, lambda: job.id in app.picture.jobs and app.picture.jobs[job.id].state == "running")
        await pilot.press("R")
        await until(pilot, lambda: "REC" not in text_of(app, "#status"))

    watched(topod, story)
    recording = load(file)
    player = Player(recording)
    assert [*player.picture.jobs] == []
    assert [*player.picture.ended] == [before.id]
    player.go(player.count)
    assert [job.state for job in player.picture.jobs.values()] == ["running"]


def test_read_only_changes_nothing(topod: Topod) -> None:
    job = topod.submit("sleep", "600", gpus=1)
    topod.wait(job.id, "running")

    async def story(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: job.id in app.picture.jobs)
        await pilot.press("2", "k", "R")
        assert app.screen is app.host
        assert {one.message for one in app._notifications} == {
            "started with --read-only: nothing is changed from here"
        }
        assert "read-only" in text_of(app, "#status")
        offered = {one.binding.action for one in app.host.active_bindings.values()}
        assert "log" in offered
        assert not offered & {"cancel", "requeue", "priority", "drain", "record"}
        await pilot.press("question_mark")
        assert "cancel" not in str(app.screen.query_one(Static).render())
        await pilot.press("escape", "ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await pilot.press(*"drain")
        await until(pilot, lambda: bool(app.screen.query_one(CommandList).option_count))
        options = app.screen.query_one(CommandList).options
        assert not any("Drain" in str(option.prompt) for option in options)
        await pilot.press("escape", "ctrl+c")
        await until(pilot, lambda: app._exit)

    watched(topod, story, read_only=True)


def test_the_output_of_a_job_comes_as_it_is_printed(topod: Topod) -> None:
    job = topod.submit("sh", "-c", "echo first; sleep 600")
    topod.wait(job.id, "running")

    async def story(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: job.id in app.picture.jobs)
        await pilot.press("2")
        await until(pilot, lambda: len(app.screen.query_one("#jobs JobTable", JobTable).keys) == 1)
        await pilot.press("l")
        view = app.screen
        assert isinstance(view, LogView)
        await until(pilot, lambda: view.text == "first\n")
        await pilot.press("escape")
        await until(pilot, lambda: view.closed)

    watched(topod, story)


def test_a_preemption_is_told_with_its_victims_and_a_restart_is_survived(topod: Topod) -> None:
    small = topod.submit("sleep", "600", gpus=4, priority=100)
    topod.wait(small.id, "running")

    async def story(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: small.id in app.picture.jobs)
        big = await asyncio.to_thread(topod.submit, "sleep", "600", gpus=8, priority=1000, name="big")
        await until(pilot, lambda: any(not one.open for one in app.picture.timeline.all))
        await pilot.press("4")
        await until(pilot, lambda: f"job {small.id} (low): holds" in text_of(app, "#why"))
        await asyncio.to_thread(topod.kill)
        await until(pilot, lambda: "trying again" in text_of(app, "#status"))
        assert f"job {small.id} (low): holds" in text_of(app, "#why")
        await asyncio.to_thread(topod.start)
        await until(pilot, lambda: "trying again" not in text_of(app, "#status"))
        await until(pilot, lambda: app.picture.jobs[big.id].state == "running")
        await asyncio.to_thread(array_of, topod, 300)

    async def later(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: [one.label for one in app.picture.timeline.all] == ["job 2 (big)"])

    watched(topod, story)
    watched(topod, later)  # the array has more events than those that come first


def array_of(topod: Topod, count: int) -> None:
    spec = JobSpec(name="many", command=("true",), request=ResourceRequest(gpus=1))
    reply = topod.ask(Submit(spec=spec, array=ArrayPlan(indices=tuple(range(count)))))
    assert isinstance(reply, Jobs)
    topod.ask(Cancel(jobs=[job.id for job in reply.jobs]))
