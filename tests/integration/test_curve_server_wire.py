"""A coordinator's port and who writes bytes of his own: forged, recorded, played again."""

import asyncio
import contextlib
from pathlib import Path

import pytest
import zmq

from tests.curve_wire import GREETING, NULL_GREETING, RawClient, properties
from tests.fleet_port import (
    ALICE,
    COORDINATOR,
    HOST,
    OTHER_HOST,
    SECONDS,
    asked,
    hello,
    peer,
    port,
)


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


def test_a_peer_that_names_its_connection_itself_is_cut(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, peer(made, OTHER_HOST, ROUTING_ID=b"a") as wire:
            await wire.send(hello("b"))
            await made.counted("chosen_name")
            assert not made.heard
            assert await asked(made) == ALICE

    asyncio.run(scene())
