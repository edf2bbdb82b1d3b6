"""A coordinator's port: who gets in, as whom, and what the others can do to those who are in."""

import asyncio
import contextlib
import resource
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.curve_wire import GREETING, NULL_GREETING, RawClient, properties
from tests.fleet_port import (
    COORDINATOR,
    HOST,
    OTHER_HOST,
    SECONDS,
    STRANGER,
    USER,
    asked,
    echo,
    hello,
    peer,
    port,
    received,
    request,
)
from topoctl.render.hosts import port_line
from topod.adapters.authorized import AuthorizedKeys, authorize, parse_entry, revoke
from topod.adapters.curve_limits import Limits
from topod.adapters.curve_server import CurveServer
from topod.adapters.peers import RemotePeer
from topod.errors import ConflictError, UsageError
from topod.protocol.codec import decode_reply
from topod.protocol.curve import KeyPair
from topod.protocol.link import HostHello, Orders, TurnedAway
from topod.protocol.link_codec import MAX_FROM_HOST_BYTES, decode_to_host
from topod.protocol.replies import AnyReply, Counts, Done, Failure
from topod.protocol.requests import AnyRequest, GetJob, ListJobs

ALICE = Done(text="Hello of user alice: submit,view")


def test_a_host_and_a_user_speak_through_one_port_by_their_keys(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, peer(made, HOST) as host:
            await host.send(hello())
            assert isinstance(decode_to_host((await received(host))[0]), Orders)
            assert await asked(made) == ALICE
            assert [name for name, _ in made.heard] == ["a"]
        assert made.gone.count("user:alice") == 1

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("keys", "server", "reason"),
    [
        (None, "", "no_curve"),
        (STRANGER, COORDINATOR.public, "unknown_key"),
        (HOST, STRANGER.public, "wrong_server_key"),
    ],
    ids=["no CURVE", "unknown key", "wrong server key"],
)
def test_who_does_not_belong_gets_nothing_and_is_counted_and_noted(
    tmp_path: Path, keys: KeyPair | None, server: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, peer(made, keys, server=server) as wire:
            await wire.send(hello())
            # A client without CURVE notices it too: who hangs up first decides what is counted here.
            either = (reason, "unfinished") if keys is None else (reason,)
            await made.until(lambda: any(made.server.counts.get(one) for one in either))
            assert await asked(made) == ALICE
            assert not made.heard
            assert not await wire.poll(0)
            assert made.server.counts["admitted"] == 1
        noted = [vars(record)["event"] for record in caplog.records if record.message == "port.refused"]
        assert set(noted) & set(either)
        assert len(noted) == len(set(noted)), "one line a minute for each reason"

    asyncio.run(scene())


def test_bytes_of_another_protocol_are_counted_and_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made:
            where = ("127.0.0.1", int(made.server.endpoint.rpartition(":")[2]))
            for _ in range(3):
                _, writer = await asyncio.open_connection(*where)
                writer.write(b"GET / HTTP/1.1\r\nHost: fleet\r\n\r\n" * 4)
                writer.close()
            await made.counted("accepted", 3)
            await made.until(lambda: not made.server.counts["half_open"])
            counts = {name: n for name, n in made.server.counts.items() if n and name != "accepted"}
            assert sum(counts.values()) == 3
            assert set(counts) <= {"malformed", "unfinished", "no_word"}
            assert port_line(Counts(port=dict(made.server.counts))).startswith("port, refused or cut: ")
        noted = [vars(record)["event"] for record in caplog.records if record.message == "port.refused"]
        assert sorted(noted) == sorted(counts)

    asyncio.run(scene())


def test_without_an_answer_from_us_libzmq_lets_nobody_in(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made:
            made.server._admission.close()
            async with peer(made, HOST) as wire:
                watch = wire.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
                await wire.send(hello())
                async with asyncio.timeout(SECONDS):
                    event = int.from_bytes((await watch.recv_multipart())[0][:2], "little")
                assert event == zmq.EVENT_DISCONNECTED
                assert not made.heard

    asyncio.run(scene())


def test_a_peer_cannot_say_who_it_is(tmp_path: Path) -> None:
    lies = properties(
        Socket_Type=b"DEALER",
        User_Id=b"host:a",
        Topod_Key=HOST.public.encode(),
        Peer_Address=b"10.9.9.9",
        __fd=b"0",
    )

    async def scene() -> None:
        async with port(tmp_path) as made:

            def lie() -> None:
                with RawClient(made.server.endpoint, OTHER_HOST, COORDINATOR.public) as liar:
                    assert liar.handshake(lies)[:6] == b"\x05READY"
                    liar.message(hello("b"))
                    assert liar.frame()[:8] == b"\x07MESSAGE"
                    liar.message(hello("a"))
                    assert liar.frame()[:8] == b"\x07MESSAGE"

            await asyncio.to_thread(lie)
            await made.counted("wrong_name")
            # What it says of itself changed nothing: it is b, and may not call itself a.
            assert [name for name, _ in made.heard] == ["b"]
            assert made.server.counts["wrong_name"] == 1

    asyncio.run(scene())


def test_a_recorded_connection_played_again_gets_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made:

            def record() -> bytes:
                with RawClient(made.server.endpoint, HOST, COORDINATOR.public) as client:
                    assert client.handshake(properties(Socket_Type=b"DEALER"))[:6] == b"\x05READY"
                    client.message(hello())
                    assert client.frame()[:8] == b"\x07MESSAGE"
                    return client.sent

            recorded = await asyncio.to_thread(record)
            assert len(made.heard) == 1

            def play() -> bytes:
                with RawClient(made.server.endpoint, HOST, COORDINATOR.public) as client:
                    client.send(recorded)
                    return client.received()

            answer = await asyncio.to_thread(play)
            # A greeting and a WELCOME, with which only the owner of that session's key could go on.
            assert b"READY" not in answer
            assert b"MESSAGE" not in answer
            assert len(made.heard) == 1
            assert made.server.counts["admitted"] == 1

    asyncio.run(scene())


def test_a_message_of_a_session_is_good_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made:

            def twice() -> None:
                with RawClient(made.server.endpoint, HOST, COORDINATOR.public) as client:
                    client.handshake(properties(Socket_Type=b"DEALER"))
                    before = len(client.sent)
                    client.message(hello())
                    assert client.frame()[:8] == b"\x07MESSAGE"
                    client.send(client.sent[before:])
                    client.received()  # until it is hung up on: at once, or as one that says nothing more

            await asyncio.to_thread(twice)
            assert len(made.heard) == 1

    asyncio.run(scene())


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 100,
        bytes(200),
        b"\xff" * 500,
        NULL_GREETING + b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER",
        # ZMTP 1.0 and 2.0 knew no security: whoever speaks them is not let in with an older tongue.
        b"\x01\x00" + b"\x0c\x00hello world",
        b"\xff" + bytes(7) + b"\x01\x7f\x01\x05\x00\x00" + b"\x00\x0bhello world",
        GREETING + b"\x06" + (1 << 62).to_bytes(8, "big") + b"\x05HELLO",
        GREETING + b"\x04\xc8\x05HELLO\x01\x00" + bytes(192),
        GREETING + b"\x04\x06\x05READY",
        GREETING + b"\x00\x05hello",
        GREETING[:40],
        GREETING,
        b"\xff",
        b"",
    ],
)
def test_bytes_that_are_no_handshake_are_hung_up_on(tmp_path: Path, data: bytes) -> None:
    async def scene() -> None:
        async with port(tmp_path, handshake_ms=500) as made:

            def raw() -> bytes:
                with RawClient(made.server.endpoint, HOST, COORDINATOR.public) as client:
                    with contextlib.suppress(ConnectionError):
                        client.send(data)
                    return client.received()

            said = await asyncio.to_thread(raw)
            assert b"READY" not in said
            assert await asked(made) == ALICE
            assert not made.heard
            assert made.server.counts["admitted"] == 1

    asyncio.run(scene())


def test_a_key_in_the_wrong_place_is_told_so(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made:
            refused = await asked(made, HOST)
            assert isinstance(refused, Failure)
            assert (refused.code, refused.text) == (
                "not-allowed",
                "this is the key of host a, and a user asks",
            )
            async with peer(made, USER) as wire:
                await wire.send(hello())
                told = decode_to_host((await received(wire))[0])
                assert told == TurnedAway(reason="this is the key of user alice, not of a host")
            async with peer(made, HOST) as wire:
                await wire.send(request())
                assert isinstance(decode_reply((await received(wire))[0]).body, Failure)
                await wire.send(hello("b"))
                told = decode_to_host((await received(wire))[0])
                assert told == TurnedAway(reason="this is the key of host a, not of 'b'")
            assert not made.heard
            assert made.server.counts["wrong_place"] == 3

    asyncio.run(scene())


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"{}", b"[" * 100_000, b'{"kind":"report"}', b'{"kind":"hello","v":9}']
)
def test_what_a_host_cannot_mean_is_turned_away_and_its_next_word_heard(tmp_path: Path, data: bytes) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, peer(made, HOST) as wire:
            await wire.send(data)
            assert isinstance(decode_to_host((await received(wire))[0]), TurnedAway)
            await wire.send(hello())
            assert isinstance(decode_to_host((await received(wire))[0]), Orders)
            assert isinstance(made.heard[0][1], HostHello)

    asyncio.run(scene())


def test_two_sessions_of_one_host_are_two_connections(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, peer(made, HOST) as one, peer(made, HOST) as two:
            for number, wire in ((1, one), (2, two)):
                await wire.send(hello(session=f"{number}"))
                orders = decode_to_host((await received(wire))[0])
                assert isinstance(orders, Orders)
                assert orders.seq == number
            await one.send(hello(session="1"))
            orders = decode_to_host((await received(one))[0])
            assert isinstance(orders, Orders)
            assert orders.seq == 3
            assert not await two.poll(0)

    asyncio.run(scene())


def test_a_peer_that_names_its_connection_itself_is_cut(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, peer(made, OTHER_HOST, ROUTING_ID=b"a") as wire:
            await wire.send(hello("b"))
            await made.counted("chosen_name")
            assert not made.heard
            assert await asked(made) == ALICE

    asyncio.run(scene())


def test_a_message_over_the_limit_cuts_its_connection_only(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, peer(made, HOST) as good, peer(made, OTHER_HOST) as bad:
            await good.send(hello())
            await received(good)
            await bad.send(hello("b"))
            await received(bad)
            await bad.send(b"x" * (MAX_FROM_HOST_BYTES + 8192))
            await made.until(lambda: made.gone == ["host:b"])
            await good.send(hello())
            assert isinstance(decode_to_host((await received(good))[0]), Orders)

    asyncio.run(scene())


def test_a_revoked_key_is_cut_while_connected_and_not_let_in_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, peer(made, HOST) as host, peer(made, OTHER_HOST) as other:
            for wire, name in ((host, "a"), (other, "b")):
                await wire.send(hello(name))
                await received(wire)
            revoke(made.authorized, ["host:a"])
            await made.until(lambda: made.gone == ["host:a"])
            await made.counted("unknown_key")
            await other.send(hello("b"))
            assert isinstance(decode_to_host((await received(other))[0]), Orders)
            assert [name for name, _ in made.heard] == ["a", "b", "b"]

    asyncio.run(scene())


def test_new_roles_hold_from_the_next_request_on_and_a_new_key_gets_in(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, peer(made, USER, zmq.REQ) as wire:
            await wire.send(request())
            assert decode_reply((await received(wire))[0]).body == ALICE
            text = made.authorized.read_text().replace("roles=view,submit", "roles=view")
            made.authorized.write_text(text)
            authorize(
                made.authorized, parse_entry(f"topod-public:{STRANGER.public} user bob roles=administer")
            )
            assert await asked(made, STRANGER) == Done(text="Hello of user bob: administer,submit,view")
            await wire.send(request())
            assert decode_reply((await received(wire))[0]).body == Done(text="Hello of user alice: view")

    asyncio.run(scene())


def test_a_file_broken_while_running_changes_nobody_and_is_told(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made:
            good = made.authorized.read_text()
            made.authorized.write_text("nonsense\n" + good)
            assert await asked(made) == ALICE
            await made.until(lambda: "authorized_keys:1" in made.server.trouble)
            made.authorized.write_text(good)
            await made.until(lambda: not made.server.trouble)
            assert await asked(made) == ALICE

    asyncio.run(scene())


def test_too_many_requests_at_once_are_refused_and_others_served(tmp_path: Path) -> None:
    async def scene() -> None:
        free = asyncio.Event()

        async def slow(request: AnyRequest, who: RemotePeer) -> AnyReply:
            if isinstance(request, ListJobs):
                await free.wait()
            return await echo(request, who)

        async with port(tmp_path, slow, requests_of_connection=3) as made, peer(made, USER) as wire:
            for number in range(5):
                await wire.send(request(ListJobs(), str(number)))
            refused = [decode_reply((await received(wire))[0]) for _ in range(2)]
            assert {reply.id for reply in refused} == {"3", "4"}
            assert all(isinstance(reply.body, Failure) for reply in refused)
            assert await asked(made) == ALICE
            free.set()
            assert {decode_reply((await received(wire))[0]).id for _ in range(3)} == {"0", "1", "2"}

    asyncio.run(scene())


def test_who_does_not_read_loses_what_is_sent_and_holds_up_nobody(tmp_path: Path) -> None:
    big = "x" * (2 << 20)

    async def long(request: AnyRequest, who: RemotePeer) -> AnyReply:
        return Done(text=big) if isinstance(request, GetJob) else await echo(request, who)

    async def scene() -> None:
        bounds: dict[str, Any] = {"unsent_bytes": 8 << 20, "requests_of_connection": 1000}
        async with port(tmp_path, long, **bounds) as made, peer(made, USER, RCVHWM=1, RCVBUF=4096) as wire:
            for number in range(60):
                await wire.send(request(GetJob(job=1), str(number)))
            await made.counted("dropped")
            assert await asked(made) == ALICE
            (connection,) = [one for one in made.server._connections if one.who.name == "alice"][:1]
            assert connection.unsent_bytes() <= 8 << 20
            first = decode_reply((await received(wire))[0]).body
            assert first == Done(text=big)

    asyncio.run(scene())


def test_who_says_more_than_can_be_heard_is_cut_and_ends_nothing_by_hanging_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topod.adapters.curve_limits.HEARTBEAT_MS", 50)

    async def scene() -> None:
        async with port(tmp_path, messages_a_second=100) as made:
            for patient in (True, False):
                async with peer(made, HOST, RECONNECT_IVL=-1) as host:
                    await host.send(hello())
                    await received(host)
                    for _ in range(900):
                        await host.send(hello())
                    if patient:
                        await made.counted("flood")
                        continue
                    # No turn for the coordinator: where libzmq stops to read meanwhile, it ends this process.
                    time.sleep(0.1)  # noqa: ASYNC251 - that is the point
                    host.close()
                    time.sleep(0.3)  # noqa: ASYNC251 - that is the point
            assert await asked(made) == ALICE
            assert len(made.heard) < 300

    asyncio.run(scene())


def test_thousands_of_half_open_connections_keep_nobody_out(tmp_path: Path) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = min(3000, (soft - 600) // 2)

    async def scene() -> None:
        async with port(tmp_path, half_open=64, handshake_ms=60_000) as made, peer(made, HOST) as host:
            await host.send(hello())
            await received(host)
            address = ("127.0.0.1", int(made.server.endpoint.rpartition(":")[2]))
            with contextlib.ExitStack() as open_ones:
                for number in range(many):
                    wire = open_ones.enter_context(socket.socket())
                    wire.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        wire.connect(address)
                    if number % 3 == 0:
                        with contextlib.suppress(OSError):
                            wire.send(GREETING[: number % 64])
                    if number % 100 == 0:
                        assert await asked(made) == ALICE
                await made.counted("pushed_out", many - 64)
                assert made.server.counts["half_open"] <= 64
                assert await asked(made) == ALICE
                await host.send(hello())
                assert isinstance(decode_to_host((await received(host))[0]), Orders)
            assert "host:a" not in made.gone
            await made.until(lambda: made.server.counts["connections"] == 1)

    asyncio.run(scene())


def test_who_gets_in_and_says_nothing_is_cut(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path, silent_seconds=0.1) as made, peer(made, HOST):
            await made.counted("silent")
            assert await asked(made) == ALICE

    asyncio.run(scene())


def test_no_more_connections_than_there_is_room_for(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            port(tmp_path, connections=2, connections_of_key=1) as made,
            peer(made, HOST) as host,
            peer(made, USER) as user,
        ):
            await host.send(hello())
            await received(host)
            await user.send(request())
            await received(user)
            async with peer(made, OTHER_HOST) as third:
                await third.send(hello("b"))
                await made.counted("full")
            async with peer(made, USER) as second:
                await second.send(request())
                await made.counted("full", 2)
            await host.send(hello())
            assert isinstance(decode_to_host((await received(host))[0]), Orders)

    asyncio.run(scene())


def test_one_key_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path, connections_of_key=1) as made, peer(made, USER) as first:
            await first.send(request())
            await received(first)
            async with peer(made, USER) as second:
                await second.send(request())
                await made.counted("too_many_of_key")
            await first.send(request())
            assert decode_reply((await received(first))[0]).body == ALICE

    asyncio.run(scene())


@pytest.mark.parametrize(
    "endpoint", ["ipc:///tmp/x", "inproc://x", "127.0.0.1:1", "tcp://nonsense", "tcp://*:x"]
)
def test_a_place_where_nobody_can_listen_is_refused(tmp_path: Path, endpoint: str) -> None:
    async def scene() -> None:
        (tmp_path / "keys").touch(0o600)
        server = CurveServer(
            endpoint,
            COORDINATOR,
            AuthorizedKeys(tmp_path / "keys"),
            on_host=lambda *_: None,
            answer=echo,
            limits=Limits(),
        )
        with pytest.raises(UsageError, match="listen"):
            server.bind()
        await server.stop()

    asyncio.run(scene())


def test_a_port_in_use_is_a_conflict(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made:
            keys = AuthorizedKeys(made.authorized)
            other = CurveServer(made.server.endpoint, COORDINATOR, keys, on_host=lambda *_: None, answer=echo)
            with pytest.raises(ConflictError, match="somebody listens"):
                other.bind()
            await other.stop()

    asyncio.run(scene())
