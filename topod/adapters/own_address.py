"""By which address of this host others are reached, and reach it."""

import socket
from collections.abc import Iterable


def address_towards(endpoints: Iterable[str]) -> str:
    """Return the address from which this host speaks to the first of `tcp://HOST:PORT` that has a route.

    Nothing is sent. It may look names up, which blocks. Empty where no route is known.
    """
    for endpoint in endpoints:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        try:
            found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
            family, kind, protocol, _, place = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(place)
                address: str = probe.getsockname()[0]
                return address
        except (OSError, UnicodeError, ValueError):
            continue
    return ""
