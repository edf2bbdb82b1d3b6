"""The frame of topoctl: errors in one line, exit statuses, global options, what is loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.topoctl.views import job
from topoctl import exit_codes
from topoctl.lazy import COMMANDS, build
from topoctl.main import run
from topoctl.waiting import exit_status
from topod import __version__
from topod.errors import TopodError
from topod.model.job import JobSpec, OnPreempt

ROOT = Path(__file__).resolve().parents[3]
HEAVY = (
    "docker",
    "numpy",
    "psutil",
    "pydantic",
    "pynvml",
    "requests",
    "rich",
    "sqlite3",
    "textual",
    "tomllib",
    "yaml",
)


def _errors() -> dict[str, type[TopodError]]:
    found, todo = {}, [TopodError]
    while todo:
        for kind in todo.pop().__subclasses__():
            found[kind.__name__] = kind
            todo.append(kind)
    return found


@pytest.mark.parametrize(
    ("arguments", "status", "error", "hint"),
    [
        (["pss"], 2, "no such command: 'pss'", "did you mean `topoctl ps`?"),
        (["xyzzy"], 2, "no such command: 'xyzzy'", "topoctl --help"),
        (["ps", "--stat", "x"], 2, "no such option: --stat", "topoctl ps --help"),
        (["ps", "--state", "asleep"], 2, "--state: not a state: 'asleep'", "states are"),
        (["show"], 2, "missing argument 'ID...'", "topoctl show --help"),
        (["drain"], 2, "missing option '--reason'", "topoctl drain --help"),
        (["submit"], 2, "nothing to run", "topoctl submit --gpus 1"),
        (["submit", "-f", "/none.yaml"], 4, "no such job file: /none.yaml", ""),
        (["priority", "1", "hihg"], 2, "PRIO: must be low, normal, high", ""),
        (["plan", "--batch", "x", "--gpus", "2"], 2, "--batch takes no --gpus", ""),
        (
            ["plan", "--host", "dgx-1", "--gpus", "2"],
            4,
            "no emulated host and no file is called 'dgx-1'",
            "dgx1",
        ),
        (["submit", "--", "echo", "\udcff"], 2, "COMMAND: not UTF-8 text: '\\udcff'", ""),
        (["submit", "-e", "A=\udcff", "--", "x"], 2, "--env: not UTF-8 text: 'A=\\udcff'", ""),
        (["submit", "-l", "\udcff=1", "--", "x"], 2, "--label: not UTF-8 text", ""),
        (["submit", "-v", "/\udcff:/d", "--", "x"], 2, "--volume: not UTF-8 text", ""),
        (["ps", "-u", "\udcff"], 2, "topod reads UTF-8 text only: '\\udcff'", ""),
        (
            ["submit", "--restart", "always", "--", "x"],
            2,
            "--restart: 'always' is refused, since exit code 0 says that a job is done",
            "",
        ),
        (["submit", "--cpus", "9" * 26, "--", "x"], 2, "--cpus: too large: '999", ""),
        (
            ["submit", "--restart", "on-failure:1", "--max-restarts", "5", "--", "x"],
            2,
            "--max-restarts: contradicts restart on-failure:1: 5",
            "",
        ),
        (["topo", "--from", "x", "--host", "dgx1"], 2, "--from and --host cannot be combined", ""),
        (
            ["--socket", "/none/t.sock", "ps"],
            69,
            "no topod listens at /none/t.sock",
            "start one with `topod`",
        ),
        (
            ["ps", "--socket", "/none/t.sock"],
            69,
            "no topod listens at /none/t.sock",
            "start one with `topod`",
        ),
    ],
)
def test_every_error_is_one_line_then_a_hint(
    arguments: list[str], status: int, error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {error}")
    lines = err.splitlines()
    assert len(lines) == (3 if hint else 1) or not hint
    if hint:
        assert lines[1] == ""
        assert lines[2].startswith("hint: ")
        assert hint in lines[2]


def test_a_bug_is_told_in_one_line_and_shown_whole_only_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by\nzero")

    monkeypatch.setattr("topoctl.commands.ps.connect", broken)
    assert run(["ps"]) == 1
    assert capsys.readouterr().err == (
        "error: internal: ZeroDivisionError: division by zero\n"
        "\nhint: this is a bug in topoctl; TOPOCTL_DEBUG=1 shows where\n"
    )
    monkeypatch.setenv("TOPOCTL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(["ps"])


def test_ctrl_c_ends_with_130_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("topoctl.commands.ps.connect", interrupted)
    assert run(["ps"]) == 130
    assert capsys.readouterr() == ("", "")


def test_the_version_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"topoctl {__version__}\n"


def test_topoctl_alone_prints_its_help_with_a_whole_line_for_each_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run([]) == 0
    out = capsys.readouterr().out
    assert "..." not in out.replace("[ARGS]...", "")
    for name in COMMANDS:
        assert f"\n  {name} " in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_a_summary_and_examples_in_80_columns(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: topoctl {name} ")
    examples = out.split("Examples:\n")[1]
    assert f"topoctl {name}" in examples
    assert max(map(len, out.splitlines())) <= 80
    assert all(param.help for param in build(name, COMMANDS[name]).params if hasattr(param, "help"))


def test_every_exit_status_of_an_error_is_documented() -> None:
    assert {kind.exit_status for kind in _errors().values()} <= set(exit_codes.MEANINGS)
    constants = {
        value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)
    }
    assert constants == set(exit_codes.MEANINGS)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"state": "succeeded", "exit_code": 0}, 0),
        ({"state": "failed", "exit_code": 3}, 3),
        ({"state": "failed", "exit_code": 137}, 137),
        ({"state": "failed", "exit_code": 0}, 1),
        ({"state": "failed", "exit_code": None}, 1),
        ({"state": "lost", "exit_code": None}, 1),
        ({"state": "cancelled", "exit_code": 143}, 1),
        ({"state": "cancelled", "exit_code": 0, "preemptions": 1}, 75),
    ],
)
def test_waiting_ends_with_the_jobs_own_exit_code(fields: dict[str, Any], status: int) -> None:
    spec = JobSpec(name="x", command=("x",), on_preempt=OnPreempt.CANCEL)
    assert exit_status(job(1, spec=spec, **fields)) == status


def test_a_requeued_job_that_a_user_cancels_was_not_preempted_for_good() -> None:
    assert exit_status(job(1, state="cancelled", exit_code=143, preemptions=2)) == 1


@pytest.mark.parametrize(
    "arguments", [["ps"], ["submit", "--", "x"], ["wait", "1"], ["logs", "1"], ["events"]]
)
def test_a_command_that_asks_topod_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    program = (
        "import json, sys; from topoctl.main import run; "
        f"status = run({arguments!r}); "
        f"print(json.dumps([status, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    environ = {**os.environ, "TOPOD_SOCKET": str(tmp_path / "none.sock")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, check=True, cwd=ROOT
    )
    assert json.loads(done.stdout) == [69, []]


def test_importing_the_frame_imports_no_command() -> None:
    program = (
        "import sys, topoctl.main; print(sorted(n for n in sys.modules if n.startswith('topoctl.commands.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT)
    assert done.stdout == b"[]\n"


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m topoctl topo --host dgx1 -o json | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True, cwd=ROOT)
    assert done.stderr == b""
    assert done.stdout in {b"{141\n", b"{0\n"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_names_what_topoctl_answers_to(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["completion", shell]) == 0
    assert f"_TOPOCTL_COMPLETE=complete_{shell}" in capsys.readouterr().out


def test_bash_completes_commands_and_options() -> None:
    def complete(words: str, index: int) -> list[str]:
        environ = {
            **os.environ,
            "_TOPOCTL_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(index),
        }
        command = [sys.executable, "-m", "topoctl"]
        done = subprocess.run(command, env=environ, capture_output=True, check=True, cwd=ROOT)
        return done.stdout.decode().split()

    assert complete("topoctl p", 1) == ["plan", "ps", "priority"]
    assert complete("topoctl submit --max", 2) == ["--max-runtime", "--max-restarts"]


def test_planning_on_a_library_host_tells_by_its_status_what_would_happen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "--host", "dgx1", "--gpus", "4", "--affinity", "nvlink", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["gpus"] == [0, 1, 2, 3]
    run(["topo", "--host", "dgx1", "-o", "json"])
    document = json.loads(capsys.readouterr().out)
    document["occupancy"] = {
        "jobs": [{"id": "9", "priority": 100, "gpus": [0, 1, 2, 3, 4, 5], "preemptible": True}]
    }
    (tmp_path / "host.json").write_text(json.dumps(document))
    host = ["--host", str(tmp_path / "host.json"), "--gpus", "4"]
    assert run(["plan", *host, "--priority", "high"]) == 10
    assert "stops       job 9 (low)" in capsys.readouterr().out
    assert run(["plan", *host, "--priority", "low"]) == 11
    assert capsys.readouterr().out.startswith("would wait\n  because     ")


def _shell(script: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `t` is topoctl."""
    command = ["bash", "-c", f't() {{ "{sys.executable}" -m topoctl "$@"; }}; {script}']
    return subprocess.run(command, capture_output=True, check=False, cwd=ROOT, text=True)


@pytest.mark.parametrize(
    "words", ["topo --host dgx1", "topo --host dgx1 -o json", "plan --batch QUESTIONS", "--help", "ps --help"]
)
def test_a_reader_that_goes_away_gives_141(words: str, tmp_path: Path) -> None:
    question = {
        "id": 1,
        "host": str(ROOT / "fixtures/hosts/dgx1.json"),
        "request": {"gpus": 1, "priority": 1},
    }
    (tmp_path / "q").write_text(json.dumps(question) + "\n")
    words = words.replace("QUESTIONS", str(tmp_path / "q"))
    # The pipe has no reader from the start: the status does not depend on who is quicker.
    command = [sys.executable, "-m", "topoctl", *words.split()]
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, check=False, cwd=ROOT)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("words", ["topo --host dgx1", "plan --batch -", "--help"])
def test_a_full_disk_is_told_as_such(words: str) -> None:
    question = {"id": 1, "host": "fixtures/hosts/dgx1.json", "request": {"gpus": 1, "priority": 1}}
    done = _shell(f"echo '{json.dumps(question)}' | t {words} >/dev/full")
    assert (done.returncode, done.stderr) == (
        74,
        "error: the output cannot be written: No space left on device\n",
    )


def test_a_closed_stdout_is_refused_before_anything_is_done() -> None:
    done = _shell("t submit --gpus 1 -- true >&-")
    assert done.returncode == 74
    assert done.stderr.splitlines() == [
        "error: stdout is closed",
        "",
        "hint: to throw the output away: >/dev/null",
    ]


def test_closed_stdin_and_stderr_are_no_bug() -> None:
    assert _shell("t submit -f - <&-").stderr.startswith("error: stdin: not a job file")
    assert _shell("t ps --socket /none/t.sock 2>&-").returncode == 69
    assert _shell("t ps <&- >&- 2>&-").returncode == 74


@pytest.mark.parametrize("module", ["signal", "typer", "topod.errors"])
def test_ctrl_c_during_the_imports_ends_with_130_and_says_nothing(module: str) -> None:
    # The interrupt comes while `module` is being looked for, as if typed at that very moment.
    program = f"""
import os, sys

class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), 2)

for name in [name for name in sys.modules if name == "signal"]:
    del sys.modules[name]
sys.meta_path.insert(0, Interrupted())
from topoctl.start import main
sys.argv = ["topoctl", "--version"]
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_background_job_that_ignores_interrupts_goes_on_ignoring_them() -> None:
    program = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "from topoctl.start import main; sys.argv = ['topoctl', '--version']; os.kill(os.getpid(), 2); main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, f"topoctl {__version__}\n".encode())


@pytest.mark.parametrize(
    "words",
    [
        ["--host", "rtx4090x8", "--gpus", "4", "--affinity", "nvlink"],
        ["--host", "dgx1", "--gpus", "1", "--cpus", "10000000"],
        ["--host", "dgx1", "--gpus", "9"],
    ],
)
def test_what_an_empty_host_refuses_too_can_never_run(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", *words]) == 1
    assert capsys.readouterr().out.startswith("can never run here\n  because     ")
    assert run(["plan", *words, "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["never"] is True
