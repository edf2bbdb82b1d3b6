"""The table of jobs draws what is on the screen and has changed, however many jobs there are."""

import asyncio

import msgspec
from rich.segment import Segment
from textual.app import App, ComposeResult

from topod.protocol.views import JobLine
from topotui.jobs import JobTable

JOBS = [
    JobLine(
        id=number,
        name=f"job-{number}",
        user="ada",
        state="pending",
        priority=100,
        gpus=1,
        affinity="any",
        policy="guaranteed",
        cpus=0,
        cpu_affinity="numa",
        submitted_at=0.0,
    )
    for number in range(1, 1001)
]


class Counted(JobTable):
    """Remembers which lines it drew."""

    drawn: list[str]

    def line(self, key: str, width: int) -> list[Segment]:
        self.drawn.append(key)
        return super().line(key, width)


class Shown(App[None]):
    def compose(self) -> ComposeResult:
        table = Counted(ended=False)
        table.drawn = []
        yield table


def test_of_a_thousand_jobs_only_the_lines_that_are_seen_and_differ_are_drawn() -> None:
    async def run() -> None:
        app = Shown()
        async with app.run_test(size=(100, 20)) as pilot:
            table = app.query_one(Counted)
            table.focus()

            async def drawn(jobs: list[JobLine], now: float, words: tuple[str, ...] = ()) -> list[str]:
                await pilot.pause()
                table.drawn.clear()
                table.update_from(jobs, now, words)
                await pilot.pause()
                return table.drawn

            assert len(await drawn(JOBS, 10.0)) == 19
            assert await drawn(JOBS, 10.0) == []
            changed = [*JOBS]
            for at in (2, 500):
                changed[at] = msgspec.structs.replace(JOBS[at], state="running", started_at=9.0)
            assert await drawn(changed, 10.0) == ["3"]
            assert len(await drawn(changed, 11.0)) == 19  # a second more is on each
            await pilot.press("end")
            assert table.cursor == "1000"
            await pilot.press("home")
            assert table.cursor == "1"
            assert await drawn(changed, 11.0, ("job-77", "pend")) == [
                "77",
                *map(str, range(770, 780)),
            ]

    asyncio.run(run())
