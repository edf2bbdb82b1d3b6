"""Questions over the screen: what is about to happen, in a sentence, and yes or no; or one line of input."""

from collections.abc import Callable

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

# Screens are dismissed below and the end is not waited for: a screen cannot wait for its own.


class Confirm(ModalScreen[bool]):
    """Says what will happen and asks whether it shall."""

    BINDINGS = [Binding("y", "answer(True)", "Yes"), Binding("n,escape", "answer(False)", "No")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._text, id="question", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("No (n)", id="no", variant="primary")
                yield Button("Yes (y)", id="yes", variant="error")

    def say(self, text: str) -> None:
        """Say what will happen now that something else has."""
        if self.is_attached and text != self._text:
            self._text = text
            self.query_one("#question", Label).update(text)

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        _ = self.dismiss(event.button.id == "yes")

    async def action_answer(self, yes: bool) -> None:
        _ = self.dismiss(yes)


class Ask(ModalScreen[str | None]):
    """Asks for one line; None: nothing shall happen."""

    BINDINGS = [Binding("escape", "cancel", "Never mind")]

    def __init__(self, text: str, value: str = "") -> None:
        super().__init__()
        self._text = text
        self._value = value

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._text, markup=False)
            yield Input(self._value)

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        _ = self.dismiss(event.value.strip())

    async def action_cancel(self) -> None:
        _ = self.dismiss(None)


class WhatToRun(ModalScreen[tuple[str, str] | None]):
    """Asks for image and command; None: nothing shall happen."""

    BINDINGS = [Binding("escape", "cancel", "Never mind")]

    def __init__(
        self, *, image: bool, wrong: Callable[[str, str], str], typed: tuple[str, str] = ("", "")
    ) -> None:
        """`image`: False where jobs are plain processes. `wrong` says what is wrong with them.

        `typed`: image and command that were given before.
        """
        super().__init__()
        self._typed = typed
        self._image = image
        self._wrong = wrong

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            if self._image:
                yield Label("Image")
                yield Input(self._typed[0], id="image")
            yield Label("Command, as a shell would read it; Enter: go on, Escape: never mind")
            yield Input(self._typed[1], id="command")
            yield Label(id="wrong", markup=False)

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "image":
            self.query_one("#command").focus()
            return
        image = self.query_one("#image", Input).value.strip() if self._image else ""
        command = event.value.strip()
        if wrong := self._wrong(image, command):
            self.query_one("#wrong", Label).update(wrong)
            return
        _ = self.dismiss((image, command))

    async def action_cancel(self) -> None:
        _ = self.dismiss(None)


class Help(ModalScreen[None]):
    """The keys, in words."""

    BINDINGS = [Binding("escape,question_mark,q,enter", "dismiss", "Close")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._text, markup=False)
