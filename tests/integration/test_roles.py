"""Who may do what, asked by processes of real users on a real topod's socket."""

import contextlib
import io
import shutil
import socket
import stat
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.as_user import as_user, needs_root
from tests.integration.daemon_process import Topod
from topoctl.main import run
from topod.errors import NotAllowedError
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.client import Client
from topod.protocol.codec import RequestEnvelope, decode_reply, encode
from topod.protocol.replies import AnyReply, Failure, Jobs, Welcome
from topod.protocol.requests import (
    AnyRequest,
    Cancel,
    Drain,
    GetHost,
    GetJob,
    Hello,
    ListJobs,
    ReadEvents,
    ReadLog,
    Requeue,
    Resume,
    SetPriority,
    Submit,
)
from topod.protocol.views import JobView

pytestmark = needs_root
T = TypeVar("T")

# Groups and users without a name are named by their number, so the machine's user database is left alone.
VIEWERS, SUBMITTERS, ADMINS, URGENT = 41001, 41002, 41003, 41004
VIEWER, ALICE, BOB, ADMIN, STRANGER = (
    (51001, VIEWERS),
    (51002, SUBMITTERS),
    (51003, SUBMITTERS),
    (51004, ADMINS),
    (51005, 51005),
)
EVE = (51006, 51006, SUBMITTERS)
"""Her supplementary group is not in the database, so it does not count."""

CONFIG = f"""
[security]
socket_mode = "0666"
view = ["{VIEWERS}"]
submit = ["{SUBMITTERS}"]
administer = ["{ADMINS}"]

[security.max_priority]
"*" = 500
{URGENT} = 1000
no-such-group = 1
"""


@pytest.fixture(scope="module")
def topod() -> Iterator[Topod]:
    folder = Path(tempfile.mkdtemp(prefix="topod-roles-"))
    folder.chmod(0o755)
    config = folder / "topod.toml"
    config.write_text(CONFIG)
    try:
        with Topod(folder) as daemon:
            yield daemon.start("--config", str(config))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def asked(topod: Topod, who: tuple[int, ...], request: AnyRequest) -> AnyReply:
    def ask() -> AnyReply | tuple[str, int, str]:
        with Client(topod.socket) as client:
            return client.ask(request, timeout=20)

    uid, *groups = who
    reply: AnyReply = run_as(uid, groups, ask)
    return reply


def run_as(uid: int, groups: list[int], ask: Callable[[], Any]) -> Any:
    def quietly() -> Any:
        try:
            return ask()
        except Exception as error:  # noqa: BLE001 - told as the reply it came from
            status = getattr(error, "exit_status", 0)
            return Failure(code=getattr(error, "code", "?"), text=str(error), exit_status=status)

    return as_user(uid, groups, quietly)


def spec(**fields: Any) -> JobSpec:
    priority = fields.pop("priority", 100)
    return JobSpec(name="t", command=("sleep", "600"), request=ResourceRequest(priority=priority), **fields)


def submitted(topod: Topod, who: tuple[int, ...], **fields: Any) -> JobView:
    reply = asked(topod, who, Submit(spec=spec(**fields)))
    assert isinstance(reply, Jobs), reply
    return reply.jobs[0]


def refusal(topod: Topod, who: tuple[int, ...], request: AnyRequest) -> str:
    reply = asked(topod, who, request)
    assert isinstance(reply, Failure), reply
    assert (reply.code, reply.exit_status) == ("not-allowed", 77)
    assert "\n" not in reply.text
    return reply.text


@pytest.mark.parametrize(
    ("who", "roles"),
    [
        ((0, 0), ["administer", "submit", "view"]),
        (ADMIN, ["administer", "submit", "view"]),
        (ALICE, ["submit", "view"]),
        (VIEWER, ["view"]),
        (STRANGER, []),
        (EVE, []),
    ],
)
def test_roles_come_from_the_groups_that_the_kernel_and_the_database_name(
    topod: Topod, who: tuple[int, ...], roles: list[str]
) -> None:
    welcome = asked(topod, who, Hello())
    assert isinstance(welcome, Welcome)
    assert welcome.roles == roles
    assert welcome.user == ("root" if who[0] == 0 else str(who[0]))


@pytest.mark.parametrize(
    "request_",
    [
        ListJobs(),
        GetJob(job=1),
        GetHost(),
        ReadEvents(),
        Submit(spec=spec()),
        Cancel(jobs=[1]),
        Requeue(jobs=[1]),
        Drain(reason="x"),
    ],
    ids=lambda request: type(request).__name__,
)
def test_a_stranger_learns_nothing_and_which_group_is_needed(topod: Topod, request_: AnyRequest) -> None:
    text = refusal(topod, STRANGER, request_)
    assert text.startswith("user 51005 may not ")
    assert "members of group 4100" in text


def test_a_viewer_sees_jobs_and_submits_none(topod: Topod) -> None:
    assert isinstance(asked(topod, VIEWER, ListJobs()), Jobs)
    assert refusal(topod, VIEWER, Submit(spec=spec())) == (
        "user 51001 may not submit jobs: members of group 41002 may (submit role)"
    )
    assert "read logs" in refusal(topod, VIEWER, ReadLog(job=1))


def test_a_job_belongs_to_who_sent_it_whatever_the_message_says(topod: Topod) -> None:
    job = submitted(topod, ALICE, user="root")
    assert (job.user, job.spec.user) == ("51002", "51002")
    reply = asked(topod, ALICE, Cancel(jobs=[job.id], by="root"))
    assert isinstance(reply, Jobs)
    assert topod.wait(job.id).reason == "cancelled by 51002"


def test_root_may_submit_for_others_and_an_administrator_may_not(topod: Topod) -> None:
    assert submitted(topod, (0, 0), user="51002").user == "51002"
    assert submitted(topod, ADMIN, user="root").user == "51004"


def test_the_jobs_of_others_are_out_of_reach(topod: Topod) -> None:
    job = submitted(topod, ALICE)
    topod.wait(job.id, "running")
    for request, verb in (
        (Cancel(jobs=[job.id]), "cancel"),
        (Requeue(jobs=[job.id]), "requeue"),
        (SetPriority(job=job.id, priority=1), "change the priority of"),
        (ReadLog(job=job.id), "read the log of"),
    ):
        text = refusal(topod, BOB, request)
        assert text.startswith(f"user 51003 may not {verb} job ")
        assert text.endswith(
            f"job {job.id} (t), which belongs to 51002: members of group 41003 may (administer role)"
        )
    own = submitted(topod, BOB)
    several = SetPriority(job=own.id, also=[job.id], priority=1)
    assert "change the priority of" in refusal(topod, BOB, several)
    assert isinstance(asked(topod, ALICE, SetPriority(job=job.id, priority=7)), Jobs)
    assert isinstance(asked(topod, ADMIN, SetPriority(job=job.id, priority=9000)), Jobs)
    mixed = [submitted(topod, BOB).id, job.id]
    refusal(topod, BOB, Cancel(jobs=mixed))
    assert [topod.job(ident).state for ident in mixed].count("running") >= 1
    assert topod.job(job.id).state == "running"
    assert isinstance(asked(topod, ADMIN, Cancel(jobs=[job.id])), Jobs)


def test_only_an_administrator_drains(topod: Topod) -> None:
    assert "members of group 41003 may" in refusal(topod, ALICE, Drain(reason="x"))
    assert not isinstance(asked(topod, ADMIN, Drain(reason="x")), Failure)
    assert "members of group 41003 may" in refusal(topod, ALICE, Resume())
    assert not isinstance(asked(topod, ADMIN, Resume()), Failure)


def test_a_group_may_give_so_much_priority_and_no_more(topod: Topod) -> None:
    text = refusal(topod, ALICE, Submit(spec=spec(priority=501)))
    assert text == "user 51002 may not ask for priority 501: 500 is the most ([security.max_priority])"
    job = submitted(topod, ALICE, priority=500)
    assert "501" in refusal(topod, ALICE, SetPriority(job=job.id, priority=501))
    assert submitted(topod, ADMIN, priority=5000).priority == 5000


def test_values_of_variables_are_the_owners_alone(topod: Topod) -> None:
    job = submitted(topod, ALICE, env={"TOKEN": "s3cret"})
    for who, seen in ((ALICE, "s3cret"), (ADMIN, "s3cret"), (BOB, "(hidden)"), (VIEWER, "(hidden)")):
        reply = asked(topod, who, GetJob(job=job.id))
        assert isinstance(reply, Jobs)
        assert reply.jobs[0].spec.env == {"TOKEN": seen}


def test_events_reach_a_viewer_and_no_stranger(topod: Topod) -> None:
    def heard() -> bool:
        with Client(topod.socket) as client:
            stream = client.events()
            # Something happens on this host until one event came or a few seconds passed.
            return any(event is not None for event, _ in zip(stream, range(3), strict=False))

    stop = threading.Event()

    def happen() -> None:
        while not stop.wait(0.05):
            topod.submit("true")

    noise = threading.Thread(target=happen)
    noise.start()
    try:
        assert run_as(*_split(VIEWER), heard) is True
        assert run_as(*_split(STRANGER), heard) is False
    finally:
        stop.set()
        noise.join()


def _split(who: tuple[int, ...]) -> tuple[int, list[int]]:
    return who[0], list(who[1:])


def test_a_peer_cannot_say_that_it_is_somebody_else(topod: Topod) -> None:
    """The handshake of ZeroMQ lets a peer send properties; those of the kernel must win."""

    def lie() -> AnyReply:
        with socket.socket(socket.AF_UNIX) as wire:
            wire.connect(str(topod.socket))
            wire.settimeout(20)

            def read(size: int) -> bytes:
                # A socket with a time-out gives what has come, MSG_WAITALL or not.
                got = b""
                while len(got) < size:
                    piece = wire.recv(size - len(got))
                    assert piece, f"hung up after {got!r}"
                    got += piece
                return got

            greeting = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
            lies = {
                b"Socket-Type": b"DEALER",
                b"Identity": b"",
                b"Peer-Address": b"localhost:0:0:1",
                b"User-Id": b"root",
            }
            ready = b"\x05READY" + b"".join(
                bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
                for name, value in lies.items()
            )
            hello = encode(RequestEnvelope(v=1, id="1", body=Hello()))
            wire.sendall(greeting[:12])
            read(12)
            wire.sendall(greeting[12:])
            read(52)
            wire.sendall(bytes([4, len(ready)]) + ready)
            # A message before both sides are ready ends the connection.
            _, size = read(2)
            read(size)
            wire.sendall(bytes([0, len(hello)]) + hello)
            got = b""
            while not got.endswith(b"}}"):
                piece = wire.recv(65536)
                assert piece, got
                got += piece
            return decode_reply(got[got.index(b'{"v"') :]).body

    welcome = run_as(*_split(STRANGER), lie)
    assert isinstance(welcome, Welcome), welcome
    assert (welcome.user, welcome.roles) == ("51005", [])


def test_without_a_configuration_others_cannot_even_open_the_socket() -> None:
    folder = Path(tempfile.mkdtemp(prefix="topod-shut-"))
    folder.chmod(0o755)
    state = folder / "state"
    state.mkdir(mode=0o755)
    try:
        with Topod(folder) as daemon:
            daemon.start()
            for path in (daemon.socket, daemon.socket.with_name("topod.sock.events")):
                assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
            assert stat.S_IMODE(state.stat().st_mode) == 0o700
            for path in state.glob("state.db*"):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

            def ask() -> object:
                with Client(daemon.socket) as client:
                    return client.ask(Hello())

            with pytest.raises(NotAllowedError, match="no permission to reach topod") as refused:
                as_user(STRANGER[0], [STRANGER[1]], ask)
            assert "members of group" in str(refused.value.hint)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("drain", "--reason", "x"), 77, "error: user 51002 may not drain: members of group 41003 may"),
        (
            ("submit", "--priority", "high", "--", "true"),
            77,
            "error: user 51002 may not ask for priority 1000: 500",
        ),
        (("rebalance", "--apply"), 77, "error: user 51002 may not move jobs: members of group 41003 may"),
        (("submit", "--for", "root", "--", "true"), 77, "error: only root may submit in another's name"),
        (("submit", "--priority", "low", "--", "true"), 0, "Submitted job "),
    ],
)
def test_topoctl_tells_a_refusal_in_one_line_with_its_status(
    topod: Topod, words: tuple[str, ...], status: int, text: str
) -> None:
    def call() -> tuple[int, str]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = run(["--socket", str(topod.socket), *words])
        return code, out.getvalue()

    # Once as root, so that everything is loaded that the other user may be unable to read.
    call()
    topod.ask(Resume())
    found, told = as_user(*_split(ALICE), call)
    assert (found, told.splitlines()[0][: len(text)]) == (status, text)
    assert "Traceback" not in told


def test_root_submits_for_somebody_else(topod: Topod) -> None:
    assert run(["--socket", str(topod.socket), "submit", "--for", "51002", "--", "true"]) == 0
    assert any(job.user == "51002" and job.spec.command == ("true",) for job in _all(topod))


def _all(topod: Topod) -> list[JobView]:
    found = []
    for ended in (False, True):
        reply = topod.ask(ListJobs(ended=ended))
        assert isinstance(reply, Jobs)
        found += reply.jobs
    return found


def test_a_group_that_does_not_exist_is_told_at_start_and_by_the_doctor(
    topod: Topod, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "security.max_priority: there is no group no-such-group on this machine"
    topod.until(lambda: told in topod.log.read_text())
    run(["--socket", str(topod.socket), "doctor"])
    assert told in " ".join(capsys.readouterr().out.split())
