"""A coordinator's port under more than it can take: what some send holds up nobody else."""

import asyncio
import contextlib
import resource
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.curve_wire import GREETING
from tests.fleet_port import (
    ALICE,
    HOST,
    OTHER_HOST,
    USER,
    asked,
    echo,
    hello,
    peer,
    port,
    received,
    request,
)
from topod.adapters.peers import RemotePeer
from topod.protocol.codec import decode_reply
from topod.protocol.link import Orders
from topod.protocol.link_codec import MAX_FROM_HOST_BYTES, decode_to_host
from topod.protocol.replies import AnyReply, Done, Failure
from topod.protocol.requests import AnyRequest, GetJob, ListJobs


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
