"""The size of things: a module fits in one head, a function on one screen."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULE_LINES = 400
FUNCTION_LINES = 60
SOURCES = sorted(
    path
    for folder in ("topod", "cli", "tui", "demo", "debian", "bench", "fixtures")
    for path in (ROOT / folder).rglob("*.py")
)
FORBIDDEN = (".venv/", "/work/", "/root/")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    return [ROOT / name for name in listing if (ROOT / name).is_file()]


def test_no_path_of_one_machine_is_written_down() -> None:
    here = Path(__file__)
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in tracked_files()
        if path != here and path.suffix in {".py", ".md", ".toml", ".json", ".sql"}
        for word in FORBIDDEN[1:]
        if word in path.read_text(errors="replace")
    ]
    assert not found
