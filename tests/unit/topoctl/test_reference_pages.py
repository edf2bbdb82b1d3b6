"""The reference pages say what the code does."""

import importlib.util
import re
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from topoctl.doctor.check import Check
from topod.model.job import JobSpec
from topod.protocol.jobfile import FIELDS, Origin, build_spec, parse_job_text
from topod.protocol.replies import Planned
from topod.protocol.views import EventView, JobView

DOCS = Path(__file__).resolve().parents[3] / "docs"
PLURALS = {
    "secret": "secrets",
    "volume": "volumes",
    "label": "labels",
    "ulimit": "ulimits",
    "device": "devices",
}


def _generator(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands, messages = _generator("generate_cli"), _generator("generate_messages")
    pages = {
        "cli.md": commands.cli_page(),
        "exit-codes.md": commands.exit_codes_page(),
        "messages.md": messages.messages_page(),
        "errors.md": messages.errors_page(),
    }
    for name, text in pages.items():
        written = (DOCS / "reference" / name).read_text(encoding="utf-8")
        assert written == text, f"run `make docs`: docs/reference/{name} is old"


@pytest.mark.parametrize("kind", [JobView, EventView, Planned, Check])
def test_every_json_field_is_documented(kind: type[msgspec.Struct]) -> None:
    page = (DOCS / "reference" / "json-output.md").read_text(encoding="utf-8")
    missing = [field for field in kind.__struct_fields__ if f"`{field}`" not in page]
    assert missing == []


def test_every_field_of_a_job_file_is_documented_and_no_other() -> None:
    page = (DOCS / "reference" / "job-file.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`", page, flags=re.MULTILINE)
    assert sorted(rows) == sorted(PLURALS.get(name, name) for name in FIELDS)


def test_both_examples_of_a_job_file_are_the_same_valid_job() -> None:
    page = (DOCS / "reference" / "job-file.md").read_text(encoding="utf-8")
    kinds: tuple[Literal["yaml"], Literal["toml"]] = ("yaml", "toml")
    specs = []
    for kind in kinds:
        (text,) = re.findall(rf"```{kind}\n(.*?)```", page, flags=re.DOTALL)
        origin = parse_job_text(text, kind=kind, source="example", base=Path("/home/alice"))
        specs.append(build_spec(origin, Origin(base=Path("/")), environ={}))
    assert specs[0] == specs[1]
    assert isinstance(specs[0], JobSpec)
    assert specs[0].request.gpus == 4
