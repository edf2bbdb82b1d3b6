"""Which requests of a browser are the user's own. Pure.

Any page that the user has open may send requests to this machine; what it cannot do is lie about who it is:
the browser fills in `Host` and `Origin`. A name that an attacker makes point here (DNS rebinding) shows in
`Host`, another site's script in `Origin`. Who may look at all is told by a key, as other users of the machine
reach its loopback as well.
"""

from collections.abc import Collection
from hmac import compare_digest
from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address that is listened at."""
    if address == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def foreign(host: str, origin: str | None, names: Collection[str], *, talks: bool) -> str:
    """Return why a request is none of the page's own, in words; empty: it is.

    `names` are those by which the server may be called; an address needs none, since nobody can make one
    point elsewhere. `talks`: it opens the connection that drives the screen, for which browsers always tell
    the origin.
    """
    name = _host_name(host)
    if name not in names and not _is_address(name):
        return f"this server is not called {name[:80]!r}"
    if origin is None:
        return "the browser does not say whose page asks" if talks else ""
    # Behind a proxy that speaks TLS it is https; the name and the port are the same.
    if origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        return f"a page of {origin[:80]!r} asks, not this server's own"
    return ""


def same_key(given: str | None, key: str) -> bool:
    """Whether the right key was given; takes as long whatever was given."""
    return compare_digest((given or "").encode(errors="replace"), key.encode())


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return host


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
