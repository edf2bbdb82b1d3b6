"""A coordinator's port for tests, with keys for those who come to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio

from topod.adapters.authorized import AuthorizedKeys, Entry, authorize
from topod.adapters.curve_limits import Limits
from topod.adapters.curve_peers import Connection
from topod.adapters.curve_server import CurveServer
from topod.adapters.peers import RemotePeer
from topod.model.roles import Role
from topod.protocol.codec import RequestEnvelope, decode_reply, encode
from topod.protocol.curve import KeyPair, Kind, new_pair
from topod.protocol.link import AnyFromHost, HostHello, Orders
from topod.protocol.link_codec import encode_from_host
from topod.protocol.replies import AnyReply, Done
from topod.protocol.requests import AnyRequest, Hello

SECONDS = 30.0
COORDINATOR, HOST, OTHER_HOST, USER, STRANGER = (new_pair() for _ in range(5))
Answer = Callable[[AnyRequest, RemotePeer], Awaitable[AnyReply]]
ALICE = Done(text="Hello of user alice: submit,view")
"""What `echo` answers to her."""


async def echo(request: AnyRequest, who: RemotePeer) -> AnyReply:
    return Done(text=f"{type(request).__name__} of {who.kind} {who.name}: {','.join(sorted(who.roles))}")


@dataclass
class Port:
    """A server, and what it was told."""

    server: CurveServer
    authorized: Path
    heard: list[tuple[str, AnyFromHost]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    async def until(self, good: Callable[[], object]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(SECONDS):
            while not good():  # noqa: ASYNC110 - libzmq tells nobody
                await asyncio.sleep(0.01)

    async def counted(self, reason: str, number: int = 1) -> None:
        await self.until(lambda: self.server.counts.get(reason, 0) >= number)


@asynccontextmanager
async def port(
    folder: Path, answer: Answer = echo, endpoint: str = "tcp://127.0.0.1:0", **limits: Any
) -> AsyncIterator[Port]:
    """Yield a port that host `a` and user `alice` may connect to."""
    path = folder / "authorized_keys"
    authorize(path, Entry(public=HOST.public, kind=Kind.HOST, name="a"))
    authorize(path, Entry(public=OTHER_HOST.public, kind=Kind.HOST, name="b"))
    roles = frozenset({Role.VIEW, Role.SUBMIT})
    authorize(path, Entry(public=USER.public, kind=Kind.USER, name="alice", roles=roles))

    def heard(connection: Connection, message: AnyFromHost) -> None:
        made.heard.append((connection.name, message))
        made.server.send_to(connection, Orders(session="s", epoch=1, seq=len(made.heard)))

    server = CurveServer(
        endpoint,
        COORDINATOR,
        AuthorizedKeys(path),
        on_host=heard,
        answer=answer,
        on_gone=lambda connection: made.gone.append(str(connection.who)),
        limits=Limits(**limits),
    )
    made = Port(server, path)
    server.bind()
    server.start()
    try:
        yield made
    finally:
        await server.stop()


@asynccontextmanager
async def peer(
    port: Port,
    keys: KeyPair | None,
    kind: int = zmq.DEALER,
    server: str = COORDINATOR.public,
    **options: Any,
) -> AsyncIterator[zmq.asyncio.Socket]:
    """Yield a socket that is connected, or tries to be, with these keys; without keys: without CURVE."""
    context = zmq.asyncio.Context()
    wire = context.socket(kind)
    wire.set(zmq.LINGER, 0)
    if keys is not None:
        wire.set(zmq.CURVE_PUBLICKEY, keys.public.encode())
        wire.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
        wire.set(zmq.CURVE_SERVERKEY, server.encode())
    for name, value in options.items():
        wire.set(getattr(zmq, name), value)
    wire.connect(port.server.endpoint)
    try:
        yield wire
    finally:
        context.destroy(linger=0)


async def received(wire: zmq.asyncio.Socket) -> list[bytes]:
    async with asyncio.timeout(SECONDS):
        return await wire.recv_multipart()


def request(body: AnyRequest | None = None, ident: str = "1") -> bytes:
    return encode(RequestEnvelope(v=1, id=ident, body=body or Hello()))


def hello(name: str = "a", session: str = "s") -> bytes:
    return encode_from_host(HostHello(host=name, session=session, version="1", document={}))


async def asked(port: Port, keys: KeyPair = USER, body: AnyRequest | None = None) -> AnyReply:
    async with peer(port, keys, zmq.REQ) as wire:
        await wire.send(request(body))
        return decode_reply((await received(wire))[0]).body
