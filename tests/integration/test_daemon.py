"""A whole topod through its real socket, with the process runtime on an emulated host."""

import grp
import os
import pwd
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.daemon_process import ROOT, Topod, topod_in
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.client import Client, RemoteError, events_socket
from topod.protocol.replies import Done, Host, JobLines, Jobs, LogChunk, Planned, Welcome
from topod.protocol.requests import (
    Cancel,
    Drain,
    DryRun,
    GetHost,
    GetJob,
    Hello,
    ListJobs,
    ReadLog,
    Resume,
    SetPriority,
    Submit,
    WaitJob,
)
from topod.protocol.views import JobLine


@pytest.fixture
def topod(tmp_path: Path) -> Iterator[Topod]:
    yield from topod_in(tmp_path / "d")


def test_a_job_is_submitted_run_logged_and_its_exit_code_told(topod: Topod) -> None:
    job = topod.submit("sh", "-c", "echo one; echo two >&2; exit 3", gpus=2, name="try")
    done = topod.wait(job.id)
    assert (done.state, done.exit_code, done.reason) == ("failed", 3, "exit code 3")
    assert topod.output(job.id) == "one\ntwo\n"
    story = [event.name for event in topod.events() if event.job == job.id]
    assert story == ["job.submitted", "job.placed", "job.started", "job.failed"]
    ended = topod.ask(ListJobs(ended=True))
    assert isinstance(ended, Jobs)
    assert [view.id for view in ended.jobs] == [job.id]
    assert topod.ask(ListJobs()) == Jobs(jobs=[])


def test_hello_says_what_is_emulated(topod: Topod) -> None:
    welcome = topod.ask(Hello())
    assert isinstance(welcome, Welcome)
    assert (welcome.host, welcome.emulated, welcome.runtime) == ("dgx1", True, "process")
    assert welcome.notes[0] == "the host is emulated: no job gets one of its 8 GPUs"
    assert welcome.events_endpoint == f"ipc://{events_socket(topod.socket)}"


def test_the_sockets_are_for_the_user_and_the_group_only(topod: Topod) -> None:
    try:
        shared = os.geteuid() == 0 and bool(grp.getgrnam("topod"))
    except KeyError:
        shared = False
    for path in (topod.socket, events_socket(topod.socket)):
        assert stat.S_IMODE(path.stat().st_mode) == (0o660 if shared else 0o600)


def test_the_same_token_leads_to_the_same_job_also_after_a_crash(topod: Topod) -> None:
    first = topod.submit("true", token="abc")
    assert topod.submit("false", token="abc").id == first.id
    topod.kill()
    topod.start()
    assert topod.submit("true", token="abc").id == first.id
    assert topod.submit("true", token="abd").id == first.id + 1


def test_only_a_topod_that_had_jobs_is_back(topod: Topod) -> None:
    def told() -> list[str]:
        return [event.text for event in topod.events() if event.name == "host.recovered"]

    first = "topod starts; it has had no job here yet"
    topod.until(lambda: told() == [first])
    topod.wait(topod.submit("true").id)
    topod.kill()
    topod.start()
    topod.until(lambda: len(told()) == 2)
    assert told()[1].startswith("topod is back; ")


def test_a_job_that_can_never_run_here_is_refused_and_leaves_no_trace(topod: Topod) -> None:
    with pytest.raises(RemoteError, match="dgx1 can never run this job") as caught:
        topod.submit("true", gpus=9)
    assert (caught.value.code, caught.value.exit_status) == ("cannot-run", 1)
    assert topod.ask(ListJobs()) == Jobs(jobs=[])
    assert topod.submit("true").id == 1


def test_a_dry_run_names_the_victims_and_changes_nothing(topod: Topod) -> None:
    low = topod.submit("sleep", "600", gpus=8, priority=100)
    topod.wait(low.id, "running")
    spec = JobSpec(name="h", command=("true",), request=ResourceRequest(gpus=4, priority=1000))
    planned = topod.ask(DryRun(spec=spec))
    assert isinstance(planned, Planned)
    assert planned.feasible
    assert str(low.id) in str(planned.plan["victims"])
    assert topod.job(low.id).state == "running"


def test_a_high_priority_job_preempts_and_its_victim_runs_again(topod: Topod) -> None:
    low = topod.submit("sh", "-c", "echo began; exec sleep 600", gpus=8, priority=100)
    topod.wait(low.id, "running")
    high = topod.submit("sh", "-c", "echo high", gpus=4, priority=1000, affinity="nvlink")
    done = topod.wait(high.id)
    assert (done.state, done.victims) == ("succeeded", [])
    again = topod.wait(low.id, "running")
    assert (again.preemptions, again.attempt, again.submitted_at) == (1, 2, low.submitted_at)
    names = [event.name for event in topod.events() if event.job == low.id]
    assert names.index("job.preempted") < names.index("job.requeued")


def test_a_cancelled_job_is_stopped_and_a_second_cancel_is_a_conflict(topod: Topod) -> None:
    job = topod.submit("sleep", "600", gpus=1)
    topod.wait(job.id, "running")
    topod.ask(Cancel(jobs=[job.id], by="whoever"))
    me = pwd.getpwuid(os.geteuid()).pw_name
    done = topod.wait(job.id)
    assert (done.state, done.reason) == ("cancelled", f"cancelled by {me}")
    with pytest.raises(RemoteError, match="has ended: cancelled") as caught:
        topod.ask(Cancel(jobs=[job.id]))
    assert caught.value.exit_status == 5


@pytest.mark.parametrize(
    "request_", [GetJob(job=99), WaitJob(job=99), ReadLog(job=-1), Cancel(jobs=[1 << 70])]
)
def test_a_job_that_never_was_is_not_found(topod: Topod, request_: GetJob) -> None:
    with pytest.raises(RemoteError, match="no job") as caught:
        topod.ask(request_)
    assert caught.value.exit_status == 4


def test_a_drained_gpu_and_a_drained_host_hand_out_nothing(topod: Topod) -> None:
    assert isinstance(topod.ask(Drain(gpu="3", reason="fan")), Done)
    host = topod.ask(GetHost())
    assert isinstance(host, Host)
    assert (host.host.gpus[3].state, host.host.gpus[3].reason) == ("drained", "drained: fan")
    job = topod.submit("true", gpus=8)
    assert job.state == "pending"
    assert "GPU" in job.reason
    topod.ask(Drain(reason="move"))
    topod.ask(Resume(gpu="GPU3"))
    assert topod.job(job.id).reason == "the host is drained: move"
    topod.ask(Resume())
    assert topod.wait(job.id).state == "succeeded"
    with pytest.raises(RemoteError, match="no GPU 8"):
        topod.ask(Drain(gpu="8", reason="x"))


def test_the_host_view_shows_who_holds_what(topod: Topod) -> None:
    job = topod.submit("sleep", "600", gpus=2, priority=700)
    held = topod.wait(job.id, "running").gpu_indices
    host = topod.ask(GetHost())
    assert isinstance(host, Host)
    states = {gpu.index: (gpu.state, gpu.job, gpu.priority) for gpu in host.host.gpus}
    assert states == {i: ("held", job.id, 700) if i in held else ("free", None, None) for i in range(8)}
    assert host.host.document["name"] == "dgx1"


def test_the_priority_of_a_waiting_job_can_be_changed(topod: Topod) -> None:
    first = topod.submit("sleep", "600", gpus=8, priority=500)
    topod.wait(first.id, "running")
    second = topod.submit("true", gpus=8, priority=500)
    assert second.state == "pending"
    topod.ask(SetPriority(job=second.id, priority=501, by="bob"))
    assert topod.wait(second.id).state == "succeeded"


def test_watchers_see_events_as_they_happen(topod: Topod) -> None:
    with Client(topod.socket) as client:
        stream = client.events()
        next(stream)  # the subscription is in force now
        job = topod.submit("true")
        seen = []
        while "job.succeeded" not in seen:
            event = next(stream)
            if event is not None and event.job == job.id:
                seen.append(event.name)
    assert seen == ["job.submitted", "job.placed", "job.started", "job.succeeded"]


def test_two_hundred_requests_at_once_are_each_answered(topod: Topod) -> None:
    def one(number: int) -> int:
        if number % 4:
            assert isinstance(topod.ask(Hello(), timeout=60), Welcome)
            return 0
        spec = JobSpec(name=f"n{number}", command=("true",))
        reply = topod.ask(Submit(spec=spec), timeout=60)
        assert isinstance(reply, Jobs)
        return reply.jobs[0].id

    with ThreadPoolExecutor(40) as pool:
        idents = [ident for ident in pool.map(one, range(200)) if ident]
    assert sorted(idents) == list(range(1, 51))


def test_a_request_that_waits_holds_up_no_other(topod: Topod) -> None:
    job = topod.submit("sleep", "600")
    waiters = [threading.Thread(target=topod.wait, args=(job.id,)) for _ in range(20)]
    for waiter in waiters:
        waiter.start()
    assert isinstance(topod.ask(Hello(), timeout=10), Welcome)
    topod.ask(Cancel(jobs=[job.id]))
    for waiter in waiters:
        waiter.join(30)
        assert not waiter.is_alive()


def test_a_second_topod_on_the_same_state_or_socket_is_refused_in_one_line(
    topod: Topod, tmp_path: Path
) -> None:
    assert topod.process is not None
    same_state = subprocess.run(
        [*topod.command, "--socket", tmp_path / "other.sock"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert same_state.returncode == 5
    assert same_state.stderr.startswith(
        f"error: another topod (pid {topod.process.pid}) works on {topod.state_dir}\n"
    )
    same_socket = subprocess.run(
        [*topod.command, "--state-dir", tmp_path / "other", "--log-level", "error"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert same_socket.returncode == 5
    assert same_socket.stderr.startswith(f"error: another topod listens at {topod.socket}\n")
    assert isinstance(topod.ask(Hello()), Welcome)


def test_stopping_topod_takes_its_sockets_away_and_leaves_jobs_running(topod: Topod) -> None:
    job = topod.submit("sh", "-c", "echo $$; exec sleep 600", gpus=1)
    topod.wait(job.id, "running")
    topod.until((topod.state_dir / "logs").exists)

    assert topod.stop() == 0

    assert not topod.socket.exists()
    assert not events_socket(topod.socket).exists()
    topod.start()
    topod.until(lambda: any(event.name == "host.recovered" and event.seq > 3 for event in topod.events()))
    found = topod.job(job.id)
    assert (found.state, found.attempt) == ("running", 1)
    chunk = topod.ask(ReadLog(job=job.id, wait=10.0))
    assert isinstance(chunk, LogChunk)
    os.kill(int(chunk.data), 0)


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--host", "no-such-host"], 4, "error: no emulated host"),
        (["--runtime", "podman"], 2, "error: --runtime is one of auto, docker, process, not 'podman'"),
        (["--socket", "/tmp/" + "x" * 120], 2, "error: the socket's path has 125 bytes, 100 are allowed"),
        (["--state-dir", "/proc/nowhere"], 74, "error: cannot use the state folder /proc/nowhere"),
        (["--devices-free-seconds", "-1"], 2, "error: --devices-free-seconds is above 0"),
    ],
)
def test_a_topod_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, options: list[str], status: int, words: str
) -> None:
    command = [*Topod(tmp_path / "d").command, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stderr.startswith(words)
    assert "Traceback" not in done.stderr


def test_topod_serves_while_the_engine_is_down_and_says_so(tmp_path: Path) -> None:
    engine = f"unix://{tmp_path}/no-engine.sock"
    topod = Topod(tmp_path / "d", runtime="docker").start("--engine", engine)
    try:
        topod.until(lambda: "runtime:" in str(topod.ask(Hello())))
        job = topod.submit("true", gpus=1, image="img")
        assert job.state == "pending"
        topod.ask(Cancel(jobs=[job.id]))
        assert topod.wait(job.id).state == "cancelled"
        assert topod.stop() == 0
    finally:
        if topod.process is not None:
            topod.kill()


def test_topod_stops_although_the_engine_hangs(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf.sock"))
        deaf.listen()
        topod = Topod(tmp_path / "d", runtime="docker").start("--engine", f"unix://{tmp_path}/deaf.sock")
        topod.submit("true", image="img")
        assert topod.stop() == 0


def test_a_brief_list_says_everything_but_plans_and_specs(topod: Topod) -> None:
    job = topod.submit("sleep", "100", env={"A": "1"})
    topod.wait(job.id, "running")
    plain, short = topod.ask(ListJobs()), topod.ask(ListJobs(brief=True))
    assert isinstance(plain, Jobs)
    assert isinstance(short, JobLines)
    (full,), (brief,) = plain.jobs, short.jobs
    assert full.plan
    assert full.spec.env == {"A": "1"}
    fields = JobLine.__struct_fields__
    assert {name: getattr(full, name) for name in fields} == {name: getattr(brief, name) for name in fields}
