"""What a screen looks like, compared with what it looked like: the text of Textual's own SVG picture of it.

`TOPOD_UPDATE_SNAPSHOTS=1` writes the files anew: look at the difference before it is committed.
"""

import html
import os
import re
from pathlib import Path

from textual.app import App

_TEXT = re.compile(
    r'<text class="[^"]*-r\d+"[^>]* x="([\d.]+)"[^>]*clip-path="[^"]*line-(\d+)\)"[^>]*>([^<]*)</text>'
)
_COLOR = re.compile(r"fill: (#[0-9a-f]{6})")
_CELL = 12.2
"""Width of a character in that picture."""


def svg_of(app: App[None]) -> str:
    return app.export_screenshot(title="", simplify=False)


def text_of(svg: str) -> str:
    """Return the characters of an SVG picture of a screen, a line each."""
    lines: dict[int, str] = {}
    for x, line, text in _TEXT.findall(svg):
        told = html.unescape(text).replace("\xa0", " ")
        lines[int(line)] = f"{lines.get(int(line), ''):<{round(float(x) / _CELL)}}{told}"
    last = max(lines, default=-1)
    return "".join(f"{lines.get(number, '').rstrip()}\n" for number in range(last + 1))


def colors_of(svg: str) -> set[str]:
    """Return the colours of the characters."""
    return set(_COLOR.findall(svg))


def same(svg: str, file: Path) -> None:
    """Fail where the picture's text is not that of the file."""
    text = text_of(svg)
    if os.environ.get("TOPOD_UPDATE_SNAPSHOTS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.exists(), f"{file} is missing: TOPOD_UPDATE_SNAPSHOTS=1 writes it"
    assert text == file.read_text(encoding="utf-8"), f"the screen is not as in {file}; see tests/snapshots.py"
