"""Text that grows at its end: the newest is in sight unless somebody scrolled up, at any width."""

import asyncio

from rich.text import Text
from textual.app import App, ComposeResult

from topotui.tail import Tail

LINES = [Text(f"{number} {'word ' * 18}") for number in range(600)]


class Shown(App[None]):
    def compose(self) -> ComposeResult:
        yield Tail(2000)


def test_the_newest_is_in_sight_unless_somebody_scrolled_up_and_lines_are_folded_to_the_width() -> None:
    async def run() -> None:
        app = Shown()
        async with app.run_test(size=(120, 20)) as pilot:
            tail = app.query_one(Tail)

            async def until_folded_to(lines: int) -> None:
                async with asyncio.timeout(60):
                    while len(tail.lines) != lines or tail.scroll_y != tail.max_scroll_y:
                        await pilot.pause(0.02)

            tail.tell(LINES)
            await until_folded_to(600)
            await pilot.resize_terminal(60, 20)
            await until_folded_to(1200)
            await pilot.press("home")
            tail.tell([Text("more")])
            await pilot.pause()
            assert (tail.scroll_y, len(tail.lines)) == (0, 1201)
            await pilot.press("end")
            await pilot.resize_terminal(120, 20)
            await until_folded_to(601)

    asyncio.run(run())
