"""A host's line to its coordinators: losses, refusals, and the turn to another one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zmq

from tests.fleet_port import COORDINATOR, HOST, SECONDS, STRANGER, Port, asked, hello, port
from topod.adapters.authorized import authorize, parse_entry, revoke
from topod.adapters.curve_dealer import CurveDealer
from topod.ports import Wire
from topod.protocol.curve import KeyPair
from topod.protocol.link import Orders
from topod.protocol.link_codec import decode_to_host
from topod.protocol.remote import Coordinator

NOWHERE = "tcp://127.0.0.1:1"


def at(made: Port, key: str = COORDINATOR.public) -> Coordinator:
    return Coordinator(endpoint=made.server.endpoint, key=key)


@asynccontextmanager
async def line(*coordinators: Coordinator, keys: KeyPair = HOST) -> AsyncIterator[CurveDealer]:
    dealer = CurveDealer(coordinators, keys, patience_seconds=0.3, again_seconds=0.2)
    wire: Wire = dealer
    assert not wire.connected
    try:
        yield dealer
    finally:
        dealer.close()


async def heard(dealer: CurveDealer) -> Orders:
    async with asyncio.timeout(SECONDS):
        message = decode_to_host(await dealer.recv())
    assert isinstance(message, Orders)
    return message


@asynccontextmanager
async def listening(dealer: CurveDealer) -> AsyncIterator[asyncio.Task[bytes]]:
    """Have somebody wait in `recv`, as a host always has."""
    task = asyncio.create_task(dealer.recv())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(good: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not good():  # noqa: ASYNC110 - libzmq tells nobody
            await asyncio.sleep(0.01)


def test_what_is_sent_before_there_is_a_connection_comes_when_there_is_the_newest_only(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, line(at(made)) as dealer:
            await dealer.send(hello(session="old"))
            await dealer.send(hello(session="new"))
            assert (await heard(dealer)).seq == 1
            assert dealer.connected
            assert [message.session for _, message in made.heard] == ["new"]  # type: ignore[union-attr] # a hello
            await dealer.send(hello())
            assert (await heard(dealer)).seq == 2

    asyncio.run(scene())


def test_a_coordinator_that_ends_and_comes_back_is_found_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        caplog.set_level(logging.INFO)
        async with port(tmp_path / "1") as made, line(at(made)) as dealer:
            await dealer.send(hello())
            await heard(dealer)
            endpoint = made.server.endpoint
            async with listening(dealer) as waits:
                await made.server.stop()
                await until(lambda: not dealer.connected)
                assert "broke off" in dealer.trouble
                await dealer.send(hello())
                async with port(tmp_path / "2", endpoint=endpoint) as again:
                    async with asyncio.timeout(SECONDS):
                        assert isinstance(decode_to_host(await waits), Orders)
                    assert (dealer.connected, dealer.trouble) == (True, "")
                    assert len(again.heard) == 1
        assert [record.message for record in caplog.records].count("fleet.connected") == 2

    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    asyncio.run(scene())


def test_the_next_coordinator_is_tried_when_one_is_not_there_or_refuses(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path / "1") as first, port(tmp_path / "2") as second:
            revoke(first.authorized, ["host:a"])
            nobody = Coordinator(endpoint=NOWHERE, key=COORDINATOR.public)
            wrong = at(second, STRANGER.public)
            async with line(nobody, at(first), wrong, at(second)) as dealer:
                await dealer.send(hello())
                await heard(dealer)
                assert dealer.endpoint == second.server.endpoint
                assert len(second.heard) == 1
                assert first.server.counts["unknown_key"] >= 1
                # All four once more, and round to the one that is left.
                authorize(first.authorized, parse_entry(f"topod-public:{HOST.public} host a"))
                dealer.move_on()
                async with listening(dealer):
                    await until(lambda: dealer.endpoint == first.server.endpoint and dealer.connected)

    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    asyncio.run(scene())


@pytest.mark.parametrize(
    ("keys", "server", "words"),
    [
        (STRANGER, COORDINATOR.public, "does not know the key topod-public:"),
        (HOST, STRANGER.public, "hung up in the handshake: its key is not topod-public:"),
    ],
    ids=["unknown key", "wrong coordinator"],
)
def test_a_refusal_is_told_once_in_words_and_tried_again(
    tmp_path: Path, keys: KeyPair, server: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, line(at(made, server), keys=keys) as dealer, listening(dealer):
            reason = "unknown_key" if keys is STRANGER else "wrong_server_key"
            await made.counted(reason, 4)
            assert words in dealer.trouble
            told = [record for record in caplog.records if record.message == "fleet.unreachable"]
            assert len(told) == 1
            assert keys.secret not in dealer.trouble

    asyncio.run(scene())


def test_a_key_that_is_authorised_at_last_gets_in_by_itself(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, line(at(made), keys=STRANGER) as dealer, listening(dealer):
            await made.counted("unknown_key")
            authorize(made.authorized, parse_entry(f"topod-public:{STRANGER.public} host c"))
            await until(lambda: dealer.connected)
            assert dealer.trouble == ""

    asyncio.run(scene())


def test_who_listens_there_and_speaks_no_curve_is_told(tmp_path: Path) -> None:
    async def scene() -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as other:
            number = other.bind_to_random_port("tcp://127.0.0.1")
            place = Coordinator(endpoint=f"tcp://127.0.0.1:{number}", key=COORDINATOR.public)
            async with line(place) as dealer, listening(dealer):
                await until(lambda: "CURVE" in dealer.trouble)

    asyncio.run(scene())


def test_a_line_that_nobody_reads_holds_up_nobody(tmp_path: Path) -> None:
    async def scene() -> None:
        async with port(tmp_path) as made, line(at(made)) as dealer:
            await dealer.send(hello())
            await heard(dealer)
            for _ in range(2000):
                await dealer.send(hello())
            await asked(made)
            await heard(dealer)

    asyncio.run(scene())
