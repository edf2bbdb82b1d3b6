"""A table of any number of lines of which only those on the screen are drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

HEADING = Style(bold=True, reverse=True)
CURSOR = Style(bgcolor="#1f3a5f", bold=True)
CURSOR_AWAY = Style(bgcolor="grey23")


class LineTable(ScrollView, can_focus=True):
    """Lines by key under a heading that stays; one line is under the cursor.

    Whoever derives from it says what a line looks like. A line is drawn once, and again when it is `touched`.
    """

    BINDINGS = [
        Binding("up", "move(-1)", "Up", show=False),
        Binding("down", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,ctrl+home", "move(-1_000_000_000)", "First", show=False),
        Binding("end,ctrl+end", "move(1_000_000_000)", "Last", show=False),
        Binding("enter", "select", "Open", show=False),
    ]

    @dataclass
    class Moved(Message):
        """The cursor is on another line."""

        table: "LineTable"
        key: str | None

        @property
        def control(self) -> "LineTable":
            return self.table

    @dataclass
    class Chosen(Message):
        """Enter was pressed on a line, or it was clicked while under the cursor."""

        table: "LineTable"
        key: str

        @property
        def control(self) -> "LineTable":
            return self.table

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - as Textual names it
        super().__init__(id=id)
        self.keys: Sequence[str] = ()
        self._at = 0
        self._drawn: dict[str, Strip] = {}
        self._told: str | None = None

    def heading(self, width: int) -> list[Segment]:
        """Return the first line."""
        raise NotImplementedError

    def line(self, key: str, width: int) -> list[Segment]:
        """Return a line."""
        raise NotImplementedError

    @property
    def cursor(self) -> str | None:
        """The key of the line under the cursor; None: there is none."""
        return self.keys[self._at] if self.keys else None

    def show(self, keys: Sequence[str], touched: Iterable[str] | None = None) -> None:
        """Show these lines; the cursor stays on its line wherever that goes.

        Only lines that are `touched` are drawn anew; None: all.
        """
        touched = None if touched is None else set(touched)
        if touched is None:
            self._drawn.clear()
        else:
            for key in touched:
                self._drawn.pop(key, None)
        if keys != self.keys:
            here, row = self.cursor, self._at - self.scroll_offset.y
            self.keys = keys
            self._at = min(self._at, max(0, len(keys) - 1))
            self.virtual_size = Size(self.size.width, len(keys) + 1)
            if here is not None and here != self.cursor and here in keys:
                self._at = keys.index(here)
                self.scroll_to(y=max(0, self._at - row), animate=False, immediate=True)
            self.refresh()
        elif touched is None:
            self.refresh()
        else:
            self._refresh_lines(touched)
        self._tell()

    def _refresh_lines(self, touched: set[str]) -> None:
        top = self.scroll_offset.y
        seen = self.keys[top : top + max(0, self.size.height - 1)]
        rows = [at + 1 for at, key in enumerate(seen) if key in touched]
        if len(rows) > 8:
            self.refresh(Region(0, 1, self.size.width, len(seen)))
            return
        for row in rows:
            self.refresh(Region(0, row, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return Strip(self.heading(width)).adjust_cell_length(width, self.rich_style)
        at = self.scroll_offset.y + y - 1
        if at >= len(self.keys):
            return Strip.blank(width, self.rich_style)
        key = self.keys[at]
        strip = self._drawn.get(key)
        if strip is None:
            strip = self._drawn[key] = Strip(self.line(key, width)).adjust_cell_length(width)
        base = self.rich_style
        if at == self._at:
            base += CURSOR if self.has_focus else CURSOR_AWAY
        return strip.apply_style(base)

    # --- the cursor -----------------------------------------------------------------------------------------

    def move_to(self, at: int) -> None:
        """Put the cursor on a line, and the line on the screen."""
        at = max(0, min(at, len(self.keys) - 1))
        if at != self._at:
            before, self._at = self._at, at
            for row in (before, at):
                self.refresh(Region(0, row + 1 - self.scroll_offset.y, self.size.width, 1))
        room = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if at < top:
            self.scroll_to(y=at, animate=False, immediate=True)
        elif at >= top + room:
            self.scroll_to(y=at - room + 1, animate=False, immediate=True)
        self._tell()

    def _tell(self) -> None:
        if self.cursor != self._told:
            self._told = self.cursor
            self.post_message(self.Moved(self, self.cursor))

    def action_move(self, lines: int) -> None:
        self.move_to(self._at + lines)

    def action_page(self, pages: int) -> None:
        self.move_to(self._at + pages * max(1, self.size.height - 2))

    def action_select(self) -> None:
        if self.cursor is not None:
            self.post_message(self.Chosen(self, self.cursor))

    def on_click(self, event: events.Click) -> None:
        at = self.scroll_offset.y + event.y - 1
        if event.y < 1 or at >= len(self.keys):
            return
        if at == self._at:
            self.action_select()
        else:
            self.move_to(at)

    def on_resize(self) -> None:
        self._drawn.clear()
        self.virtual_size = Size(self.size.width, len(self.keys) + 1)
        self.call_after_refresh(self.move_to, self._at)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()
