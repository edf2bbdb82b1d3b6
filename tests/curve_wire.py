"""A client of CurveZMQ made by hand, to say what libzmq's own would not (https://rfc.zeromq.org/spec/26)."""

import ctypes
import ctypes.util
import secrets
import socket
from pathlib import Path
from typing import Self

import pytest
import zmq
from zmq.utils import z85

from topod.protocol.curve import KeyPair

GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + b"\0" + bytes(31)
NULL_GREETING = GREETING.replace(b"CURVE", b"NULL\0")
SECONDS = 20.0


def _sodium() -> ctypes.CDLL | None:
    beside = sorted(Path(zmq.__file__).parent.parent.glob("pyzmq.libs/libsodium*.so*"))
    found = str(beside[0]) if beside else ctypes.util.find_library("sodium")
    return ctypes.CDLL(found) if found else None


def box(text: bytes, nonce: bytes, public: bytes, secret: bytes) -> bytes:
    """Return text as only the owner of `public` can read it, and only the owner of `secret` can have written it."""
    library = _sodium()
    if library is None:
        pytest.skip("needs libsodium")
    out = ctypes.create_string_buffer(len(text) + 16)
    assert library.crypto_box_easy(out, text, ctypes.c_ulonglong(len(text)), nonce, public, secret) == 0
    return out.raw


def opened(sealed: bytes, nonce: bytes, public: bytes, secret: bytes) -> bytes:
    """Return what `box` sealed."""
    library = _sodium()
    if library is None:
        pytest.skip("needs libsodium")
    out = ctypes.create_string_buffer(len(sealed) - 16)
    length = ctypes.c_ulonglong(len(sealed))
    assert library.crypto_box_open_easy(out, sealed, length, nonce, public, secret) == 0
    return out.raw


def properties(**values: bytes) -> bytes:
    """Return metadata as ZMTP writes it; `_` in a name stands for `-`."""
    return b"".join(
        bytes([len(name)]) + name.replace("_", "-").encode() + len(value).to_bytes(4, "big") + value
        for name, value in values.items()
    )


class RawClient:
    """One TCP connection on which CURVE is spoken by hand, and all that was sent on it."""

    def __init__(self, endpoint: str, keys: KeyPair, server: str) -> None:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        self.wire = socket.create_connection((host, int(port)), timeout=SECONDS)
        self.sent = b""
        self._public, self._secret = (z85.decode(key.encode()) for key in (keys.public, keys.secret))
        self._server = z85.decode(server.encode())
        public, secret = zmq.curve_keypair()
        self._short_public, self._short_secret = z85.decode(public), z85.decode(secret)
        self._server_short = b""
        self._nonce = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def send(self, data: bytes) -> None:
        self.sent += data
        self.wire.sendall(data)

    def greet(self) -> None:
        self.send(GREETING)
        self._exactly(64)

    def hello(self) -> None:
        nonce = self._next()
        sealed = box(bytes(64), b"CurveZMQHELLO---" + nonce, self._server, self._short_secret)
        self.command(b"\x05HELLO\x01\0" + bytes(72) + self._short_public + nonce + sealed)

    def initiate(self, metadata: bytes) -> None:
        welcome = self.frame()
        assert welcome[:8] == b"\x07WELCOME"
        plain = opened(welcome[24:], b"WELCOME-" + welcome[8:24], self._server, self._short_secret)
        self._server_short, cookie = plain[:32], plain[32:]
        nonce = secrets.token_bytes(16)
        vouch = box(self._short_public + self._server, b"VOUCH---" + nonce, self._server_short, self._secret)
        counter = self._next()
        text = self._public + nonce + vouch + metadata
        sealed = box(text, b"CurveZMQINITIATE" + counter, self._server_short, self._short_secret)
        self.command(b"\x08INITIATE" + cookie + counter + sealed)

    def handshake(self, metadata: bytes) -> bytes:
        """Do all of it and return the server's last word, READY or ERROR."""
        self.greet()
        self.hello()
        self.initiate(metadata)
        return self.frame()

    def message(self, data: bytes) -> None:
        """Send a message of one frame."""
        nonce = self._next()
        sealed = box(b"\0" + data, b"CurveZMQMESSAGEC" + nonce, self._server_short, self._short_secret)
        body = b"\x07MESSAGE" + nonce + sealed
        self.send(b"\x02" + len(body).to_bytes(8, "big") + body)

    def command(self, body: bytes) -> None:
        head = bytes([4, len(body)]) if len(body) < 256 else b"\x06" + len(body).to_bytes(8, "big")
        self.send(head + body)

    def frame(self) -> bytes:
        """Return the next frame that the server sent; empty when it hung up."""
        try:
            flags = self._exactly(1)[0]
            return self._exactly(int.from_bytes(self._exactly(8 if flags & 2 else 1), "big"))
        except (EOFError, ConnectionResetError):
            return b""

    def received(self) -> bytes:
        """Return all that still comes, to the end that the server makes of the connection."""
        found = b""
        try:
            while piece := self.wire.recv(65536):
                found += piece
        except ConnectionResetError:
            pass
        return found

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            piece = self.wire.recv(count - len(found))
            if not piece:
                raise EOFError
            found += piece
        return found

    def _next(self) -> bytes:
        self._nonce += 1
        return self._nonce.to_bytes(8, "big")
