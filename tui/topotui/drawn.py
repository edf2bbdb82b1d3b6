"""Text of many lines of which few change at a time: only those are drawn anew."""

from itertools import zip_longest

from rich.text import Text
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widgets import Static

SLACK = 3
"""It takes less room only when it has more lines less: to lay the screen out anew costs most of all."""


class Drawn(Static):
    """Lines that are cut at the right, never wrapped. To draw all of a large picture costs a lot."""

    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - as Textual names it
        super().__init__(id=id)
        self._lines: list[Text] = []
        self._strips: dict[int, Strip] = {}
        self._height = 0

    def draw(self, text: Text) -> None:
        """Show a text."""
        lines = list(text.split("\n", allow_blank=True))
        before, self._lines = self._lines, lines
        if not self._height - SLACK <= len(lines) <= self._height:
            self._height = len(lines)
            self._strips.clear()
            self.refresh(layout=True)
            return
        for y, (old, new) in enumerate(zip_longest(before, lines)):
            if old != new:
                self._strips.pop(y, None)
                self.refresh(Region(0, y, self.size.width, 1))

    def render(self) -> Text:
        return Text("\n").join(self._lines)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002 - a hook
        return self._height

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        strip = self._strips.get(y)
        if strip is None or strip.cell_length != width:
            line = Strip(self._lines[y].render(self.app.console)).adjust_cell_length(width)
            strip = self._strips[y] = line.apply_style(self.rich_style)
        return strip
