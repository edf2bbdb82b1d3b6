"""Every claim of docs/lessons.md names a test that exists, or the page that says why not."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = [
    line
    for line in (ROOT / "docs/lessons.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| the complaint", "| ---"))
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:50])
def test_a_lesson_is_shown_by_tests_that_exist_or_refused_with_a_reason(row: str) -> None:
    complaint, answer, proof = row.strip("| ").split(" | ")
    assert complaint
    assert answer
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", proof)
    assert named or "(limits.md)" in proof, proof
    for file, name in named:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{file} has no {name}"
