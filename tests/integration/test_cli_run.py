"""`topoctl run`: a job with a terminal attached, against a real topod with the process runtime."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon_process import Topod, topod_in
from tests.integration.test_cli import Cli

SECONDS = 60


@pytest.fixture
def topod(tmp_path: Path) -> Iterator[Topod]:
    yield from topod_in(tmp_path)


@pytest.fixture
def cli(topod: Topod) -> Iterator[Cli]:
    with Cli(topod) as cli:
        yield cli


def started(running: "subprocess.Popen[str]") -> None:
    """Return when the job has printed its first line."""
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"


def ended(running: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = running.communicate(timeout=SECONDS)
    assert "Traceback" not in err
    return running.returncode, out, err


def test_output_comes_on_stdout_and_the_exit_code_is_the_jobs(cli: Cli) -> None:
    done = cli.run("run", "--gpus", "2", "--", "sh", "-c", "echo out; echo err >&2; exit 3", status=3)
    assert done.stdout == "out\nerr\n"
    assert "job 1 (sh) runs on GPUs" in done.stderr
    assert done.stderr.endswith("job 1 (sh) failed: exit code 3\n")


def test_quiet_leaves_only_the_output(cli: Cli) -> None:
    done = cli.run("run", "-q", "--", "printf", "no newline")
    assert (done.stdout, done.stderr) == ("no newline", "")


def test_a_long_output_comes_whole(cli: Cli) -> None:
    done = cli.run("run", "-q", "--", "seq", "400000")
    assert done.stdout.splitlines() == [str(number) for number in range(1, 400001)]


@pytest.mark.parametrize(
    ("command", "status"),
    [(["/no/such/program"], 127), (["/etc/passwd"], 126), (["sh", "-c", "kill -9 $$"], 137)],
)
def test_what_cannot_run_ends_as_with_docker(cli: Cli, command: list[str], status: int) -> None:
    cli.run("run", "--", *command, status=status)


def test_a_topod_that_is_not_there_is_told_at_once(cli: Cli, topod: Topod) -> None:
    topod.stop()
    assert cli.run("run", "--", "true", status=69).stderr.startswith("error: no topod listens")
    topod.start()


def test_one_interrupt_cancels_the_job_and_waits_for_its_last_words(cli: Cli, topod: Topod) -> None:
    script = "trap 'echo saved; exit 0' TERM; echo ready; exec 2>/dev/null; while :; do sleep 0.05; done"
    running = cli.start("run", "--", "sh", "-c", script)
    started(running)
    running.send_signal(signal.SIGINT)
    status, out, err = ended(running)
    assert (status, out) == (130, "saved\n")
    assert "stopping job 1" in err
    assert topod.job(1).state == "cancelled"


def test_an_interrupt_while_it_waits_in_the_queue_cancels_it(cli: Cli, topod: Topod) -> None:
    topod.submit("sleep", "100", gpus=8)
    running = cli.start("run", "--gpus", "1", "--", "true")
    assert running.stderr is not None
    until_line(running, "pending")
    running.send_signal(signal.SIGTERM)
    assert ended(running)[0] == 143
    assert topod.job(2).state == "cancelled"


def until_line(running: "subprocess.Popen[str]", text: str) -> str:
    assert running.stderr is not None
    while text not in (line := running.stderr.readline()):
        assert line, f"it ended without saying {text!r}"
    return line


def test_a_second_interrupt_leaves_the_job_alone(cli: Cli, topod: Topod) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    running = cli.start("run", "--grace", "60s", "--", "sh", "-c", script)
    started(running)
    running.send_signal(signal.SIGINT)
    until_line(running, "stopping job 1")
    topod.wait(1, "stopping")
    running.send_signal(signal.SIGINT)
    status, _, err = ended(running)
    assert status == 130
    assert "to go on: topoctl logs -f 1" in err
    assert topod.job(1).state == "stopping"
    kill_job(topod, 1)


def kill_job(topod: Topod, ident: int) -> None:
    """End a job that ignores SIGTERM."""
    started = json.loads((topod.state_dir / f"process/{ident}.1/started.json").read_text())
    os.kill(started["pid"], signal.SIGKILL)
    topod.wait(ident)


def test_a_preempted_job_stays_attached_until_its_second_run(cli: Cli, topod: Topod) -> None:
    script = "echo ready; test $TOPOD_ATTEMPT -gt 1 && exit 5; exec sleep 100"
    running = cli.start("run", "--gpus", "8", "--priority", "low", "--", "sh", "-c", script)
    started(running)
    winner = topod.submit("true", gpus=8, priority=1000)
    status, out, err = ended(running)
    assert (status, out) == (5, "ready\n")
    assert f"told to stop: preempted by job {winner.id}" in err
    assert topod.job(1).preemptions == 1


def test_preempted_for_good_gives_75(cli: Cli, topod: Topod) -> None:
    running = cli.start(
        "run",
        "--gpus",
        "8",
        "--priority",
        "low",
        "--no-requeue",
        "--",
        "sh",
        "-c",
        "echo ready; exec sleep 100",
    )
    started(running)
    topod.submit("true", gpus=8, priority=1000)
    assert ended(running)[0] == 75


def test_it_stays_attached_while_topod_is_killed_and_started_again(
    cli: Cli, topod: Topod, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    running = cli.start(
        "run", "--", "sh", "-c", f"echo ready; while ! test -e {go}; do sleep 0.05; done; echo more; exit 4"
    )
    started(running)
    topod.kill()
    until_line(running, "waiting for it to come back")
    topod.start()
    go.touch()
    status, out, _ = ended(running)
    assert (status, out) == (4, "more\n")


def test_a_reader_that_goes_away_leaves_the_job_alone(cli: Cli, topod: Topod) -> None:
    running = cli.start("run", "--", "sh", "-c", "while echo ready; do sleep 0.05; done")
    started(running)
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    said = running.stderr.read()
    assert running.wait(SECONDS) == 141
    assert "job 1 goes on" in said
    assert topod.job(1).state == "running"
    running.stderr.close()
