"""Bytes to the messages between a host and a coordinator, and back.

Whatever bytes come in, the answer is a message or a `ProtocolError`.
"""

from typing import Final, cast

import msgspec

from topod.protocol.codec import (
    MAX_MESSAGE_BYTES,
    IncompatibleVersionError,
    ProtocolError,
    decode_as,
    encode,
    from_plain,
)
from topod.protocol.link import LINK_VERSION, AnyFromHost, AnyToHost

MAX_FROM_HOST_BYTES: Final = 2 * MAX_MESSAGE_BYTES
"""A report of a thousand jobs is half a megabyte, the longest answer to a question four."""
MAX_TO_HOST_BYTES: Final = 4 * MAX_MESSAGE_BYTES
_KINDS: Final = frozenset({"hello", "report", "answer"})


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = ""
    v: int | None = None


_heads = msgspec.json.Decoder(_Head)
# mypy takes the union of message types for a value of type `UnionType`.
_from_host = cast("msgspec.json.Decoder[AnyFromHost]", msgspec.json.Decoder(AnyFromHost, dec_hook=from_plain))
_to_host = cast("msgspec.json.Decoder[AnyToHost]", msgspec.json.Decoder(AnyToHost, dec_hook=from_plain))


def encode_from_host(message: AnyFromHost) -> bytes:
    """Return what a host says as one frame. Raises `ProtocolError` when it is too long."""
    return _checked(encode(message), MAX_FROM_HOST_BYTES)


def encode_to_host(message: AnyToHost) -> bytes:
    """Return what a coordinator says as one frame. Raises `ProtocolError` when it is too long."""
    return _checked(encode(message), MAX_TO_HOST_BYTES)


def decode_from_host(data: bytes) -> AnyFromHost:
    """Read what a host says. Raises `ProtocolError` on anything else."""
    head = _head(data)
    if head is not None and head.kind == "hello" and head.v not in (None, LINK_VERSION):
        raise IncompatibleVersionError(
            f"this coordinator speaks version {LINK_VERSION} with hosts, not {head.v}"
        )
    return decode_as(_from_host, data, MAX_FROM_HOST_BYTES)


def decode_to_host(data: bytes) -> AnyToHost:
    """Read what a coordinator says. Raises `ProtocolError` on anything else."""
    return decode_as(_to_host, data, MAX_TO_HOST_BYTES)


def comes_from_host(data: bytes) -> bool:
    """Whether somebody speaks as a host does, whatever else may be wrong with it."""
    head = _head(data)
    return head is not None and head.kind in _KINDS


def _head(data: bytes) -> _Head | None:
    if len(data) > MAX_FROM_HOST_BYTES:
        return None
    try:
        return _heads.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _checked(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise ProtocolError(f"message of {len(data)} bytes; the limit is {limit}")
    return data
