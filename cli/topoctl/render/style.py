"""How text may look where it is shown."""

from dataclasses import dataclass

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """The reader's terminal: `width` in columns; `unicode` False means ASCII only.

    `piped`: a program or a file takes it, so the last column of a table is not cut.
    """

    width: int = 80
    piped: bool = False
    color: bool = False
    unicode: bool = True

    def paint(self, text: str, *codes: str) -> str:
        """Return `text` in colour, or as it is where there is none."""
        if not self.color or not codes or not text:
            return text
        return f"\x1b[{';'.join(_CODES[code] for code in codes)}m{text}\x1b[0m"

    def cut(self, text: str, width: int) -> str:
        """Return `text` in at most `width` columns, its loss marked."""
        mark = "…" if self.unicode else "~"
        return text if len(text) <= width else text[: max(0, width - 1)].rstrip() + mark


PLAIN = Style()

STATE_COLORS = {
    "running": "green",
    "assigned": "cyan",
    "starting": "cyan",
    "stopping": "yellow",
    "preempted": "yellow",
    "failed": "red",
    "lost": "red",
    "succeeded": "dim",
    "cancelled": "dim",
    "returned": "dim",
}


def printable(text: str) -> str:
    """Return text of others in one line without control characters, so that it cannot steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
