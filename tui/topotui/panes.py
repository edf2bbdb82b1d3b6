"""The story of a host or a fleet, as a tab."""

import time
from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import RichLog

from topoctl.render.style import printable
from topod.protocol.views import EventView

STATE_SIGNS = {"running": "▶", "pending": "…", "starting": "◌", "stopping": "◐", "preempted": "◐"}


class EventsPane(Vertical):
    """The host's story, the newest last."""

    def compose(self) -> ComposeResult:
        yield RichLog(max_lines=5000, wrap=True, markup=False)

    def add(self, events: Sequence[EventView]) -> None:
        """Show what happened since."""
        log = self.query_one(RichLog)
        at_end = log.is_vertical_scroll_end
        for event in events:
            stamp = time.strftime("%H:%M:%S", time.localtime(event.at))
            # Who reads further up is left there.
            log.write(
                Text.assemble((f"{stamp} ", "dim"), printable(event.text or event.name)),
                scroll_end=at_end,
            )

    def forget(self) -> None:
        """Show nothing of what was."""
        self.query_one(RichLog).clear()
