"""What is in force, where it came from, and what waits."""

import asyncio
from pathlib import Path

import pytest

from topoctl.main import run
from topod.protocol.replies import ConfigRow, Configuration
from topod.shell.config_reading import load_config
from topod.shell.config_rows import HIDDEN, rows_of
from topod.shell.configured import Configured
from topod.shell.options import COORDINATOR, HOST, Program, read_given

FILE = """\
[logs]
keep_days = 3
max_bytes = "50M"
[metrics]
listen = "1"
[coordinator]
listen = "tcp://a:1"
state_dir = "/of/the/file"
[security.max_priority]
"*" = "normal"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "topod.toml"
    path.write_text(FILE)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.toml").write_text(
        "logs.keep_days = 4\n[security.max_priority]\nchief = 900\n[[quota]]\nuser = 'u'\ngpus = 1\n"
    )
    return path


def rows(program: Program, path: Path, words: list[str], environ: dict[str, str]) -> dict[str, ConfigRow]:
    return rows_of(load_config(path), read_given(program, words, environ))


def test_an_option_wins_over_its_variable_that_over_the_folder_over_the_file_over_the_default(
    path: Path,
) -> None:
    folder = path.parent / "conf.d" / "a.toml"
    found = rows(HOST, path, ["--runtime", "docker"], {"TOPOD_RUNTIME": "process", "TOPOD_METRICS": "2"})
    said = {key: (row.text, row.origin) for key, row in found.items()}
    assert said["--runtime"] == ('"docker"', "--runtime")
    assert said["--rediscover"] == ("false", "default")
    assert said["metrics.listen"] == ('"2"', "$TOPOD_METRICS")
    assert said["logs.keep_days"] == ("4", f"{folder}:1")
    assert said["logs.max_bytes"] == ('"50M"', f"{path}:3")
    assert said["logs.keep_bytes"] == ('"10G"', "default")
    assert said["fairness.hold_after"] == ('"1h"', "default")
    assert said["quota 1"] == ('{ gpus = 1, user = "u" }', f"{folder}:4")
    assert said["security.max_priority"] == ('{ "*" = 500, chief = 900 }', f"{path}:10, {folder}:3")
    assert found["logs.max_bytes"].value == 50 << 20
    assert not [key for key in said if key.startswith(("coordinator.", "store.", "--metrics", "--crash"))]


def test_a_coordinator_has_options_for_keys_of_its_section(path: Path) -> None:
    found = rows(COORDINATOR, path, ["--listen", "tcp://b:2"], {"XDG_STATE_HOME": "/home", "HOME": "/h"})
    said = {key: (row.value, row.origin) for key, row in found.items()}
    assert said["coordinator.listen"] == ("tcp://b:2", "--listen")
    assert said["coordinator.state_dir"] == ("/of/the/file", f"{path}:8")
    assert str(said["coordinator.socket"][0]).endswith("coordinator.sock")
    assert said["coordinator.socket"][1] == "default"
    assert not [key for key in said if key.startswith(("logs.", "fleet.", "security.jobs", "--listen"))]


def test_a_password_and_a_key_that_does_not_belong_there_are_hidden(path: Path) -> None:
    path.write_text(FILE + '[fleet]\nlabels = { zone = "topod-secret:abc" }\n')
    found = rows(HOST, path, [], {"TOPOD_ENGINE": "tcp://me:word@h:1"})
    assert found["--engine"].value == HIDDEN
    assert found["fleet.labels"].text == f'{{ zone = "{HIDDEN}" }}'


def test_a_running_daemon_tells_what_waits_for_a_reload_and_for_a_restart(path: Path) -> None:
    given = read_given(HOST, ["--metrics", "2"], {})
    configured = Configured(path, load_config(path), given)

    def told() -> tuple[Configuration, dict[str, tuple[str, str, str]]]:
        found = asyncio.run(configured.told())
        waiting = {row.key: (row.text, row.waits, row.coming_text) for row in found.rows if row.waits}
        return found, waiting

    assert told()[1] == {}
    path.write_text(FILE.replace("50M", "60M").replace('"1"', '"3"'))
    (path.parent / "conf.d" / "a.toml").unlink()
    (path.parent / "conf.d" / "b.toml").write_text("logs.keep_days = 5\n[security.jobs]\n")
    found, waiting = told()
    assert found.files == [str(path), f"{path.parent}/conf.d/b.toml"]
    assert waiting["logs.keep_days"] == ("4", "reload", "5")
    assert waiting["quota 1"] == ('{ gpus = 1, user = "u" }', "reload", "-")
    assert waiting["logs.max_bytes"] == ('"50M"', "restart", '"60M"')
    assert waiting["security.jobs.images"] == ("-", "restart", '["*"]')
    assert "metrics.listen" not in waiting

    configured.took(load_config(path))
    found, waiting = told()
    assert "logs.keep_days" not in waiting
    assert "quota 1" not in waiting
    assert waiting["logs.max_bytes"] == ('"50M"', "restart", '"60M"')
    values = {row.key: (row.value, row.origin) for row in found.rows}
    assert values["logs.keep_days"] == (5, f"{path.parent}/conf.d/b.toml:1")

    path.write_text("x = 1\n")
    found, waiting = told()
    assert found.mistakes == [f"{path}:1: unknown key 'x'; known: {', '.join(known())}"]
    assert (found.running, waiting) == (True, {})


def known() -> list[str]:
    from topod.shell.config_file import ConfigFile  # noqa: PLC0415 - for one word of one test

    return list(ConfigFile.__struct_fields__)


def test_topoctl_finds_every_mistake_and_shows_a_file_without_a_daemon(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["config", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}, {path.parent}/conf.d/a.toml: no mistake\n"
    assert run(["config", "show", "--coordinator-file", str(path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["KEY", "VALUE", "FROM"]
    assert ["coordinator.listen", '"tcp://a:1"', f"{path}:7"] in [line.split() for line in out]
    (path.parent / "conf.d" / "a.toml").unlink()
    path.write_text("[logs]\nkeep_day = 1\nkeep_bytes = -1\n[security]\nsocket_mode = 'topod-secret:abc'\n")
    assert run(["config", "check", str(path)]) == 65
    done = capsys.readouterr()
    assert done.out == ""
    assert done.err.splitlines() == [
        f"error: {path}:2: unknown key 'keep_day' in [logs]; did you mean 'keep_days'?",
        f"error: {path}:3: logs.keep_bytes: not a size: '-1' (write 512m, 8G or a number of bytes)",
        f"error: {path}:5: security.socket_mode: written \"0660\", not 'topod-secret:...'",
    ]
    assert run(["config", "check", str(path.with_name("none.toml"))]) == 4
    assert run(["config", "show", "--file", str(path), "--coordinator-file", str(path)]) == 2
