"""Text that grows at its end, of which the newest is seen unless somebody scrolled up."""

from collections import deque
from collections.abc import Iterable
from typing import Final

from rich.text import Text
from textual import events
from textual.timer import Timer
from textual.widgets import RichLog

SETTLED_SECONDS: Final = 0.1
"""After so long at one width thousands of lines are folded to it."""
QUICK: Final = 500
"""So many lines are folded at once."""
AT_ONCE: Final = 200
"""Lines; together they are folded in half the time."""


class Tail(RichLog):
    """Lines that go on below where they are too long, and are folded anew where the width changes."""

    def __init__(self, most: int) -> None:
        """`most`: so many lines are remembered."""
        super().__init__(max_lines=most, min_width=20, wrap=True, markup=False)
        self._kept: deque[Text] = deque(maxlen=most)
        self._follows = True
        self._folded_to = 0
        """Columns; 0: none are known yet."""
        self._longest = 0
        """Columns of the longest line."""
        self._later: Timer | None = None

    def tell(self, lines: Iterable[Text]) -> None:
        """Show more lines; who reads further up is left there."""
        for line in lines:
            self._kept.append(line)
            self._longest = max(self._longest, line.cell_len)
            self.write(line, expand=True, scroll_end=False)
        self._to_end()

    def forget(self) -> None:
        """Show nothing of what was."""
        self._kept.clear()
        self.clear()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._follows = self.is_vertical_scroll_end

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002 - a hook
        """Fold the lines anew where they are as wide as they were before."""
        width = self.scrollable_content_region.width
        self._folded_to = self._folded_to or width
        if self._later is not None:
            self._later.stop()
        if self._longest > min(width, self._folded_to) and width != self._folded_to:
            if len(self._kept) <= QUICK:
                self._fold()
            else:  # while a window is drawn larger each column would fold them all
                self._later = self.set_timer(SETTLED_SECONDS, self._fold)
        self._to_end()

    def action_scroll_end(self) -> None:
        """Show the newest, and go on with it."""
        self._follows = True
        self._to_end()

    def _fold(self) -> None:
        follows, top = self._follows, self.scroll_y
        self._folded_to = self.scrollable_content_region.width
        self.clear()
        lines = [*self._kept]
        for start in range(0, len(lines), AT_ONCE):
            self.write(Text("\n").join(lines[start : start + AT_ONCE]), expand=True, scroll_end=False)
        self.scroll_to(y=top, animate=False, immediate=True)
        self._follows = follows
        self._to_end()

    def _to_end(self) -> None:
        if self._follows:
            self.call_after_refresh(self.scroll_end, animate=False, immediate=True)
