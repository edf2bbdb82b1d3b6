"""A page's consoles: what is typed in them, what the page says comes of it, and what a test should know of them.

A comment right before a console tells where it is not simply typed by `test_pages.py`:

- `<!-- not run: WHY -->` nobody types it.
- `<!-- run by: FILE::TEST -->` another test does, in `tests/`.
- `<!-- first: COMMANDS -->` typed before it, for a reader has done so elsewhere.

Anywhere on a page: `<!-- page run by: FILE::TEST -->`, `<!-- needs: PROGRAM -->` (else it is skipped), `<!-- host: NAME -->` (the emulated host; else dgx1),
`<!-- fleet -->` (a coordinator and two hosts are there instead of one host).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

CONSOLE = re.compile(
    r"(?:^ *<!-- (?P<mark>not run|run by|first):\s(?P<text>(?:(?!-->).)*?)\s-->\n+)?"
    r"^(?P<indent> *)```console\n(?P<typed>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
PROMPT = re.compile(r"(?P<machine>)[$#] (?P<words>.*)")


@dataclass
class Command:
    """One command and the lines that the page shows below it."""

    machine: str
    words: str
    printed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Console:
    """One block; `mark` is empty or one of the three of the module's docstring, `text` what it says."""

    line: int
    mark: str
    text: str
    commands: tuple[Command, ...]


def consoles(page: str) -> list[Console]:
    """Return the consoles of a page, in order."""
    return [
        Console(
            line=page.count("\n", 0, found.start("typed")),
            mark=found["mark"] or "",
            text=" ".join((found["text"] or "").split()) if found["mark"] != "first" else found["text"],
            commands=tuple(commands(re.sub(f"^{found['indent']}", "", found["typed"], flags=re.MULTILINE))),
        )
        for found in CONSOLE.finditer(page)
    ]


def lost_marks(page: str) -> int:
    """Return how many comments are like marks and belong to no console."""
    marks = len(re.findall(r"<!-- (?:not run|run by|first)\b", page))
    return marks - sum(bool(console.mark) for console in consoles(page))


def setting(page: str, name: str) -> str | None:
    """Return what the page says of itself in `<!-- NAME: ... -->`; empty without a text, None without the comment."""
    found = re.search(rf"^<!-- {name}(?:: (.*?))? -->$", page, re.MULTILINE)
    return (found[1] or "") if found else None


def commands(typed: str, prompt: re.Pattern[str] = PROMPT) -> Iterator[Command]:
    """Yield what is typed, a here-document or a continued line as a whole, with what is printed."""
    command: Command | None = None
    open_to: str | None = None
    for line in typed.splitlines():
        begun = prompt.fullmatch(line)
        if command is not None and open_to is not None:
            command.words += f"\n{line}"
            open_to = None if line == open_to else open_to
        elif command is not None and not command.printed and command.words.endswith("\\"):
            command.words += f"\n{line}"
        elif begun is not None:
            if command is not None:
                yield command
            command = Command(begun["machine"], begun["words"])
            heredoc = re.search(r"<<'?(\w+)'?$", command.words)
            open_to = heredoc[1] if heredoc else None
        elif command is not None:
            command.printed.append(line)
    if command is not None:
        yield command


def unlike(printed: list[str], told: list[str]) -> str | None:
    """Return the first line of a page that is not what was told, or None.

    Lines follow each other as on the page, `...` stands for any lines, `...` or `…` in a line for anything. How long
    something took, when it was and how much room is between words may differ.
    """
    position, anywhere = 0, True  # what comes before the first line that is shown may be a notice
    wanted = [line for line in map(_plain, printed) if line]
    given = [line for line in map(_plain, told) if line]
    for line in wanted:
        if line == "...":
            anywhere = True
            continue
        pattern = re.compile(re.escape(line).replace(r"\.\.\.", ".*").replace("…", ".*"))
        places = range(position, len(given)) if anywhere else range(position, min(position + 1, len(given)))
        found = next((place for place in places if pattern.fullmatch(given[place])), None)
        if found is None:
            return line
        position, anywhere = found + 1, False
    return None


def _plain(line: str) -> str:
    line = re.sub(r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d|\d{8}T\d{6}Z", "T", line)
    line = re.sub(r"\b\d+(?:\.\d+)?(?:m\d+s)?( ?)(?:ms|s|m|GPU-seconds|GPU-minutes)\b", r"N\1s", line)
    return " ".join(line.split())
