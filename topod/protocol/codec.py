"""Bytes to messages and back; the only place that knows JSON.

On the wire a message is one frame of JSON: `{"v": 1, "id": "...", "body": {"kind": ...}}`. Whatever bytes
come in, the answer is a message or a `ProtocolError`.
"""

from typing import Any, TypeVar

import msgspec

from topod.errors import TopodError
from topod.model.cpuset import CpuSet
from topod.protocol.replies import AnyReply
from topod.protocol.requests import AnyRequest
from topod.protocol.views import EventView

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 4 << 20
MAX_REPLY_BYTES = 16 * MAX_MESSAGE_BYTES
"""A reply may list thousands of jobs."""
T = TypeVar("T")


class ProtocolError(TopodError):
    """The peer sent something that is not a message of this protocol. Exit status 76 (EX_PROTOCOL)."""

    code = "protocol"
    exit_status = 76


class RequestEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """A request with its protocol version and the id that its reply repeats."""

    v: int
    id: str
    body: AnyRequest


class ReplyEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """A reply to the request with the same id."""

    v: int
    id: str
    body: AnyReply


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    v: int = 0
    id: str = ""


def to_plain(value: object) -> object:
    """Encode what msgspec does not know by itself: CPU sets as CPU lists."""
    if isinstance(value, CpuSet):
        return str(value)
    raise NotImplementedError(f"no wire form for {type(value).__name__}")


def from_plain(kind: type[Any], value: object) -> object:
    """Decode what `to_plain` encoded."""
    if kind is CpuSet and isinstance(value, str):
        return CpuSet.parse(value)
    raise NotImplementedError(f"no wire form for {kind.__name__}")


_encoder = msgspec.json.Encoder(enc_hook=to_plain)
_requests = msgspec.json.Decoder(RequestEnvelope, dec_hook=from_plain)
_replies = msgspec.json.Decoder(ReplyEnvelope, dec_hook=from_plain)
_events = msgspec.json.Decoder(EventView, dec_hook=from_plain)
_heads = msgspec.json.Decoder(_Head)


def encode(message: object) -> bytes:
    """Return a message, an envelope or any value of the model as JSON."""
    return _encoder.encode(message)


class IncompatibleVersionError(ProtocolError):
    """The peer speaks another version of the protocol."""

    code = "protocol-version"


def request_head(data: bytes) -> tuple[int, str]:
    """Return (version, id) of a request that may be damaged otherwise; (0, "") where unreadable."""
    try:
        head = _heads.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return 0, ""
    return head.v, head.id


def decode_request(data: bytes) -> RequestEnvelope:
    """Read a request. Raises `ProtocolError` on anything else."""
    version, _ = request_head(data)
    if version not in (0, PROTOCOL_VERSION):
        raise IncompatibleVersionError(f"this topod speaks protocol {PROTOCOL_VERSION}, not {version}")
    return decode_as(_requests, data)


def decode_reply(data: bytes) -> ReplyEnvelope:
    """Read a reply. Raises `ProtocolError` on anything else."""
    return decode_as(_replies, data, MAX_REPLY_BYTES)


def decode_event(data: bytes) -> EventView:
    """Read one event of the stream. Raises `ProtocolError` on anything else."""
    return decode_as(_events, data)


def decode_as(decoder: msgspec.json.Decoder[T], data: bytes, limit: int = MAX_MESSAGE_BYTES) -> T:
    """Read what a decoder reads. Raises `ProtocolError` on anything else, and beyond `limit` bytes."""
    if len(data) > limit:
        raise ProtocolError(f"message of {len(data)} bytes; the limit is {limit}")
    try:
        return decoder.decode(data)
    # RecursionError: deep nesting, even inside a field nobody reads, is not a msgspec error.
    except (
        msgspec.MsgspecError,
        RecursionError,
        UnicodeDecodeError,
        ValueError,
        NotImplementedError,
    ) as error:
        raise ProtocolError(f"not a message of protocol {PROTOCOL_VERSION}: {error}") from None
