"""Orders that are too long for one message: what fits now, the rest when the host has confirmed that."""

from typing import Final

import msgspec

from topod.protocol.codec import encode
from topod.protocol.link import Orders
from topod.protocol.link_codec import MAX_TO_HOST_BYTES

SPARE_BYTES: Final = 64 << 10
"""For what stands between the parts of a message."""


def first_part(orders: Orders, limit: int = MAX_TO_HOST_BYTES) -> Orders:
    """Return the part of `orders` that fits into `limit` bytes: the oldest assignments first.

    While assignments are left out nothing is settled: a host takes what comes with a fence below a settled
    one for an old order.
    """
    left = limit - SPARE_BYTES - len(encode(msgspec.structs.replace(orders, assign=[], settled=[])))
    assign = []
    for order in sorted(orders.assign, key=lambda order: order.tag.fence):
        left -= len(encode(order)) + 1
        if left < 0:
            break
        assign.append(order)
    settled = orders.settled if len(assign) == len(orders.assign) else []
    return msgspec.structs.replace(orders, assign=assign, settled=settled)
