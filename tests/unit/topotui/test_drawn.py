"""Only lines that changed are drawn anew."""

import asyncio

from textual.app import App, ComposeResult
from textual.geometry import Region

from topotui.blocks import block
from topotui.drawn import Drawn


class Counting(Drawn):
    """Remembers which lines were drawn, and how often the screen was laid out for it."""

    def __init__(self) -> None:
        super().__init__()
        self.layouts = 0
        self.regions: list[Region] = []

    def refresh(self, *regions: Region, layout: bool = False, **more: bool) -> "Counting":
        self.layouts += layout
        self.regions += regions
        return super().refresh(*regions, layout=layout, **more)


class Page(App[None]):
    def compose(self) -> ComposeResult:
        yield Counting()


def test_only_lines_that_changed_are_drawn_and_the_screen_is_laid_out_for_new_sizes_only() -> None:
    async def run() -> None:
        app = Page()
        async with app.run_test(size=(20, 6)) as pilot:
            page = app.query_one(Counting)
            page.draw(block([[("one", "")], [("two", "bold")], [("three", "")]]))
            await pilot.pause()
            page.layouts, page.regions = 0, []
            page.draw(block([[("one", "")], [("2", "bold")], [("three", "")]]))
            assert (page.layouts, [region.y for region in page.regions]) == (0, [1])
            await pilot.pause()
            assert [page.render_line(y).text.rstrip() for y in range(3)] == ["one", "2", "three"]
            page.draw(block([[("one", "")]]))  # a little less: what is below keeps its place
            assert page.layouts == 0
            page.draw(block([[("x", "")]] * 5))
            assert page.layouts == 1

    asyncio.run(run())
