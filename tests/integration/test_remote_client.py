"""`topoctl` and a coordinator over the network: answers, and why there is none, in one line."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.fleet_port import COORDINATOR, HOST, SECONDS, STRANGER, USER, Answer, Port, port
from topoctl.main import run
from topod.adapters.peers import RemotePeer
from topod.errors import DaemonUnavailableError, NotAllowedError, NotLeaderError
from topod.model.job import JobSpec
from topod.protocol.client import Client, RemoteError
from topod.protocol.curve import PRIVATE, PUBLIC, KeyPair
from topod.protocol.remote import Coordinator, Remote
from topod.protocol.replies import AnyReply, Done, Events, Welcome
from topod.protocol.requests import AnyRequest, Cancel, Drain, GetJob, Hello, ListJobs, ReadEvents, Submit
from topod.protocol.views import EventView
from topod.shell.access import Access
from topod.shell.config_file import SecuritySection
from topod.shell.gate import Gate

WELCOME = Welcome(
    version="1",
    protocol=1,
    host="fleet",
    emulated=False,
    runtime="",
    runtime_text="",
    pid=1,
    state_dir="",
    events_endpoint="",
    generation=1,
    started_at=0.0,
)


@contextmanager
def running(folder: Path, answer: Answer | None = None, **options: Any) -> Iterator[Port]:
    """Run a port in a loop of its own, as another machine would."""
    folder.mkdir(exist_ok=True)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def do(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(SECONDS)

    manager = port(folder, answer, **options) if answer else port(folder, **options)
    try:
        made = do(manager.__aenter__())
        try:
            yield made
        finally:
            do(manager.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def remote(*ports: Port | str, keys: KeyPair = USER, server: str = COORDINATOR.public) -> Remote:
    places = [one if isinstance(one, str) else one.server.endpoint for one in ports]
    return Remote(coordinators=tuple(Coordinator(endpoint=at, key=server) for at in places), keys=keys)


def nowhere() -> str:
    """Return an endpoint at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


def refused(
    kind: type[Exception], where: Remote, timeout: float = SECONDS, request: AnyRequest | None = None
) -> str:
    with Client(where) as client, pytest.raises(kind) as told:
        client.ask(request or Hello(), timeout=timeout)
    assert "\n" not in str(told.value)
    assert where.keys.secret not in str(told.value) + str(getattr(told.value, "hint", ""))
    return str(told.value)


def test_a_user_asks_a_coordinator_and_asks_again(tmp_path: Path) -> None:
    with running(tmp_path) as made, Client(remote(made)) as client:
        for _ in range(3):
            assert client.ask(Hello()) == Done(text="Hello of user alice: submit,view")
        assert made.server.counts["admitted"] == 1


def test_why_there_is_no_answer_is_said_at_once_in_one_line(tmp_path: Path) -> None:
    with running(tmp_path) as made:
        text = refused(NotAllowedError, remote(made, keys=STRANGER))
        assert f"does not know the key {PUBLIC}{STRANGER.public}" in text
        text = refused(DaemonUnavailableError, remote(made, server=STRANGER.public))
        assert f"its key is not {PUBLIC}{STRANGER.public}" in text
        text = refused(RemoteError, remote(made, keys=HOST))
        assert text == "this is the key of host a, and a user asks"
    assert "cannot be reached: Connection refused" in refused(DaemonUnavailableError, remote(nowhere()))
    text = refused(DaemonUnavailableError, remote("tcp://no-such-host.invalid:1"))
    assert "no-such-host.invalid:1 cannot be reached" in text


def test_who_does_not_speak_curve_is_told_from_a_coordinator() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as other:
        number = other.bind_to_random_port("tcp://127.0.0.1")
        text = refused(DaemonUnavailableError, remote(f"tcp://127.0.0.1:{number}"))
        # Who of the two hangs up first is not told which of the two it was.
        assert "no CURVE" in text or "not speak CURVE" in text


def test_a_place_that_takes_connections_and_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        where = remote(f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        assert "could not be reached within 0.3 s" in refused(DaemonUnavailableError, where, timeout=0.3)


def test_a_coordinator_that_does_not_answer_is_given_up_and_the_next_question_is_answered(
    tmp_path: Path,
) -> None:
    async def slow(request: AnyRequest, who: RemotePeer) -> AnyReply:
        if isinstance(request, ListJobs):
            await asyncio.Event().wait()
        return Done(text=who.name)

    with running(tmp_path, slow) as made, Client(remote(made)) as client:
        with pytest.raises(DaemonUnavailableError, match=r"did not answer within 0\.3 s"):
            client.ask(ListJobs(), timeout=0.3)
        assert client.ask(Hello()) == Done(text="alice")


def test_the_next_coordinator_is_asked_when_one_is_away_or_does_not_lead(tmp_path: Path) -> None:
    asked = []

    async def follower(request: AnyRequest, who: RemotePeer) -> AnyReply:
        asked.append(request)
        raise NotLeaderError("this coordinator does not lead")

    with (
        running(tmp_path / "1", follower) as first,
        running(tmp_path / "2") as second,
        Client(remote(nowhere(), first, second)) as client,
    ):
        assert client.ask(Hello()) == Done(text="Hello of user alice: submit,view")
        assert client.ask(GetJob(job=1)) == Done(text="GetJob of user alice: submit,view")
        assert len(asked) == 1
    asked.clear()

    async def leads_soon(request: AnyRequest, who: RemotePeer) -> AnyReply:
        if len(asked) < 3:
            return await follower(request, who)
        return Done(text="leads now")

    with (
        running(tmp_path / "4", leads_soon) as first,
        running(tmp_path / "5", follower) as second,
        Client(remote(second, nowhere(), first)) as client,
    ):
        assert client.ask(Hello()) == Done(text="leads now")
    with (
        running(tmp_path / "3", follower) as first,
        Client(remote(first, first)) as client,
        pytest.raises(DaemonUnavailableError, match="no coordinator that answers leads the fleet just now"),
    ):
        client.ask(Hello(), timeout=1.0)


def test_one_that_takes_connections_and_says_nothing_is_passed_over_with_whatever_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topod.protocol.remote_client.SILENT_SECONDS", 0.2)
    with socket.socket() as frozen, running(tmp_path) as made:
        frozen.bind(("127.0.0.1", 0))
        frozen.listen()
        where = remote(f"tcp://127.0.0.1:{frozen.getsockname()[1]}", made)
        for request in (Hello(), Cancel(jobs=[1])):
            with Client(where) as client:
                answer = client.ask(request, timeout=SECONDS)
            assert answer == Done(text=f"{type(request).__name__} of user alice: submit,view")


def test_a_coordinator_named_with_its_old_and_its_new_key_is_found_with_either(tmp_path: Path) -> None:
    old, new = ((STRANGER.public, COORDINATOR.public), (COORDINATOR.public, STRANGER.public))
    with running(tmp_path) as made:
        for keys in (old, new):
            places = tuple(Coordinator(endpoint=made.server.endpoint, key=key) for key in keys)
            with Client(Remote(coordinators=places, keys=USER)) as client:
                assert client.ask(Hello()) == Done(text="Hello of user alice: submit,view")


def test_a_connection_that_breaks_off_is_told_and_only_what_changes_nothing_is_asked_again(
    tmp_path: Path,
) -> None:
    asked = []

    async def broken(request: AnyRequest, who: RemotePeer) -> AnyReply:
        asked.append(request)
        if isinstance(request, Hello) and len(asked) == 2:
            return Done(text="still here")
        for connection in list(made.server._connections):
            made.server.cut(connection)
        await asyncio.Event().wait()
        raise AssertionError

    cancel = Cancel(jobs=[1])
    for several in (True, False):
        with running(tmp_path / str(several), broken) as made:
            where = remote(*([made, made] if several else [made]))
            with Client(where) as client:
                assert client.ask(Hello(), timeout=SECONDS) == Done(text="still here")
            assert "broke off before it answered" in refused(DaemonUnavailableError, where, request=cancel)
            assert asked == [Hello(), Hello(), cancel]
        asked.clear()


def test_a_submit_is_asked_again_of_a_coordinator_that_is_being_restarted(tmp_path: Path) -> None:
    broke = threading.Event()

    async def killed(request: AnyRequest, who: RemotePeer) -> AnyReply:
        for connection in list(first.server._connections):
            first.server.cut(connection)
        broke.set()
        await asyncio.Event().wait()
        raise AssertionError

    def ask() -> None:
        with Client(where) as client:
            told.append(
                client.ask(Submit(spec=JobSpec(name="a", command=("true",)), token="once"), timeout=SECONDS)
            )

    told: list[AnyReply] = []
    with running(tmp_path / "1", killed) as first:
        where = remote(first)
        asking = threading.Thread(target=ask)
        asking.start()
        assert broke.wait(SECONDS)
    with running(tmp_path / "2", endpoint=where.coordinators[0].endpoint):
        asking.join()
    assert told == [Done(text="Submit of user alice: submit,view")]


def test_events_of_a_coordinator_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topod.protocol.client.EVENTS_SECONDS", 0.0)
    story = [EventView(seq=1, at=1.0, name="old", job=None, text="")]

    async def telling(request: AnyRequest, who: RemotePeer) -> AnyReply:
        assert isinstance(request, ReadEvents)
        if request.since < 0:
            return Events(events=story[request.since :])
        return Events(events=[event for event in story if event.seq > request.since])

    with running(tmp_path, telling) as made, Client(remote(made)) as client:
        seen = client.events()
        assert next(seen) is None
        story.append(EventView(seq=2, at=2.0, name="new", job=None, text=""))
        heard = next(event for event in seen if event is not None)
        assert heard.name == "new"


def gated() -> tuple[Answer, list[AnyRequest]]:
    """Return a gate's answer before a service that notes what reaches it."""
    reached: list[AnyRequest] = []

    async def service(request: AnyRequest) -> AnyReply:
        reached.append(request)
        return WELCOME if isinstance(request, Hello) else Events(events=[])

    async def owner(job: int) -> tuple[str, str]:
        return f"job {job}", "bob"

    gate = Gate(Access(SecuritySection()), answer=service, owner=owner)
    return gate.answer, reached


def test_the_same_gate_judges_users_by_the_roles_of_their_keys(tmp_path: Path) -> None:
    answer, reached = gated()
    with running(tmp_path, answer) as made, Client(remote(made)) as client:
        welcome = client.ask(Hello())
        assert isinstance(welcome, Welcome)
        assert (welcome.user, welcome.roles) == ("alice", ["submit", "view"])
        with pytest.raises(RemoteError, match="may not drain: that needs role administer") as refusal:
            client.ask(Drain(reason="x"))
        assert refusal.value.exit_status == 77
        assert len(reached) == 1


def files(folder: Path, made: Port) -> list[str]:
    """Write alice's key and the coordinator's public one; return the words that name them."""
    for name, pair in (("alice", USER), ("stranger", STRANGER)):
        (folder / f"{name}.key").write_text(f"{PRIVATE}{pair.secret} user {name}\n")
        (folder / f"{name}.key").chmod(0o600)
    (folder / "fleet.pub").write_text(f"{PUBLIC}{COORDINATOR.public} coordinator fleet\n")
    return ["--coordinator", made.server.endpoint, "--coordinator-key", str(folder / "fleet.pub")]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    for name in ("TOPOD_SOCKET", "TOPOD_COORDINATOR", "TOPOD_KEY", "TOPOD_COORDINATOR_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return monkeypatch.setenv


def test_topoctl_finds_its_coordinator_by_options_variables_and_files(
    tmp_path: Path, bare: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answer, reached = gated()
    with running(tmp_path / "port", answer) as made:
        words = files(tmp_path, made)
        assert run([*words, "--key", str(tmp_path / "alice.key"), "events"]) == 0
        assert run(["events", *words, "--key", str(tmp_path / "alice.key")]) == 0
        capsys.readouterr()
        assert run(["events", *words, "--key", str(tmp_path / "stranger.key")]) == 77
        assert "does not know the key" in capsys.readouterr().err
        assert run(["events", *words]) == 2
        assert "asks for a key" in capsys.readouterr().err
        bare("TOPOD_KEY", str(tmp_path / "alice.key"))
        config = tmp_path / "config" / "topod" / "client.toml"
        config.parent.mkdir(parents=True)
        where, public = made.server.endpoint, str(tmp_path / "fleet.pub")
        config.write_text(f'coordinator = ["{where}"]\ncoordinator-key = "{public}"\n')
        assert run(["events"]) == 0
        bare("TOPOD_COORDINATOR", nowhere())
        assert run(["events"]) == 69
        assert len(reached) >= 3
        bare("TOPOD_SOCKET", str(tmp_path / "none"))
        assert run(["events"]) == 2
        assert "both TOPOD_SOCKET and TOPOD_COORDINATOR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text", "status", "error"),
    [
        (["--socket", "/x", "--coordinator", "tcp://a:1"], "", 2, "which one?"),
        (["--coordinator", "tcp://a:1"], "", 2, "the key of the coordinator at tcp://a:1 is not known here"),
        (["--coordinator", "ipc://a", "--coordinator-key", "PUBLIC"], "", 2, "tcp://HOST:PORT"),
        (["--coordinator", "tcp://a:0", "--coordinator-key", "PUBLIC"], "", 2, "tcp://HOST:PORT"),
        (["--coordinator", "tcp://a:1", "--coordinator-key", PRIVATE + "x"], "", 2, "private key has 40"),
        (
            ["--coordinator", "tcp://a:1", "--coordinator-key", "/none"],
            "",
            4,
            "/none (the coordinator's public key)",
        ),
        ([], "coordinator = 1", 65, "client.toml: coordinator: must be text"),
        ([], "coordinators = []", 65, "client.toml: unknown key: 'coordinators'"),
        ([], "coordinator = ", 65, "client.toml: not TOML"),
    ],
    ids=str,
)
def test_a_place_that_cannot_be_meant_is_one_line(  # noqa: PLR0917 - a table's columns, and fixtures
    tmp_path: Path,
    bare: Callable[[str, str], None],
    words: list[str],
    text: str,
    status: int,
    error: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "alice.key").write_text(f"{PRIVATE}{USER.secret}\n")
    (tmp_path / "alice.key").chmod(0o600)
    bare("TOPOD_KEY", str(tmp_path / "alice.key"))
    config = tmp_path / "config" / "topod" / "client.toml"
    config.parent.mkdir(parents=True)
    config.write_text(text)
    # The key is another one in each run, and must not be part of the test's name.
    meant = [PUBLIC + USER.public if word == "PUBLIC" else word for word in words]
    assert run(["ps", *meant]) == status
    told = capsys.readouterr().err
    assert error in told.splitlines()[0]
    assert USER.secret not in told


def test_doctor_says_who_we_are_to_the_coordinator(
    tmp_path: Path, bare: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answer, _ = gated()
    bare("TOPOD_KEY", str(tmp_path / "alice.key"))
    with running(tmp_path / "port", answer) as made:
        words = files(tmp_path, made)
        # Whatever this machine has: nothing of it is judged.
        assert run(["doctor", *words]) == 0
        assert "you are alice (submit, view)" in " ".join(capsys.readouterr().out.split())
