"""Damaged messages to a real topod's socket: every one is answered or dropped, and nothing changes."""

import copy
import json
import random
import socket
from collections.abc import Callable
from pathlib import Path

import zmq

from tests.fuzz import samples
from tests.fuzz.mutations import JUNK, TOKENS, places
from tests.integration.daemon_process import Topod
from topod.protocol.codec import MAX_MESSAGE_BYTES, ProtocolError, decode_reply, decode_request
from topod.protocol.replies import Host, Welcome
from topod.protocol.requests import GetHost, Hello, ListJobs, WaitJob
from topod.shell.gate import NEEDS, Need

ROUND = 250
REPLY_MS = 60_000
HARMLESS = (Need.NOTHING, Need.VIEW)


def besiege(folder: Path, seed: int, messages: int, progress: Callable[[int], None] = lambda _: None) -> None:
    """Send so many messages to a topod of its own; raise `AssertionError` when one does harm."""
    with Topod(folder / "t").start() as topod:
        topod.submit("sleep", "600", gpus=1, name="bystander")
        topod.wait(1, "running")
        before = seen(topod)
        for done in range(0, messages, ROUND):
            rng = random.Random(f"{seed}.{done}")
            try:
                storm(topod, rng, min(ROUND, messages - done))
                assert seen(topod) == before, "its state changed"
            except Exception as error:
                raise AssertionError(f"seed {seed}, messages from {done} on: {error!r}") from error
            progress(min(messages, done + ROUND))
        assert "Traceback" not in topod.log.read_text(), topod.log.read_text()[-3000:]


def seen(topod: Topod) -> object:
    """Return what anybody can see of a topod, and which process it is."""
    welcome, host = topod.ask(Hello()), topod.ask(GetHost())
    assert isinstance(welcome, Welcome)
    assert isinstance(host, Host)
    return welcome.pid, welcome.generation, topod.ask(ListJobs()), host.host.gpus


def storm(topod: Topod, rng: random.Random, count: int) -> None:
    """Send damaged messages, then a good one on the same connection, whose answer must come."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as wire:
        wire.set(zmq.LINGER, 0)
        wire.set(zmq.RCVHWM, 0)
        wire.connect(f"ipc://{topod.socket}")
        for _ in range(count):
            if rng.random() < 0.05:
                raw(topod, rng)
                continue
            wire.send_multipart(frames(rng))
        wire.send(json.dumps({"v": 1, "id": "the last one", "body": {"kind": "hello"}}).encode())
        while True:
            assert wire.poll(REPLY_MS), "no answer to a good request"
            reply = decode_reply(wire.recv_multipart()[-1])
            if reply.id == "the last one":
                assert isinstance(reply.body, Welcome)
                return


def frames(rng: random.Random) -> list[bytes]:
    """Return the frames of one message that asks for nothing that would change something."""
    shape = rng.random()
    body = message(rng)
    if shape < 0.75:
        return [body]
    if shape < 0.85:
        return [b"", body]
    if shape < 0.87:
        return [b"x" * (MAX_MESSAGE_BYTES + rng.randrange(-2, 3))]
    return [rng.choice((b"", b"a", body)) for _ in range(rng.randrange(1, 6))] + [b"last"]


def message(rng: random.Random) -> bytes:
    """Return the bytes of a damaged request."""
    while True:
        tree = json.loads(json.dumps(rng.choice(_REQUESTS)))
        for _ in range(rng.randrange(4)):
            holder, key = rng.choice([*places(tree)])
            holder[key] = copy.deepcopy(rng.choice(JUNK))
        data = json.dumps(tree).encode()
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(data) + 1)
            data = data[:at] + rng.choice(TOKENS) + data[at + rng.randrange(9) :]
        try:
            asked = decode_request(data).body
        except ProtocolError:
            return data
        # One that is still good may be sent when it only looks, and answers at once.
        if NEEDS.get(type(asked)) in HARMLESS and not isinstance(asked, WaitJob):
            return data


def raw(topod: Topod, rng: random.Random) -> None:
    """Say something that is not even ZeroMQ, or the beginning of it."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(5)
        wire.connect(str(topod.socket))
        wire.sendall(
            rng.choice(
                (
                    rng.randbytes(rng.randrange(200)),
                    greeting[: rng.randrange(64)],
                    greeting + b"\x02" + b"\xff" * 8,
                    greeting + bytes([4, 5]) + b"READY",
                    b"GET / HTTP/1.1\r\n\r\n",
                )
            )
        )


_REQUESTS = samples.requests()
