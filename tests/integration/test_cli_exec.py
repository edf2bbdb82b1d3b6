"""`topoctl exec`: a command beside a job, against a real topod, without and with a container engine."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.engine import PrivateEngine
from tests.integration.daemon_process import ROOT, Topod
from tests.integration.test_cli import Cli
from topod.protocol.views import JobView

SECONDS = 60


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def topod(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Topod]:
    if request.param == "docker":
        engine: PrivateEngine = request.getfixturevalue("engine")
        made = Topod(tmp_path, runtime="docker", engine=engine.base_url)
    else:
        made = Topod(tmp_path)
    with made as running:
        yield running.start()


@pytest.fixture
def cli(topod: Topod) -> Iterator[Cli]:
    with Cli(topod) as cli:
        yield cli


def sleeper(topod: Topod, **fields: object) -> JobView:
    image = "bb:latest" if topod.runtime == "docker" else None
    job = topod.submit("sh", "-c", "exec sleep 1000", image=image, **fields)  # type: ignore[arg-type]  # fields by name
    return topod.wait(job.id, "running")


def test_streams_and_exit_code_are_the_commands_own(cli: Cli, topod: Topod) -> None:
    sleeper(topod)
    done = cli.run("exec", "1", "--", "sh", "-c", "echo out; echo err >&2; exit 7", status=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_a_long_output_comes_whole(cli: Cli, topod: Topod) -> None:
    sleeper(topod)
    out = cli.out("exec", "1", "seq", "100000")
    assert out.splitlines() == [str(number) for number in range(1, 100001)]


def test_the_command_sees_what_the_job_sees(cli: Cli, topod: Topod, tmp_path: Path) -> None:
    sleeper(topod, env={"LR": "0.1"}, workdir="/tmp", gpus=2)
    script = "pwd; echo $LR $TOPOD_GPU_INDICES; kill -0 $TOPOD_JOB_PID && echo there"
    assert cli.out("exec", "1", "sh", "-c", script).splitlines() == ["/tmp", "0.1 0,3", "there"]


def test_input_is_passed_on_with_its_end(cli: Cli, topod: Topod) -> None:
    sleeper(topod)
    text = "".join(f"line {number}\n" for number in range(20000))
    assert cli.run("exec", "-i", "1", "cat", stdin=text).stdout == text
    assert cli.run("exec", "1", "-i", "--", "wc", "-l", stdin=text).stdout.strip() == "20000"
    assert cli.run("exec", "1", "cat", stdin=text).stdout == ""


def test_what_cannot_be_run_is_told_as_a_shell_does(cli: Cli, topod: Topod) -> None:
    sleeper(topod)
    done = cli.run("exec", "1", "no-such-program", status=127 if topod.runtime == "process" else 126)
    assert "no-such-program" in done.stdout + done.stderr


def test_what_cannot_be_meant_is_refused(cli: Cli, topod: Topod) -> None:
    job = topod.submit("true", image="bb:latest" if topod.runtime == "docker" else None)
    topod.wait(job.id)
    assert cli.error("exec", "1", "true", status=5) == "error: job 1 (t) does not run: its state is succeeded"
    assert cli.error("exec", "9", "true", status=4) == "error: no job 9"
    assert "no terminal" in cli.error("exec", "-it", "1", "sh", status=2)
    assert "no terminal" in cli.error("exec", "1", "-it", "sh", status=2)
    assert "nothing to run" in cli.error("exec", "1", "--", status=2)


def test_an_interrupt_ends_the_command_and_not_the_job(cli: Cli, topod: Topod) -> None:
    job = sleeper(topod)
    running = cli.start("exec", "1", "--", "sh", "-c", "echo pid $$; exec sleep 1001")
    assert running.stdout is not None
    assert running.stdout.readline().startswith("pid ")
    topod.until(lambda: bool(sleepers("1001")))
    running.send_signal(signal.SIGINT)
    assert running.wait(SECONDS) == 130
    running.communicate()
    topod.until(lambda: not sleepers("1001"))
    assert topod.job(job.id).state == "running"


def test_the_command_ends_with_the_job(cli: Cli, topod: Topod) -> None:
    job = sleeper(topod)
    running = cli.start("exec", "1", "--", "sh", "-c", "trap '' TERM; echo ready; sleep 1002; sleep 1002")
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    cli.out("cancel", "1")
    assert topod.wait(job.id).state == "cancelled"
    out, _ = running.communicate(timeout=SECONDS)
    assert out == ""
    assert running.returncode in (125, 137)
    topod.until(lambda: not sleepers("1002"))


def test_a_topod_that_ends_tells_the_client(cli: Cli, topod: Topod) -> None:
    job = sleeper(topod)
    running = cli.start("exec", "1", "--", "sh", "-c", "echo ready; exec sleep 1003")
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    topod.kill()
    topod.start()
    _, err = running.communicate(timeout=SECONDS)
    assert running.returncode == 69
    assert "Traceback" not in err
    assert topod.job(job.id).state == "running"
    if topod.runtime == "process":
        topod.until(lambda: not sleepers("1003"))


def test_exec_by_python_m_is_the_same(cli: Cli, topod: Topod) -> None:
    sleeper(topod)
    command = [sys.executable, "-m", "topoctl", "exec", "latest", "echo", "hi"]
    done = subprocess.run(command, env=cli.environ, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "hi\n"


def sleepers(seconds: str) -> list[int]:
    """Return the processes that run `sleep` for so long."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline() == ["sleep", seconds]:
                found.append(process.pid)
    return found
