"""The documentation says what the code does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "fixtures").glob("*.md")])


def test_the_state_diagram_is_the_one_of_the_code() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/generate_states.py"), "--check"], cwd=ROOT, check=False
    )
    assert done.returncode == 0, "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_module_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for name in re.findall(r"`((?:topod|cli|tui|fixtures|tests)/[\w./]*)`", text):
        assert (ROOT / name).exists(), name
