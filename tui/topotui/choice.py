"""One of the choices of the What-if screen."""

from textual import events
from textual.message import Message
from textual.widgets import Static


class Choice(Static):
    """One of the choices."""

    class Picked(Message):
        """Somebody clicked on it, or turned the wheel over it."""

        def __init__(self, name: str, step: int) -> None:
            super().__init__()
            self.name = name
            self.step = step

    def __init__(self, name: str) -> None:
        super().__init__(id=f"choice-{name}")
        self._of = name

    def on_click(self) -> None:
        self.post_message(self.Picked(self._of, 0))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.post_message(self.Picked(self._of, 1))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.post_message(self.Picked(self._of, -1))
