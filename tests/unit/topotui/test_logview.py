"""The output of a job: its lines put together, its colours kept, nothing in it steers the terminal."""

import pytest
from rich.ansi import AnsiDecoder
from rich.text import Text

from topotui.logview import Output, shown


@pytest.mark.parametrize(
    ("printed", "seen"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("step 1\rstep 2\r", "step 2"),
        ("a\tb", "a       b"),
        ("\x1b[2J\x1b[1;1Hhome\x1b[?25l", "home"),
        ("\x1b]0;a title\x07x\x1b]52;c;Zm9v\x1b\\y", "xy"),
        ("\x1b]8;;http://a\x07\x1b]0;t\x07link", "link"),
        ("\x1bP1;2|zz\x1b\\done\x1b", "done"),
        ("[bold]as it is[/]", "[bold]as it is[/]"),
        ("bell\x07 \x9b31m", "bell ?31m"),
    ],
)
def test_a_line_is_shown_as_it_stands_in_the_end(printed: str, seen: str) -> None:
    assert shown(printed, AnsiDecoder()).plain == seen


def test_pieces_make_lines_and_colours_go_on_behind_them() -> None:
    output = Output()
    assert [*map(plain, output.lines("one\ntw"))] == ["one"]
    assert output.last().plain == "tw"
    assert not output.lines("o \x1b[3")
    second = output.lines("1mred\nstill\n")
    assert [*map(plain, second)] == ["two red", "still"]
    assert [str(span.style) for line in second for span in line.spans] == ["color(1)", "color(1)"]
    assert output.last().plain == ""


def plain(line: Text) -> str:
    return line.plain
