"""The documentation says what the code does, and its links lead somewhere."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "fixtures").glob("*.md")])
FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)


@functools.cache
def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


@functools.cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts and MyST make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", prose(page), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number = 0
        while f"{slug}-{number}" in found or (not number and slug in found):
            number += 1
        found.add(f"{slug}-{number}" if number else slug)
    return found


def test_the_state_diagram_is_the_one_of_the_code() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/generate_states.py"), "--check"], cwd=ROOT, check=False
    )
    assert done.returncode == 0, "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists(), target
        if anchor:
            assert anchor in anchors(other.resolve()), f"{target}: has no such heading"


def test_every_page_is_in_the_site_and_every_entry_of_the_site_is_a_page() -> None:
    listed = set(re.findall(r"^   ([a-z][\w/*-]*)$", (ROOT / "docs/index.rst").read_text(), re.MULTILINE))
    globbed = {
        str(page.relative_to(ROOT / "docs")) for one in listed for page in (ROOT / "docs").glob(f"{one}.md")
    }
    assert globbed == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert all(list((ROOT / "docs").glob(f"{one}.md")) for one in listed)


def test_every_module_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for name in re.findall(r"`((?:topod|cli|tui|fixtures|tests)/[\w./]*)`", text):
        assert (ROOT / name).exists(), name
