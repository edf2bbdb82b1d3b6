"""A block of text on the screen of which few lines change at a time: only those are drawn anew."""

from itertools import zip_longest

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widgets import Static

from topotui.blocks import Block, text_of

SLACK = 3
"""It takes less room only when it has more lines less: to lay the screen out anew costs most of all."""


class Drawn(Static):
    """Lines that are cut at the right, never wrapped. To draw all of a large picture costs a lot."""

    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - as Textual names it
        super().__init__(id=id)
        self.block = Block((), 0)
        """What is shown."""
        self._height = 0

    def draw(self, block: Block) -> None:
        """Show this block from now on."""
        before, self.block = self.block, block
        if not self._height - SLACK <= block.height <= self._height:
            self._height = block.height
            self.refresh(layout=True)
            return
        changed = [
            Region(0, y, self.size.width, 1)
            for y, (old, new) in enumerate(zip_longest(before.lines, block.lines))
            if old != new
        ]
        if changed:
            self.refresh(*changed)

    def render(self) -> Text:
        """Return the block as text."""
        return text_of(self.block)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002 - a hook
        return self._height

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        parts = self.block.lines[y] if y < self.block.height else ()
        segments = [Segment(text, base + Style.parse(style) if style else base) for text, style in parts]
        return Strip(segments).adjust_cell_length(self.content_size.width, base)
