"""The output of a job over the screen, as it comes: in its colours; nothing in it steers the terminal."""

import re
from typing import Final

from rich.ansi import AnsiDecoder
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen
from textual.widgets import Footer, Label, Static

from topotui.tail import Tail

KEPT: Final = 100_000
"""Characters of a job's output that are remembered."""
LONGEST: Final = 10_000
"""Characters of a line; what is longer goes on as a line of its own."""
TABS: Final = 8
_NO_COLOR: Final = re.compile(
    r"\x1b\[(?![\d;]*m)[0-?]*[ -/]*[@-~]"  # a cursor moved, a screen cleared
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # a title, a link, the clipboard
    r"|\x1b(?!\[)[ -/]*[0-~]?"
)
"""Whatever steers a terminal but the colours of letters."""


class Output:
    """Lines of a job's output as they go to the screen, its pieces put together."""

    def __init__(self) -> None:
        self._decoder = AnsiDecoder()
        self._rest = ""

    def lines(self, data: str) -> list[Text]:
        """Return the lines that this piece completes."""
        *whole, self._rest = f"{self._rest}{data}".split("\n")
        while len(self._rest) > LONGEST:
            whole.append(self._rest[:LONGEST])
            self._rest = self._rest[LONGEST:]
        return [shown(line, self._decoder) for line in whole]

    def last(self) -> Text:
        """Return the line that is not complete yet: a prompt, or how far something is."""
        return shown(self._rest, AnsiDecoder())


def shown(line: str, decoder: AnsiDecoder) -> Text:
    """Return a line as it stands in the end, in colours, not what it wrote over, nor what steers."""
    line = line.rstrip("\r").rpartition("\r")[2]
    text = decoder.decode_line(_NO_COLOR.sub("", line).expandtabs(TABS))
    text.plain = "".join(char if char.isprintable() else "?" for char in text.plain)
    return text


class LogView(ModalScreen[None]):
    """The output of a job as it comes."""

    BINDINGS = [
        Binding("escape,q", "dismiss", "Back", key_display="Esc"),
        Binding("home,ctrl+home", "first", "First", show=False),
        Binding("end,ctrl+end", "last", "Last", show=False),
    ]

    def __init__(self, of: str) -> None:
        super().__init__()
        self._of = of
        self._output = Output()
        self.closed = False
        """Whether nobody looks any more."""
        self.text = ""
        """The end of what was shown."""

    def compose(self) -> ComposeResult:
        yield Label(f"output of {self._of}", classes="bar", markup=False)
        yield Tail(10_000)
        yield Static("no output yet", id="last-line", markup=False)
        yield Footer(show_command_palette=False)

    def on_unmount(self) -> None:
        self.closed = True

    def end(self) -> None:
        """Say that no more comes."""
        if self.is_attached and not self.text:
            self.query_one("#last-line", Static).update("it printed nothing")

    def away(self, why: str) -> None:
        """Say that nobody answers, and what is seen is how it was; empty: somebody does again."""
        if self.is_attached:
            bar = self.query_one(Label)
            bar.set_class(bool(why), "away")
            bar.update(f"no answer, trying again · {why}" if why else f"output of {self._of}")

    def add(self, text: str) -> None:
        """Show more of the output; who reads further up is left there."""
        if not self.is_attached:  # it was closed while the output was under way
            return
        self.text = (self.text + text)[-KEPT:]
        self.query_one(Tail).tell(self._output.lines(text))
        last = self._output.last()
        rest = self.query_one("#last-line", Static)
        rest.display = bool(last)
        rest.update(last)

    def action_first(self) -> None:
        self.query_one(Tail).scroll_home(animate=False)

    def action_last(self) -> None:
        self.query_one(Tail).action_scroll_end()
