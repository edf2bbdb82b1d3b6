"""Arrays, dependencies and secrets as a user meets them: topoctl against a real topod, plain processes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon_process import Topod, topod_in
from tests.integration.test_cli import Cli
from topoctl.session import job_ids
from topod.adapters.secret_files import checked_secrets
from topod.errors import JobRejectedError
from topod.model.arrays import ArrayPlan
from topod.model.job import Dependency, JobId, JobSpec, Secret
from topod.protocol.client import Client, RemoteError
from topod.protocol.replies import AnyReply, Jobs, Welcome
from topod.protocol.requests import AnyRequest, Drain, Hello, SetPriority, Submit

WAITS = (
    "sh",
    "-c",
    "while ! test -e go; do sleep 0.02; done; echo index $TOPOD_ARRAY_INDEX of $TOPOD_ARRAY_COUNT",
)


@pytest.fixture
def topod(tmp_path: Path) -> Iterator[Topod]:
    yield from topod_in(tmp_path)


@pytest.fixture
def cli(topod: Topod) -> Iterator[Cli]:
    with Cli(topod) as cli:
        yield cli


def test_an_array_from_submit_to_its_end(cli: Cli, topod: Topod, tmp_path: Path) -> None:
    told = cli.out("submit", "-w", str(tmp_path), "--array", "0-5:5,7%2", "--name", "fold", "--", *WAITS)
    assert told == "Submitted array 1 (fold): 3 jobs, 1[0,5,7]\n"
    for job in (1, 2):
        topod.wait(job, "running")
    lines = cli.out("ps").splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "1[0]", "1[5]", "1[7]"]
    assert "2 of array 1 run" in lines[3]
    assert cli.out("ps", "-o", "name").split() == ["1[0]", "1[5]", "1[7]"]
    assert cli.json("show", "1[5]")["job"]["array_index"] == 5
    (tmp_path / "go").touch()
    assert cli.out("wait", "1").splitlines() == [f"job 1[{index}] (fold) succeeded" for index in (0, 5, 7)]
    assert cli.out("logs", "1[7]") == "index 7 of 3\n"
    assert "1[7]" in cli.out("history")


def test_the_waiting_jobs_of_an_array_share_a_line(cli: Cli, topod: Topod) -> None:
    topod.submit("sleep", "100", gpus=8)
    cli.out("submit", "--array", "0-99%4", "--gpus", "1", "--", "true")
    lines = cli.out("ps").splitlines()
    assert len(lines) == 3
    assert lines[2].split()[0] == "2[0-99%4]"
    assert len(cli.json("ps")) == 101


def test_one_some_or_all_jobs_of_an_array_are_cancelled(cli: Cli, topod: Topod) -> None:
    topod.submit("sleep", "100", gpus=8)
    cli.out("submit", "--array", "0-5", "--gpus", "1", "--name", "a", "--", "true")
    assert cli.out("cancel", "2[0]") == "Cancelled job 2[0] (a)\n"
    assert cli.out("cancel", "2[2-3]").splitlines() == ["Cancelled job 2[2] (a)", "Cancelled job 2[3] (a)"]
    assert cli.out("cancel", "2").splitlines() == [f"Cancelled job 2[{index}] (a)" for index in (1, 4, 5)]
    assert "has ended" in cli.error("cancel", "2[*]", status=5)
    # Who has ended keeps nobody from being cancelled: a list of jobs is old when it is used.
    ended = topod.submit("false", gpus=0)
    topod.wait(ended.id)
    done = cli.run("cancel", f"{ended.id}", "1", status=5)
    assert (done.stdout, done.stderr) == ("Cancelling job 1 (t)\n", f"job {ended.id} (t) has ended: failed\n")
    assert topod.wait(1).state == "cancelled"


def test_running_jobs_of_an_array_are_requeued_and_what_does_not_run_is_refused(
    cli: Cli, topod: Topod
) -> None:
    script = "test $TOPOD_ATTEMPT = 1 || exit 0; sleep 100"
    cli.out("submit", "--array", "0-2%2", "--name", "a", "--", "sh", "-c", script)
    for job in (1, 2):
        topod.wait(job, "running")
    assert cli.error("requeue", "1[2]", status=5) == "error: job 1[2] (a) does not run: it is pending"
    some = cli.run("requeue", "1[0]", "1[2]", status=5)
    assert some.stdout == "Requeueing job 1[0] (a)\n"
    assert some.stderr == "job 1[2] (a) does not run: it is pending\n"
    assert cli.out("requeue", "1[1]") == "Requeueing job 1[1] (a)\n"
    for job in (1, 2):
        ended = topod.wait(job)
        assert (ended.state, ended.starts, ended.preemptions) == ("succeeded", 2, 0)
    assert cli.error("requeue", "1[1]", status=5) == (
        "error: job 1[1] (a) has ended: succeeded; submit it again"
    )
    once = cli.submit("--on-preempt", "cancel", "--name", "once", "--", "sleep", "100")
    topod.wait(int(once), "running")
    assert "never runs twice" in cli.error("requeue", once, status=5)
    assert "no job 99" in cli.error("requeue", "99", status=4)
    assert "requeued by" in cli.out("events", "--job", "1[0]")


@pytest.mark.parametrize("names", [True, False])
def test_hundreds_of_words_are_one_decision_and_a_handful_of_questions(
    cli: Cli, topod: Topod, names: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    topod.ask(Drain(reason="quiet"))
    cli.out("submit", "--array", "0-299", "--", "true")
    alone = [topod.submit("true").id for _ in range(2)]
    after = topod.submit("true", after=(Dependency(job=JobId(alone[0])),)).id
    words = cli.out("ps", "-o", "name").split() if names else [str(ident) for ident in range(1, after + 1)]
    assert len(words) == 303
    with Client(topod.socket) as client:
        asked: list[str] = []
        ask = client.ask

        def counted(request: AnyRequest, timeout: float = 10.0) -> AnyReply:
            asked.append(type(request).__name__)
            return ask(request, timeout)

        monkeypatch.setattr(client, "ask", counted)
        assert job_ids(client, words, whole=True, live=True) == list(range(1, after + 1))
        assert asked == (["ListJobs", "GetArray"] if names else ["ListJobs"])
    before = topod.ask(Hello())
    told = cli.out("cancel", *words).splitlines()
    assert (len(told), {line.split()[0] for line in told}) == (303, {"Cancelled"})
    hello = topod.ask(Hello())
    assert isinstance(before, Welcome)
    assert isinstance(hello, Welcome)
    assert hello.generation == before.generation + 1
    # Cancelled by name, not because what it waited for was: all at once.
    assert topod.job(after).reason.startswith("cancelled by")


def test_the_priority_of_one_or_of_all_jobs_of_an_array_is_changed(cli: Cli, topod: Topod) -> None:
    topod.submit("sleep", "100", gpus=8)
    cli.out("submit", "--array", "0-3", "--gpus", "1", "--name", "a", "--", "true")
    cli.out("cancel", "2[1]")
    assert cli.out("priority", "2[2]", "50") == "Job 2[2] (a) has priority 50\n"
    assert cli.out("priority", "2", "60").splitlines() == [
        f"Job 2[{index}] (a) has priority 60" for index in (0, 2, 3)
    ]
    assert [job["priority"] for job in cli.json("ps")] == [500, 60, 60, 60]
    assert cli.json("priority", "2[3]", "70")["priority"] == 70
    assert "has ended" in cli.error("priority", "2[1]", "70", status=5)
    topod.ask(SetPriority(job=2, also=[3], priority=80))
    assert [topod.job(job).priority for job in (2, 3)] == [80, 500]


def test_what_there_is_not_keeps_no_other_from_being_changed(cli: Cli, topod: Topod) -> None:
    topod.wait(topod.submit("sleep", "100", gpus=8).id, "running")
    cli.out("submit", "--array", "0-3", "--gpus", "1", "--name", "a", "--", "true")
    some = cli.run("priority", "98", "2[1,7]", "99", "2[2]", "60", status=4)
    assert some.stdout == "Job 2[1] (a) has priority 60\nJob 2[2] (a) has priority 60\n"
    assert some.stderr == "no job 98\nno job 2[7]\nno job 99\n"
    assert cli.run("cancel", "98", "2[3]", "98", status=4).stdout == "Cancelled job 2[3] (a)\n"
    again = json.loads(cli.run("requeue", "99", "1", "-o", "json", status=4).stdout)
    assert [job["id"] for job in again] == [1]
    ended = cli.run("requeue", "2[3]", "99", status=4)
    assert ended.stderr.startswith("no job 99\njob 2[3] (a) has ended: cancelled")
    assert cli.run("cancel", "98", "99", status=4).stderr == "no job 98\nno job 99\n"
    # What cannot be meant is no job that is gone: nothing is done.
    assert cli.error("cancel", "1", "99", "l2", status=2) == "error: not a job id: 'l2'"
    assert "--forse" in cli.error("cancel", "1", "--forse", status=2)
    assert "not a job id: '--forse'" in cli.error("priority", "1", "--forse", "60", status=2)
    assert topod.job(1).state != "cancelled"


def test_what_is_no_job_of_an_array_is_refused(cli: Cli, topod: Topod) -> None:
    topod.submit("true")
    cli.out("submit", "--array", "1-2", "--", "true")
    assert cli.error("show", "1[0]", status=2) == "error: job 1 is not an array: '1[0]'"
    assert cli.error("show", "2[9]", status=4) == "error: no job 2[9]"
    assert cli.error("show", "2[x]", status=2).startswith("error: not an array: 'x'")
    assert "one job" in cli.error("run", "--array", "1-2", "--", "true", status=2)
    for bad in ("", "5-1", "1-2000", "1%0", "a"):
        assert cli.error("submit", f"--array={bad}", "--", "true", status=2).startswith("error: --array: ")


def test_a_chain_of_jobs_runs_in_order_and_its_reasons_are_true(
    cli: Cli, topod: Topod, tmp_path: Path
) -> None:
    first = cli.out("submit", "--parsable", "-w", str(tmp_path), "--name", "train", "--", *WAITS).strip()
    second = cli.out("submit", "--parsable", "--after", first, "--name", "eval", "--", "echo", "eval").strip()
    cleanup = cli.out("submit", "--parsable", "--after", f"failed:{first}", "--", "true").strip()
    assert topod.job(int(second)).reason == "waits for job 1 (train) to succeed"
    assert topod.job(int(cleanup)).after == [1]
    (tmp_path / "go").touch()
    assert cli.out("wait", second) == "job 2 (eval) succeeded\n"
    assert "only after its failure" in cli.run("wait", cleanup, status=1).stdout
    # The first has been put to rest by now.
    cli.run("submit", "--wait", "--after", "afterok:1,afterany:2", "--", "true")


def test_after_an_array_or_one_of_its_jobs(cli: Cli, topod: Topod, tmp_path: Path) -> None:
    cli.out("submit", "-w", str(tmp_path), "--array", "0-2%1", "--", *WAITS)
    all_of_it = topod.job(int(cli.out("submit", "--parsable", "--after", "1", "--", "true")))
    last = topod.job(int(cli.out("submit", "--parsable", "--after", "1[2]", "--", "true")))
    first = topod.job(int(cli.out("submit", "--parsable", "--after", "any:1[0]", "--", "true")))
    assert all_of_it.reason == "waits for array 1 (sh) to succeed"
    assert last.reason == "waits for job 1[2] (sh) to succeed"
    assert first.reason == "waits for job 1[0] (sh) to end"
    (tmp_path / "go").touch()
    ended = {job.id: topod.wait(job.id) for job in (all_of_it, last, first)}
    assert {job.state for job in ended.values()} == {"succeeded"}
    assert (ended[first.id].started_at or 0) < (ended[last.id].started_at or 0)
    # An array that has ended whole counts too.
    assert topod.wait(int(cli.out("submit", "--parsable", "--after", "1", "--", "true"))).state == "succeeded"


def test_what_can_never_be_met_any_more_is_refused_at_the_submit(cli: Cli, topod: Topod) -> None:
    good = topod.submit("true", name="good").id
    assert topod.wait(good).state == "succeeded"
    bad = int(cli.out("submit", "--parsable", "--array", "0-1", "--name", "bad", "--", "sh", "-c", "exit 3"))
    for ident in (bad, bad + 1):
        topod.wait(ident)
    for words, why in (
        (
            ["--after", f"failed:{good}"],
            f"job {good} (good) succeeded, and this job was to run only after its failure",
        ),
        (["--after", f"{bad}"], f"job {bad}[0] (bad) failed, and this job was to run only after its success"),
        (["--after", f"{bad}[1]", "--array", "0-9"], f"job {bad}[1] (bad) failed, and this job"),
    ):
        said = cli.run("submit", *words, "--", "true", status=5).stderr
        assert said.startswith(f"error: the job would never run: {why}")
        assert "hint: --after any:ID" in said
        dry = cli.run("submit", "--dry-run", *words[:2], "--", "true", status=1).stdout
        assert dry.startswith("can never run here\n")
    assert cli.out("submit", "--parsable", "--after", f"any:{bad}", "--", "true") == f"{bad + 2}\n", (
        "the next"
    )
    cli.run("submit", "--wait", "--after", f"failed:{bad}", "--", "true")


def test_a_submit_that_was_taken_is_not_refused_when_it_is_asked_again(topod: Topod, tmp_path: Path) -> None:
    first = topod.submit("sh", "-c", "while ! test -e go; do sleep 0.02; done; exit 3", workdir=str(tmp_path))
    spec = JobSpec(name="x", command=("true",), after=(Dependency(job=JobId(first.id)),))
    taken = topod.ask(Submit(spec=spec, token="t"))
    (tmp_path / "go").touch()
    assert topod.wait(first.id).state == "failed"
    again = topod.ask(Submit(spec=spec, token="t"))
    assert isinstance(taken, Jobs)
    assert isinstance(again, Jobs)
    assert [job.id for job in again.jobs] == [job.id for job in taken.jobs]
    with pytest.raises(RemoteError, match="would never run"):
        topod.ask(Submit(spec=spec, token="another"))


def test_dependencies_that_cannot_be_meant_are_refused(cli: Cli, topod: Topod) -> None:
    topod.submit("true")
    assert cli.error("submit", "--after", "9", "--", "true", status=4) == "error: no job 9"
    assert "twice" in cli.error("submit", "--after", "1,any:1", "--", "true", status=2)
    assert "ok, any or failed" in cli.error("submit", "--after", "fail:1", "--", "true", status=2)
    assert "not a job" in cli.error("submit", "--after", "train", "--", "true", status=2)


def test_dependencies_and_arrays_outlive_a_crash_of_topod(cli: Cli, topod: Topod, tmp_path: Path) -> None:
    cli.out("submit", "-w", str(tmp_path), "--array", "0-3%1", "--", *WAITS)
    child = topod.job(int(cli.out("submit", "--parsable", "--after", "1", "--", "true")))
    topod.wait(1, "running")
    topod.kill()
    (tmp_path / "go").touch()
    topod.start()
    assert topod.wait(child.id, timeout=60).state == "succeeded"
    assert [topod.output(job) for job in (1, 2, 3, 4)] == [f"index {index} of 4\n" for index in range(4)]


def test_a_submit_of_an_array_that_is_asked_twice_is_one_array(topod: Topod) -> None:
    request = Submit(spec=JobSpec(name="a", command=("true",)), array=ArrayPlan(indices=(1, 2)), token="t1")
    answers = [topod.ask(request), topod.ask(request)]
    assert [[job.id for job in answer.jobs] for answer in answers if isinstance(answer, Jobs)] == [[1, 2]] * 2


def test_a_secret_is_read_from_its_file_and_leaves_no_trace(cli: Cli, topod: Topod, tmp_path: Path) -> None:
    token = tmp_path / "hf.token"
    token.write_text("s3cr3t-of-alice")
    script = "wc -c < $TOPOD_SECRET_HF_TOKEN"
    done = cli.run("run", "-q", "--secret", f"hf-token={token}", "--", "sh", "-c", script)
    assert done.stdout == "15\n"
    assert "hf-token" in cli.out("show", "1")
    topod.stop()
    for path in (topod.state_dir, topod.log):
        for file in [path, *path.rglob("*")]:
            assert not file.is_file() or b"s3cr3t" not in file.read_bytes(), file
    topod.start()


def test_a_secret_that_is_not_there_is_refused_at_the_submit(cli: Cli, tmp_path: Path) -> None:
    missing = cli.error("submit", "--secret", f"a={tmp_path}/no", "--", "true", status=1)
    assert missing == f"error: secret a: {tmp_path}/no: no such file or directory"
    assert "is no file" in cli.error("submit", "--secret", f"a={tmp_path}", "--", "true", status=1)
    assert "--secret: secret a has no file" in cli.error("submit", "--secret", "a", "--", "true", status=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may name another user")
def test_a_secret_that_its_user_may_not_read_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 1 == 0:
            folder.chmod(folder.stat().st_mode | 1)
    token = tmp_path / "token"
    token.write_text("x")
    spec = JobSpec(name="a", command=("true",), user="nobody", secrets=(Secret(name="t", source=str(token)),))
    token.chmod(0o644)
    assert checked_secrets(spec) == {"t": str(token)}
    token.chmod(0o600)
    with pytest.raises(JobRejectedError, match="nobody may not read"):
        checked_secrets(spec)
    token.chmod(0o604)
    tmp_path.chmod(0o700)
    with pytest.raises(JobRejectedError, match=r"may not read .* or it is not there"):
        checked_secrets(spec)
