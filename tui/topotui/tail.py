"""Text that grows at its end, of which the newest is seen unless somebody scrolled up."""

from collections import deque
from collections.abc import Iterable

from rich.text import Text
from textual import events
from textual.widgets import RichLog


class Tail(RichLog):
    """Lines that go on below where they are too long, and are folded anew where the width changes."""

    def __init__(self, most: int) -> None:
        """`most`: so many lines are remembered."""
        super().__init__(max_lines=most, min_width=20, wrap=True, markup=False)
        self._kept: deque[Text] = deque(maxlen=most)
        self._follows = True
        self._folded_to = 0

    def tell(self, lines: Iterable[Text]) -> None:
        """Show more lines; who reads further up is left there."""
        for line in lines:
            self._kept.append(line)
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
        if self._folded_to not in (0, width):
            follows, top = self._follows, self.scroll_y
            self.clear()
            for line in self._kept:
                self.write(line, expand=True, scroll_end=False)
            self.scroll_to(y=top, animate=False, immediate=True)
            self._follows = follows
        self._folded_to = width
        self._to_end()

    def _to_end(self) -> None:
        if self._follows:
            self.call_after_refresh(self.scroll_end, animate=False, immediate=True)
