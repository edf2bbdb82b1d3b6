"""A coordinator's port while the file of authorised keys changes."""

import asyncio
from pathlib import Path

import zmq

from tests.fleet_port import (
    ALICE,
    HOST,
    OTHER_HOST,
    STRANGER,
    USER,
    asked,
    hello,
    peer,
    port,
    received,
    request,
)
from topod.adapters.authorized import authorize, parse_entry, revoke
from topod.protocol.codec import decode_reply
from topod.protocol.link import Orders
from topod.protocol.link_codec import decode_to_host
from topod.protocol.replies import Done


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
