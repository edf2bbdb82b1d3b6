"""`topoctl keys`, as somebody who sets up a fleet uses it."""

import json
from pathlib import Path

import pytest

from topoctl.lazy import GROUPS
from topoctl.main import run


def test_a_host_and_a_user_are_let_in_and_out_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = str(tmp_path / "authorized_keys")
    assert run(["keys", "new", "node-a", "--host", "--out", str(tmp_path / "a.key")]) == 0
    (tmp_path / "a.pub").write_text(capsys.readouterr().out)
    assert run(["keys", "new", "alice", "--out", str(tmp_path / "alice.key")]) == 0
    capsys.readouterr()
    assert run(["keys", "show", str(tmp_path / "alice.key")]) == 0
    (tmp_path / "alice.pub").write_text(capsys.readouterr().out)
    assert "topod-secret" not in (tmp_path / "alice.pub").read_text()
    assert run(["keys", "authorize", str(tmp_path / "a.pub"), "--as", "host:node-a", "--in", keys]) == 0
    words = ["--as", "user:alice", "--roles", "submit", "--max-priority", "normal", "--comment", "vision"]
    assert run(["keys", "authorize", str(tmp_path / "alice.pub"), *words, "--in", keys]) == 0
    assert capsys.readouterr().err == "host:node-a may connect\nuser:alice may connect\n"
    assert run(["keys", "list", "--in", keys, "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["who"], one["roles"], one["max_priority"]) for one in found] == [
        ("host:node-a", [], None),
        ("user:alice", ["submit", "view"], 500),
    ]
    assert run(["keys", "list", "--in", keys]) == 0
    assert "view,submit" in capsys.readouterr().out
    assert run(["keys", "revoke", "user:alice", "--in", keys]) == 0
    capsys.readouterr()
    assert run(["keys", "list", "--in", keys, "-o", "name"]) == 0
    assert capsys.readouterr().out == "host:node-a\n"


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["new", "a/b", "--out", "{tmp}/k"], 2, "not a name"),
        (["new", "a", "--host", "--user", "--out", "{tmp}/k"], 2, "a key is for one of"),
        (["new", "a", "--out", "{tmp}/a.key"], 5, "never overwritten"),
        (["show", "{tmp}/none"], 4, "no such key file"),
        (["authorize", "{tmp}/a.key", "--as", "a", "--in", "{tmp}/l"], 2, "host:NAME or user:NAME"),
        (["authorize", "{tmp}/a.key", "--as", "user:a", "--in", "{tmp}/l"], 2, "--roles: a user needs some"),
        (
            ["authorize", "{tmp}/a.key", "--as", "host:a", "--in", "{tmp}/l"],
            2,
            "is the key of user a, not of host:a",
        ),
        (
            ["authorize", "{tmp}/a.key", "--as", "host:a", "--roles", "view", "--in", "{tmp}/l"],
            2,
            "are for users",
        ),
        (["revoke", "host:a", "--in", "{tmp}/none"], 4, "no key of host:a"),
        (["list", "--in", "{tmp}/none"], 4, "no such file of authorised keys"),
        (["lisst", "--in", "x"], 2, "no such command: 'lisst'"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, words: list[str], status: int, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", "new", "a", "--out", str(tmp_path / "a.key")]) == 0
    capsys.readouterr()
    assert run(["keys", *[word.format(tmp=tmp_path) for word in words]]) == status
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert error in told.splitlines()[0]


@pytest.mark.parametrize("name", GROUPS["keys"])
def test_every_command_of_keys_has_help_with_examples_in_80_columns(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"topoctl keys {name}" in out.split("Examples:\n")[1]
    assert max(map(len, out.splitlines())) <= 80
