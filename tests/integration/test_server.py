"""The sockets: whatever comes in, exactly one answer goes out, and nobody is held up."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import zmq
import zmq.asyncio

from topod.adapters.peers import Peer
from topod.adapters.zmq_server import MAX_AT_ONCE, Server
from topod.errors import ConflictError, NotFoundError, UsageError
from topod.protocol.codec import MAX_MESSAGE_BYTES, RequestEnvelope, decode_event, decode_reply, encode
from topod.protocol.replies import AnyReply, Done, Failure
from topod.protocol.requests import AnyRequest, GetJob, Hello, WaitJob
from topod.protocol.views import EventView

Answer = Callable[[AnyRequest, Peer | None], Awaitable[AnyReply]]


async def echo(request: AnyRequest, peer: Peer | None) -> AnyReply:
    if isinstance(request, GetJob):
        raise NotFoundError(f"no job {request.job}", hint="look")
    return Done(text=type(request).__name__)


@asynccontextmanager
async def serving(path: Path, answer: Answer = echo) -> AsyncIterator[Server]:
    server = Server(path, answer)
    server.bind()
    server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def wire(kind: int, path: Path) -> AsyncIterator[zmq.asyncio.Socket]:
    context = zmq.asyncio.Context()
    peer = context.socket(kind)
    peer.set(zmq.LINGER, 0)
    if kind == zmq.SUB:
        peer.set(zmq.SUBSCRIBE, b"")
    peer.connect(f"ipc://{path}")
    try:
        yield peer
    finally:
        context.destroy(linger=0)


def request(body: AnyRequest, ident: str = "1") -> bytes:
    return encode(RequestEnvelope(v=1, id=ident, body=body))


async def received(peer: zmq.asyncio.Socket) -> list[bytes]:
    async with asyncio.timeout(20):
        return await peer.recv_multipart()


async def asked(path: Path, data: bytes) -> AnyReply:
    async with wire(zmq.REQ, path) as peer:
        await peer.send(data)
        return decode_reply((await received(peer))[0]).body


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "t.sock"


def test_a_refusal_reaches_the_asker_with_code_and_hint(path: Path) -> None:
    async def scene() -> None:
        async with serving(path):
            reply = await asked(path, request(GetJob(job=9)))
            assert reply == Failure(code="not-found", text="no job 9", hint="look", exit_status=4)

    asyncio.run(scene())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\x00",
        b"{}",
        b"[" * 100_000,
        b'{"v": 1, "id": "x", "body": {"kind": "no-such"}}',
        b'{"v": 1, "id": "x", "body": {"kind": "hello", "extra": 1}}',
        b'{"v": 1, "id": "x", "body": {"kind": "get-job", "job": "many"}}',
        b'{"v": 2, "id": "x", "body": {"kind": "hello"}}',
        b" " * (MAX_MESSAGE_BYTES + 1),
    ],
)
def test_bytes_that_are_no_request_get_one_failure_and_the_next_request_works(
    path: Path, data: bytes
) -> None:
    async def scene() -> None:
        async with serving(path), wire(zmq.REQ, path) as peer:
            await peer.send(data)
            reply = decode_reply((await received(peer))[0]).body
            assert isinstance(reply, Failure)
            assert reply.code.startswith("protocol")
            assert reply.exit_status == 76
            await peer.send(request(Hello()))
            assert decode_reply((await received(peer))[0]).body == Done(text="Hello")

    asyncio.run(scene())


def test_a_far_too_long_message_is_cut_off_and_others_are_served(path: Path) -> None:
    async def scene() -> None:
        async with serving(path), wire(zmq.DEALER, path) as peer:
            await peer.send(b"x" * (3 * MAX_MESSAGE_BYTES))
            assert await asked(path, request(Hello())) == Done(text="Hello")
            assert not await peer.poll(100)

    asyncio.run(scene())


def test_odd_envelopes_are_dropped_and_plain_peers_served(path: Path) -> None:
    async def scene() -> None:
        async with serving(path), wire(zmq.DEALER, path) as peer:
            await peer.send_multipart([b"a", b"b", b"c", request(Hello(), "odd")])
            await peer.send_multipart([b"address", request(Hello(), "odd too")])
            await peer.send(request(Hello(), "plain"))
            frames = await received(peer)
            assert decode_reply(frames[-1]).id == "plain"
            assert not await peer.poll(100)

    asyncio.run(scene())


def test_bytes_that_are_not_even_zeromq_do_no_harm(path: Path) -> None:
    async def scene() -> None:
        async with serving(path):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(path))
                raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
                assert await asked(path, request(Hello())) == Done(text="Hello")

    asyncio.run(scene())


def test_answers_carry_the_id_of_their_question_whatever_the_order(path: Path) -> None:
    gate = asyncio.Event()

    async def answer(question: AnyRequest, peer: Peer | None) -> AnyReply:
        if isinstance(question, WaitJob):
            await gate.wait()
        else:
            gate.set()
        return Done(text=type(question).__name__)

    async def scene() -> None:
        async with serving(path, answer), wire(zmq.DEALER, path) as peer:
            await peer.send(request(WaitJob(job=1), "slow"))
            await peer.send(request(Hello(), "quick"))
            replies = [decode_reply((await received(peer))[0]) for _ in range(2)]
            told = {reply.id: reply.body for reply in replies}
            assert told == {"slow": Done(text="WaitJob"), "quick": Done(text="Hello")}

    asyncio.run(scene())


def test_more_requests_than_may_run_at_once_are_all_answered(path: Path) -> None:
    running = 0
    most = 0

    async def answer(question: AnyRequest, peer: Peer | None) -> AnyReply:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return await echo(question, peer)

    async def scene() -> None:
        count = MAX_AT_ONCE + 500
        async with serving(path, answer), wire(zmq.DEALER, path) as peer:
            peer.set(zmq.RCVHWM, 0)
            for number in range(count):
                await peer.send(request(Hello(), str(number)))
            idents = [decode_reply((await received(peer))[0]).id for _ in range(count)]
            assert sorted(idents, key=int) == [str(number) for number in range(count)]
            assert most <= MAX_AT_ONCE

    asyncio.run(scene())


def test_every_watcher_gets_every_event(path: Path) -> None:
    async def scene() -> None:
        async with serving(path) as server, wire(zmq.SUB, server.events_path) as peer:
            event = EventView(seq=1, at=1.0, name="job.started", job=3, text="t", data={"a": [1]})
            # A subscription takes a moment to arrive; until then events pass by.
            while not await peer.poll(20):
                server.publish(event)
            topic, data = await received(peer)
            assert (topic, decode_event(data)) == (b"job.started", event)

    asyncio.run(scene())


def test_what_is_published_while_the_daemon_stops_reaches_nobody_and_disturbs_nobody(path: Path) -> None:
    async def scene() -> None:
        async with serving(path) as server:
            event = EventView(seq=1, at=1.0, name="job.started", job=3, text="t", data={})
            server.publish(event)
        # The parts that decide stop after the sockets: what they were about to tell has been decided.
        server.publish(event)

    asyncio.run(scene())


def test_the_socket_of_a_dead_daemon_is_replaced_and_that_of_a_living_one_is_not(path: Path) -> None:
    path.parent.mkdir()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()

    async def scene() -> None:
        async with serving(path):
            assert await asked(path, request(Hello())) == Done(text="Hello")
            second = Server(path, echo)
            with pytest.raises(ConflictError, match="another topod listens"):
                second.bind()
            await second.stop()
            assert await asked(path, request(Hello())) == Done(text="Hello")

    asyncio.run(scene())
    assert not path.exists()


def take_away(*files: Path, folder: Path | None = None) -> None:
    for file in files:
        file.unlink()
    if folder is not None:
        folder.rmdir()


def owner_and_mode(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_gid, found.st_mode


def put_in_the_place_of(file: Path) -> None:
    file.unlink()
    file.write_text("precious")


async def heard(server: Server, peer: zmq.asyncio.Socket) -> bytes:
    """Return the topic of an event that a watcher got; until its subscription arrives events pass by."""
    async with asyncio.timeout(20):
        while not await peer.poll(20):
            server.publish(EventView(seq=1, at=1.0, name="job.started", job=3, text="t", data={}))
        topic: bytes = (await peer.recv_multipart())[0]
        return topic


@pytest.mark.parametrize("with_folder", [False, True])
def test_sockets_whose_files_are_removed_come_back_and_who_was_connected_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch, with_folder: bool
) -> None:
    monkeypatch.setattr("topod.adapters.zmq_server.LOOK_SECONDS", 0.01)

    async def scene() -> None:
        async with (
            serving(path) as server,
            wire(zmq.DEALER, path) as old,
            wire(zmq.SUB, server.events_path) as watcher,
        ):
            await old.send(request(Hello(), "before"))
            assert decode_reply((await received(old))[-1]).id == "before"
            assert await heard(server, watcher) == b"job.started"
            shared = owner_and_mode(path)
            for _ in range(2):
                take_away(path, server.events_path, folder=path.parent if with_folder else None)
                assert await asked(path, request(Hello())) == Done(text="Hello")
                assert owner_and_mode(path) == shared
                async with wire(zmq.SUB, server.events_path) as late:
                    assert await heard(server, late) == b"job.started"
                assert await heard(server, watcher) == b"job.started"
                await old.send(request(Hello(), "after"))
                assert decode_reply((await received(old))[-1]).id == "after"

    asyncio.run(scene())
    assert list(path.parent.iterdir()) == []


def test_a_socket_whose_place_another_took_is_left_to_it_and_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topod.adapters.zmq_server.LOOK_SECONDS", 0.01)
    told: asyncio.Queue[str] = asyncio.Queue()

    async def until(wanted: str) -> None:
        async with asyncio.timeout(20):
            while wanted not in (text := await told.get()) or bool(wanted) != bool(text):
                pass

    async def scene() -> None:
        first = Server(path, echo, on_trouble=told.put_nowait)
        first.bind()
        take_away(path, first.events_path)
        async with serving(path):
            first.start()
            await until("another topod listens")
            assert await asked(path, request(Hello())) == Done(text="Hello")
        await until("")
        assert await asked(path, request(Hello())) == Done(text="Hello")
        put_in_the_place_of(path)
        await until("it is not a socket")
        await first.stop()

    asyncio.run(scene())
    assert path.read_text() == "precious"


def test_a_file_in_the_way_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")

    async def scene() -> None:
        server = Server(path, echo)
        with pytest.raises(UsageError, match="it is not a socket"):
            server.bind()
        await server.stop()

    asyncio.run(scene())
    assert path.read_text() == "precious"


def test_an_answer_beyond_every_limit_becomes_a_failure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topod.adapters.zmq_server.MAX_REPLY_BYTES", 1000)

    async def answer(question: AnyRequest, peer: Peer | None) -> AnyReply:
        return Done(text="x" * 2000)

    async def scene() -> None:
        async with serving(path, answer):
            reply = await asked(path, request(Hello()))
            assert isinstance(reply, Failure)
            assert "the limit is 1000" in reply.text

    asyncio.run(scene())


def test_a_defect_while_answering_does_not_stop_the_server(path: Path) -> None:
    async def answer(question: AnyRequest, peer: Peer | None) -> AnyReply:
        if isinstance(question, GetJob):
            raise msgspec.MsgspecError("a defect")
        return await echo(question, peer)

    async def scene() -> None:
        async with serving(path, answer), wire(zmq.DEALER, path) as peer:
            await peer.send(request(GetJob(job=1)))
            assert await asked(path, request(Hello())) == Done(text="Hello")

    asyncio.run(scene())


def test_a_folder_where_everybody_could_replace_the_socket_is_refused(path: Path) -> None:
    async def scene() -> None:
        server = Server(path, echo)
        with pytest.raises(UsageError, match="everybody may replace files in the socket's folder"):
            server.bind()
        await server.stop()
        path.parent.chmod(0o1777)  # as /tmp: only its owner may
        async with serving(path):
            assert await asked(path, request(Hello())) == Done(text="Hello")

    path.parent.mkdir()
    path.parent.chmod(0o777)
    asyncio.run(scene())


def test_a_group_that_is_not_there_is_told(path: Path) -> None:
    async def scene() -> None:
        server = Server(path, echo, group="no-such-group-here")
        with pytest.raises(UsageError, match="there is no group no-such-group-here"):
            server.bind()
        await server.stop()

    asyncio.run(scene())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to any group")
def test_the_files_have_their_group_and_mode_from_the_configuration(path: Path) -> None:
    async def scene() -> None:
        server = Server(path, echo, group="41001", mode=0o660)
        server.bind()
        for file in (path, server.events_path):
            assert (file.stat().st_gid, stat.S_IMODE(file.stat().st_mode)) == (41001, 0o660)
        assert (path.parent.stat().st_gid, stat.S_IMODE(path.parent.stat().st_mode)) == (41001, 0o750)
        await server.stop()

    asyncio.run(scene())
