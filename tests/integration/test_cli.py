"""topoctl as a user runs it, against a real topod on an emulated DGX-1 with the process runtime."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.integration.daemon_process import ROOT, Topod, topod_in

SECONDS = 60
STAYS = (
    "sh",
    "-c",
    "trap 'echo bye; exit 143' TERM; echo ready; exec 2>/dev/null; while :; do sleep 0.05; done",
)


class Cli:
    """Runs topoctl in processes of its own."""

    def __init__(self, topod: Topod) -> None:
        self.topod = topod
        self._begun: list[subprocess.Popen[str]] = []
        self.environ = {name: text for name, text in os.environ.items() if not name.startswith("TOPOD_")}
        self.environ |= {"TOPOD_SOCKET": str(topod.socket), "PYTHONIOENCODING": "utf-8", "COLUMNS": "80"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command that goes on."""
        command = [sys.executable, "-m", "topoctl", *words]
        pipe = subprocess.PIPE
        begun = subprocess.Popen(command, env=self.environ, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
        self._begun.append(begun)
        return begun

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what a test that failed left running."""
        for one in self._begun:
            if one.poll() is None:
                one.kill()
                one.wait()
            for pipe in (one.stdout, one.stderr):
                if pipe is not None:
                    pipe.close()

    def run(self, *words: str, status: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must have the given status."""
        done = subprocess.run(
            [sys.executable, "-m", "topoctl", *words],
            env=self.environ,
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == status, done
        assert "Traceback" not in done.stderr
        return done

    def out(self, *words: str, status: int = 0) -> str:
        """Return what a command writes to stdout; it must write nothing to stderr."""
        done = self.run(*words, status=status)
        assert done.stderr == ""
        return done.stdout

    def json(self, *words: str, status: int = 0) -> Any:
        """Return the JSON that a command prints."""
        return json.loads(self.out(*words, "-o", "json", status=status))

    def error(self, *words: str, status: int) -> str:
        """Return the first line of stderr of a command that fails and prints nothing."""
        done = self.run(*words, status=status)
        assert done.stdout == ""
        return done.stderr.splitlines()[0]

    def submit(self, *words: str) -> str:
        """Queue a job and return its id."""
        return self.out("submit", "--parsable", *words).strip()


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    for topod in topod_in(tmp_path / "d"):
        with Cli(topod) as cli:
            yield cli


def test_a_preemption_is_planned_seen_and_told_from_submit_to_the_end(cli: Cli) -> None:
    assert cli.out("submit", "--priority", "low", "--gpus", "4", "--name", "low", "--", *STAYS) == (
        "Submitted job 1 (low)\n"
    )
    cli.submit("--priority", "low", "--gpus", "4", "--name", "other", "--", *STAYS)
    for job in (1, 2):
        cli.topod.wait(job, "running")

    wanted = ("--priority", "high", "--gpus", "2", "--affinity", "nvlink")
    dry = cli.out("submit", "--dry-run", *wanted, "--", "true")
    assert dry.startswith("would start on 2 GPUs after stopping 1 job\n")
    assert re.search(r"stops +job \d \(low\): holds GPUs ", dry)
    plan = cli.json("plan", *wanted, status=10)["plan"]
    assert len(plan["victims"]) == 1
    assert cli.json("plan", "--gpus", "1", "--priority", "low", status=11)["feasible"] is False
    assert len(cli.json("ps")) == 2

    done = cli.run("submit", "--wait", "--name", "urgent", *wanted, "--", "echo", "ran")
    assert done.stdout == "Submitted job 3 (urgent)\n"
    assert done.stderr == "job 3 (urgent) succeeded\n"
    victim = plan["victims"][0]
    cli.topod.wait(victim, "running")

    shown = cli.out("show", "3")
    assert shown.startswith("job 3 (urgent)  succeeded\n")
    assert f"job {victim} (low): holds GPUs" in shown
    record = cli.json("show", str(victim))
    assert record["job"]["preemptions"] == 1
    assert "job.preempted" in [event["name"] for event in record["events"]]
    assert cli.out("logs", "latest") == "ran\n"
    assert cli.out("logs", "--attempt", "1", str(victim)) == "ready\nbye\n"
    assert cli.json("history")[0]["id"] == 3
    assert "urgent" in cli.out("ps", "-a")
    assert "urgent" not in cli.out("ps")
    assert cli.out("ps", "-o", "name") == "1\n2\n"
    assert cli.out("cancel", "1", "2") == "Cancelling job 1 (low)\nCancelling job 2 (other)\n"
    assert cli.run("wait", "1", "2", status=1).stdout == "".join(
        f"job {job} ({name}) cancelled: {cli.topod.job(job).reason}\n"
        for job, name in ((1, "low"), (2, "other"))
    )


def test_wait_ends_with_the_exit_code_of_the_first_job_that_did_not_succeed(cli: Cli) -> None:
    good = cli.submit("--", "true")
    bad = cli.submit("--", "sh", "-c", "exit 7")
    assert cli.out("wait", good) == "job 1 (true) succeeded\n"
    assert cli.out("wait", good, bad, status=7).splitlines()[1] == "job 2 (sh) failed: exit code 7"
    assert cli.json("wait", "latest", status=7)[0]["exit_code"] == 7
    assert cli.run("submit", "--wait", "-o", "json", "--", "sh", "-c", "exit 9", status=9).stdout.startswith(
        "{"
    )


def test_a_victim_that_does_not_run_again_gives_75(cli: Cli) -> None:
    job = cli.submit("--gpus", "8", "--priority", "low", "--no-requeue", "--", *STAYS)
    cli.topod.wait(int(job), "running")
    with cli.start("wait", job) as waiting:
        cli.submit("--gpus", "8", "--priority", "high", "--", "true")
        assert waiting.wait(SECONDS) == 75


def test_logs_follow_a_job_from_before_its_start_over_a_restart_to_its_end(cli: Cli) -> None:
    first = cli.submit("--gpus", "8", "--priority", "low", "--name", "first", "--", *STAYS)
    cli.topod.wait(int(first), "running")
    second = cli.submit("--gpus", "8", "--priority", "low", "--name", "second", "--", "echo", "second runs")
    assert cli.run("logs", second).stderr.startswith(f"job {second} has not started: ")
    with cli.start("logs", "-f", first) as one, cli.start("logs", "-f", second) as two:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
        cli.submit("--gpus", "8", "--priority", "high", "--", "true")
        assert one.stdout.readline() == "bye\n"
        assert one.stdout.readline() == "ready\n"
        cli.out("cancel", first)
        out, err = one.communicate(timeout=SECONDS)
        assert out == "bye\n"
        assert err == f"job {first} started again (attempt 1 is over)\n"
        assert two.communicate(timeout=SECONDS)[0] == "second runs\n"


def test_only_the_last_lines_of_a_log_are_shown_on_demand(cli: Cli) -> None:
    job = cli.submit("--", "sh", "-c", "seq 1 20000; printf end")
    cli.run("wait", job)
    assert cli.out("logs", "-n", "3", job) == "19999\n20000\nend"
    assert cli.out("logs", "-n", "0", job) == ""
    assert len(cli.out("logs", "-n", "15000", job).splitlines()) == 15000
    assert len(cli.out("logs", job).splitlines()) == 20001


def test_events_follow_from_the_past_into_the_present_without_gap_or_repeat(cli: Cli) -> None:
    cli.run("submit", "--wait", "--", "true")
    with cli.start("events", "-f", "-o", "json") as following:
        assert following.stdout is not None
        seen = [json.loads(following.stdout.readline())]
        cli.run("submit", "--wait", "--", "true")
        while seen[-1]["name"] != "job.succeeded" or seen[-1]["job"] != 2:
            seen.append(json.loads(following.stdout.readline()))
        following.send_signal(signal.SIGINT)
        assert following.wait(SECONDS) == 130
        assert following.communicate()[1] == ""
    numbers = [event["seq"] for event in seen]
    assert numbers == list(range(1, len(numbers) + 1))
    last = cli.out("events", "-n", "2").splitlines()
    assert len(last) == 2
    assert last[1].endswith("job 2 (true) succeeded: exit code 0")
    assert all(
        event["job"] == 1
        for event in map(json.loads, cli.out("events", "--job", "1", "-o", "json").splitlines())
    )


def test_a_drained_gpu_shows_on_the_map_and_takes_no_job_until_resumed(cli: Cli) -> None:
    cli.out("drain", "--gpu", "6", "--reason", "fan is loud")
    assert cli.error("drain", "--gpu", "16", "--reason", "x", status=4).startswith("error: no GPU 16")
    text = cli.out("topo")
    assert "GPU6 ✗ drained" in text
    assert "fan is loud" in text
    assert text.startswith("dgx1 (emulated, process)\n")
    refused = cli.out("plan", "--gpus", "8", status=11)
    assert "drained" in refused
    cli.out("resume", "--gpu", "6")
    cli.out("plan", "--gpus", "8")
    cli.out("drain", "--reason", "kernel update")
    drained = cli.out("plan", "--gpus", "1", status=11).splitlines()
    assert drained[0] == "would wait: the host is drained"
    assert drained[1].split(maxsplit=1) == ["because", "the host is drained: kernel update"]
    assert "once that is over, as things are now, the job would get:" in drained[2]
    told = cli.json("plan", "--gpus", "1", status=11)
    assert (told["feasible"], told["drained"], told["plan"]["gpus"]) == (False, "kernel update", [0])
    cli.out("drain", "--gpu", "6", "--reason", "fan is loud")
    both = " ".join(cli.out("plan", "--gpus", "8", status=11).split())
    assert "because the host is drained: kernel update and even if it were not: 8 GPUs:" in both
    cli.out("resume", "--gpu", "6")
    cli.out("resume")
    assert cli.json("plan", "--gpus", "1")["drained"] is None


def test_a_drain_that_stops_leaves_nothing_running_and_keeps_what_may_run_again(cli: Cli) -> None:
    for more in ((), ("--on-preempt", "cancel")):
        cli.out("submit", "--gpus", "2", "--grace", "1s", *more, "--", "sleep", "1000")
    for job in ("1", "2"):
        cli.topod.wait(int(job), "running")
    refused = cli.error("drain", "--stop", "--gpu", "1", "--reason", "x", status=2)
    assert refused.startswith("error: --stop is for the whole host")
    told = cli.out("drain", "--stop", "--reason", "no power")
    assert told.splitlines()[1:] == ["Requeueing job 1 (sleep)", "Cancelling job 2 (sleep)"]
    assert [cli.topod.job(job).state for job in (1, 2)] == ["pending", "cancelled"]


def test_the_live_host_document_can_be_planned_on_offline(cli: Cli, tmp_path: Path) -> None:
    job = cli.submit("--gpus", "4", "--priority", "low", "--", *STAYS)
    cli.topod.wait(int(job), "running")
    (tmp_path / "host.json").write_text(cli.out("topo", "-o", "json"))
    wanted = ("--gpus", "8", "--priority", "high")
    offline = cli.json("plan", "--host", str(tmp_path / "host.json"), *wanted, status=10)["plan"]
    live = cli.json("plan", *wanted, status=10)["plan"]
    assert (offline["gpus"], offline["cpus"]) == (live["gpus"], live["cpus"])
    assert [int(name) for name in offline["victims"]] == [int(name) for name in live["victims"]] == [int(job)]


def test_a_job_file_from_stdin_is_submitted_with_flags_over_it(cli: Cli) -> None:
    text = "name: try\ngpus: 2\npriority: low\ncommand: echo hello\nlabels: {team: a}\n"
    done = cli.run("submit", "-f", "-", "--gpus", "1", "-o", "json", stdin=text)
    job = json.loads(done.stdout)
    assert (job["name"], job["gpus"], job["priority"], job["cpus"]) == ("try", 1, 100, "auto")
    assert job["spec"]["labels"] == {"team": "a"}
    bad = cli.run("submit", "-f", "-", stdin="gpu: 2\n", status=65)
    assert bad.stderr == "error: stdin: unknown field 'gpu' (did you mean gpus?)\n"


def test_the_priority_of_a_job_is_changed_and_shown(cli: Cli) -> None:
    job = cli.submit("--", *STAYS)
    assert cli.out("priority", job, "high") == f"Job {job} (sh) has priority 1000\n"
    assert cli.json("ps")[0]["priority"] == 1000
    assert cli.out("ps").split()[13] == "high"


def test_jobs_are_chosen_by_state_and_user(cli: Cli) -> None:
    cli.submit("--name", "holds", "--gpus", "8", "--", *STAYS)
    cli.submit("--name", "waits", "--gpus", "8", "--", *STAYS)
    cli.topod.wait(1, "running")
    assert cli.out("ps", "--state", "pending", "-o", "name") == "2\n"
    assert cli.out("ps", "--state", "running,pending", "-o", "name") == "1\n2\n"
    assert cli.run("ps", "--user", "nobody-at-all").stderr == "no jobs\n"
    assert "8 GPUs: " in cli.out("ps", "-o", "wide") or "8 GPUs" in cli.json("ps")[1]["reason"]


def test_refusals_have_documented_statuses(cli: Cli) -> None:
    assert cli.out("plan", "--gpus", "9", status=1).startswith("can never run here\n")
    assert cli.json("plan", "--gpus", "9", status=1)["never"] is True
    for words, status, text in (
        (("show", "99"), 4, "error: no job 99"),
        (("logs", "99"), 4, "error: no job 99"),
        (("cancel", "99"), 4, "error: no job 99"),
        (("events", "--job", "99"), 4, "error: no job 99"),
        (("drain", "--reason", " "), 2, "error: --reason: is empty"),
        (("drain", "--reason", "x" * 201), 2, "error: --reason: 201 characters, at most 200"),
        (("show", "x"), 2, "error: not a job id: 'x'"),
        (("show", "latest"), 4, "error: there is no job yet"),
        (("submit", "--gpus", "9", "--", "x"), 1, "error: dgx1 can never run this job"),
        (("submit", "--gpus", "x", "--", "x"), 2, "error: --gpus: must be a whole number: 'x'"),
    ):
        assert cli.error(*words, status=status).startswith(text), words


def test_the_doctor_finds_topod_and_a_place_for_its_state(cli: Cli) -> None:
    found = {check["name"]: check for check in json.loads(cli.run("doctor", "-o", "json").stdout)}
    assert found["daemon"]["verdict"] == "ok"
    assert "host dgx1 (emulated)" in found["daemon"]["text"]
    assert found["state"]["text"].startswith(str(cli.topod.state_dir))
    assert found["NVML"]["verdict"] in {"ok", "warn"}


def test_waiting_and_following_outlive_a_restart_of_topod(cli: Cli, tmp_path: Path) -> None:
    go = tmp_path / "go"
    done = cli.submit("--", "true")
    job = cli.submit(
        "--", "sh", "-c", f"echo ready; until [ -e {go} ]; do sleep 0.05; done; echo went; exit 3"
    )
    with cli.start("wait", done, job) as waiting, cli.start("logs", "-f", job) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "ready\n"
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == f"job {done} (true) succeeded\n"
        cli.topod.kill()
        assert cli.error("ps", status=69) == f"error: no topod listens at {cli.topod.socket} any more"
        cli.topod.start()
        go.touch()
        assert waiting.wait(SECONDS) == 3
        assert following.communicate(timeout=SECONDS)[0] == "went\n"
