"""A coordinator's port: who gets in, as whom, and who is told why not."""

import asyncio
from pathlib import Path

import pytest

from tests.fleet_port import (
    ALICE,
    COORDINATOR,
    HOST,
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
from topod.adapters.authorized import AuthorizedKeys
from topod.adapters.curve_limits import Limits
from topod.adapters.curve_server import CurveServer
from topod.errors import ConflictError, UsageError
from topod.protocol.codec import decode_reply
from topod.protocol.curve import KeyPair
from topod.protocol.link import HostHello, Orders, TurnedAway
from topod.protocol.link_codec import decode_to_host
from topod.protocol.replies import Counts, Failure


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
