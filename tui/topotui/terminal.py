"""The terminal of a screen: that there is one, that the screen ends with it; what all screens share."""

import os
import select
import sys
import threading
from collections.abc import Iterable
from typing import Final

from textual.app import App, SystemCommand
from textual.notifications import SeverityLevel
from textual.screen import Screen

from topoctl.exit_codes import HUNG_UP
from topod.errors import UsageError

SMALLEST: Final = (80, 24)
"""Columns and lines from which on everything has its place."""


def need_terminal() -> None:
    """Raise `UsageError` where nobody would see a screen, or could press a key."""
    if not _in_page() and not all(os.isatty(number) for number in (0, 1, 2)):
        raise UsageError("topoctl top needs a terminal")


def run(app: App[None]) -> None:
    """Show an application until its user leaves, or the terminal goes away."""
    if not _in_page():
        threading.Thread(target=_end_with, args=(sys.stdin.fileno(),), name="terminal", daemon=True).start()
    app.run()


def _in_page() -> bool:
    """Whether a page of `topoctl web` draws the screen, which ends its process itself."""
    return "TEXTUAL_DRIVER" in os.environ


def _end_with(terminal: int) -> None:
    """End the process when its terminal is gone; SIGHUP may be ignored, or may not come."""
    poll = select.poll()
    poll.register(terminal, 0)
    while not any(told & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, told in poll.poll()):
        pass
    # At once: what is still to be drawn would be waited for forever. A recording is whole at any instant.
    os._exit(HUNG_UP)


def small(width: int, height: int) -> list[str]:
    """Return the words about a terminal that is too small; none about one that is not."""
    least_width, least_height = SMALLEST
    if width >= least_width and height >= least_height:
        return []
    return [f"{width}x{height} is too small: {least_width}x{least_height}"]


class ScreenApp(App[None]):
    """What the applications have in common."""

    TITLE = "topod"

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield what the palette has for every application; a page writes no file of the server."""
        for command in super().get_system_commands(screen):
            if not (self.is_web and command.title == "Screenshot"):
                yield command

    def action_help_quit(self) -> None:
        """Leave: that is what Ctrl+C means everywhere else."""
        self.exit()

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Tell something for a while. What topod says is no markup: `8[102]` is a job."""
        del markup
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=False)
