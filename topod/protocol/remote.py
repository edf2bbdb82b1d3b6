"""Where coordinators are, the keys to speak with them, and why one does not answer."""

import re
import struct
from dataclasses import dataclass
from typing import Any, Final

import zmq

from topod.protocol.curve import PUBLIC, KeyPair, Kind, read_line

CONNECT_MS: Final = 3000
HANDSHAKE_MS: Final = 5000
_ENDPOINT = re.compile(r"tcp://(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.%A-Za-z0-9]+\]):(\d{1,5})")
EVENTS: Final = (
    zmq.EVENT_CLOSED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    """One coordinator: where it listens, and its public key, which it must prove to have."""

    endpoint: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The coordinators of a fleet, in the order in which they are tried, and who asks them."""

    coordinators: tuple[Coordinator, ...]
    keys: KeyPair


def check_endpoint(endpoint: str) -> str:
    """Return `tcp://HOST:PORT`. Raises `ValueError`."""
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or not 0 < int(match[1]) < 65536:
        raise ValueError(f"a coordinator is at tcp://HOST:PORT, not {endpoint[:80]!r}")
    return endpoint


def coordinators(endpoints: str, keys: str) -> tuple[Coordinator, ...]:
    """Return the coordinators of two lists with commas: places, and public keys (one for all, or for each).

    A key may be a whole line of its file. Raises `ValueError`.
    """
    places = [check_endpoint(word.strip()) for word in endpoints.split(",")]
    found = []
    for text in keys.split(","):
        if not text.strip():
            raise ValueError(f"a coordinator's key starts with {PUBLIC}, and there is none")
        line = read_line(text.strip())
        if line.pair is not None:
            raise ValueError("this is a coordinator's private key; only itself may have that")
        if line.kind not in (None, Kind.COORDINATOR):
            raise ValueError(f"this is the key of {line.kind} {line.name}, not of a coordinator")
        found.append(line.public)
    if len(found) not in (1, len(places)):
        text = f"{len(places)} coordinators and {len(found)} keys"
        raise ValueError(f"{text}; one key for all, or one for each")
    each = found * len(places) if len(found) == 1 else found
    return tuple(Coordinator(endpoint=place, key=key) for place, key in zip(places, each, strict=True))


def set_keys(wire: "zmq.Socket[Any]", keys: KeyPair, coordinator: Coordinator) -> None:
    """Make a socket speak CURVE, with one coordinator and nobody else."""
    wire.set(zmq.CURVE_PUBLICKEY, keys.public.encode())
    wire.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
    wire.set(zmq.CURVE_SERVERKEY, coordinator.key.encode())
    wire.set(zmq.LINGER, 0)
    wire.set(zmq.IPV6, int("[" in coordinator.endpoint))
    wire.set(zmq.CONNECT_TIMEOUT, CONNECT_MS)
    wire.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)


def read_event(frames: list[bytes]) -> tuple[int, int]:
    """Return (event, value) of a monitor's message; (0, 0) for what is none."""
    event, value = struct.unpack("=HI", frames[0]) if frames and len(frames[0]) == 6 else (0, 0)
    return event, value


def refusal(event: int, coordinator: Coordinator, keys: KeyPair) -> str | None:
    """Return why a handshake failed, in words; None: this event is no failed handshake."""
    match event:
        case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return f"the coordinator at {coordinator.endpoint} does not know the key {PUBLIC}{keys.public}"
        case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            return (
                f"the coordinator at {coordinator.endpoint} hung up in the handshake:"
                f" its key is not {PUBLIC}{coordinator.key}, or it speaks no CURVE, or has no room"
            )
        case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            return f"who listens at {coordinator.endpoint} is no coordinator: it does not speak CURVE"
        case _:
            return None
