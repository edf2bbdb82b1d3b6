"""Every command of every page is typed, by this test or by another one that is named, or the page says why not."""

import ast
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.page import consoles, lost_marks, setting, unlike
from tests.documents.typist import Typist
from tests.engine import skip_or_fail

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "fixtures").glob("*.md")]
    if "```console" in page.read_text()
)


def test_what_a_page_shows_is_compared_line_by_line() -> None:
    told = ["job 1  running", "  took 12 ms", "  gpus 0-3", "  end"]
    assert unlike(["job 1 running", "  took 7 ms"], told) is None
    assert unlike(["job 1 running", "...", "end"], told) is None
    assert unlike(["job 1 …"], told) is None
    assert unlike(["job 1 running", "gpus 0-3"], told) == "gpus 0-3"
    assert unlike(["gpus 0-2"], told) == "gpus 0-2"
    assert unlike(["end", "gpus 0-3"], told) == "gpus 0-3"


def exists(test: str) -> bool:
    file, _, name = test.partition("::")
    path = ROOT / "tests" / file
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    return name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's own folder: the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.mark.parametrize("name", PAGES)
def test_what_the_page_types_does_what_it_says(name: str, folder: Path) -> None:
    page = (ROOT / name).read_text()
    assert not lost_marks(page), "a comment that belongs to no console"
    whole = setting(page, "page run by")
    if whole is not None:
        assert exists(whole), whole
        return
    needs = setting(page, "needs")
    if needs is not None and shutil.which(needs) is None:
        skip_or_fail(f"{needs} is not installed")
    typist = Typist(folder, setting(page, "host") or "dgx1", fleet=setting(page, "fleet") is not None)
    try:
        for console in consoles(page):
            assert console.commands, f"line {console.line}: a console without a prompt"
            match console.mark:
                case "not run":
                    assert len(console.text) > 10, f"line {console.line}: why not?"
                    continue
                case "run by":
                    assert exists(console.text), f"line {console.line}: {console.text}"
                    continue
                case "first":
                    told, status = typist.run(console.text)
                    assert status == 0, f"line {console.line}: {told}"
                case _:
                    pass
            for command in console.commands:
                typist.type(command)
    finally:
        typist.close()
