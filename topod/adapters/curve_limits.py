"""How much of anything a coordinator's port takes, and when a peer counts as gone."""

import logging
import resource
from dataclasses import dataclass, replace
from typing import Any, Final

import zmq

from topod.protocol.codec import MAX_REPLY_BYTES
from topod.protocol.link_codec import MAX_FROM_HOST_BYTES

HEARTBEAT_MS: Final = 2000
GONE_MS: Final = 6000
"""A peer that is silent for so long is gone; it is noticed up to `HEARTBEAT_MS` later."""
RESERVED_FILES: Final = 256
"""For everything else that the process opens."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one port."""

    handshake_ms: int = 5000
    """From the connection to the end of its handshake; needs three ways to the peer and back."""
    silent_seconds: float = 15.0
    """From the connection to its first message."""
    half_open: int = 2048
    """Connections that were not let in yet; of more, one goes. All hosts of a fleet come back at once."""
    half_open_of_address: int = 256
    """Likewise, of one address: each can bind `message_bytes`."""
    connections: int = 4096
    connections_of_key: int = 64
    requests_of_connection: int = 16
    requests: int = 2048
    message_bytes: int = MAX_FROM_HOST_BYTES + 4096
    """A longer one cuts its connection."""
    messages_a_second: int = 4096
    """Of one connection; who says more is cut. A host says five at most."""
    bytes_a_second: int = 64 << 20
    """Of one connection, likewise: reports, and output that users read."""
    unsent_messages: int = 64
    """To one connection that does not read; more are dropped."""
    unsent_bytes: int = 2 * MAX_REPLY_BYTES


def room_for(limits: Limits) -> Limits:
    """Return the limits that fit the open files that this process may have, after raising that as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = limits.connections + limits.half_open + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= need:
        return limits
    half_open = max(8, min(limits.half_open, soft // 8))
    connections = max(8, soft - half_open - RESERVED_FILES)
    text = f"{soft} open files are allowed: {connections} connections instead of {limits.connections}"
    log.warning("port.narrow", extra={"detail": f"{text}; LimitNOFILE= of the unit allows more"})
    return replace(limits, connections=connections, half_open=half_open)


def watch_over(wire: "zmq.Socket[Any]") -> None:
    """Let a connection end whose peer is silent, whatever TCP believes."""
    wire.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    wire.set(zmq.HEARTBEAT_TIMEOUT, GONE_MS)
    # The other side is told, so that it gives up as soon.
    wire.set(zmq.HEARTBEAT_TTL, GONE_MS)
    wire.set(zmq.TCP_KEEPALIVE, 1)
    wire.set(zmq.TCP_KEEPALIVE_IDLE, 30)
    wire.set(zmq.TCP_KEEPALIVE_INTVL, 10)
    wire.set(zmq.TCP_KEEPALIVE_CNT, 3)
