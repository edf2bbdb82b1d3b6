"""What hosts and coordinators say, as bytes: it comes out as it went in, or as one line of error."""

import pytest

from tests.fuzz import samples
from topod.protocol.codec import IncompatibleVersionError, ProtocolError
from topod.protocol.link import LINK_VERSION, HostReport, Orders, Who
from topod.protocol.link_codec import (
    MAX_FROM_HOST_BYTES,
    comes_from_host,
    decode_from_host,
    decode_to_host,
    encode_from_host,
    encode_to_host,
)


def test_what_is_said_is_heard() -> None:
    for message in samples.FROM_HOST:
        data = encode_from_host(message)
        assert decode_from_host(data) == message
        assert comes_from_host(data)
        with pytest.raises(ProtocolError):
            decode_to_host(data)
    for order in samples.TO_HOST:
        assert decode_to_host(encode_to_host(order)) == order
        with pytest.raises(ProtocolError):
            decode_from_host(encode_to_host(order))
    assert {type(message) for message in samples.TO_HOST} >= {Who, Orders}


def test_another_version_is_refused_by_its_number() -> None:
    words = f"speaks version {LINK_VERSION} with hosts, not 99"
    with pytest.raises(IncompatibleVersionError, match=words):
        decode_from_host(b'{"kind":"hello","v":99,"news":[]}')


def test_a_message_that_is_too_long_is_neither_sent_nor_read() -> None:
    long = HostReport(session="x" * MAX_FROM_HOST_BYTES, seq=1, sent=0.0)
    with pytest.raises(ProtocolError, match="the limit is"):
        encode_from_host(long)
    with pytest.raises(ProtocolError, match="the limit is"):
        decode_from_host(b" " * (MAX_FROM_HOST_BYTES + 1))
    assert not comes_from_host(b"[" * 100_000)
