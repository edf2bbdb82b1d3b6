"""The story of a host or a fleet, as a tab."""

import time
from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical

from topoctl.render.style import printable
from topod.protocol.views import EventView
from topotui.tail import Tail

STATE_SIGNS = {"running": "▶", "pending": "…", "starting": "◌", "stopping": "◐", "preempted": "◐"}


class EventsPane(Vertical):
    """The host's story, the newest last."""

    def compose(self) -> ComposeResult:
        yield Tail(5000)

    def add(self, events: Sequence[EventView]) -> None:
        """Show what happened since."""
        if events:
            self.query_one(Tail).tell(_line(event) for event in events)

    def forget(self) -> None:
        """Show nothing of what was."""
        self.query_one(Tail).forget()


def _line(event: EventView) -> Text:
    stamp = time.strftime("%H:%M:%S", time.localtime(event.at))
    return Text.assemble((f"{stamp} ", "dim"), printable(event.text or event.name))
