"""`[coordinator]` of the configuration: where a fleet's coordinator listens, and by which keys."""

import re
from collections.abc import Iterator
from typing import Literal

from topod.protocol.remote import check_endpoint
from topod.shell.config_kinds import Seconds, Section
from topod.shell.metrics.port import check_place

LEAST_LEASE: float = 10.0
LEAST_TERM, MOST_TERM = 2, 60
_ENDPOINT = re.compile(r"https?://(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}")


class CoordinatorSection(Section, frozen=True, kw_only=True):
    """`[coordinator]`. Read by topod-coordinator alone."""

    listen: str = "tcp://0.0.0.0:7461"
    advertise: str = ""
    """By what address others name it, where several lead in turn; empty: `listen`, or the machine's name."""
    state_dir: str = ""
    """Empty: `/var/lib/topod-coordinator`, for others than root in their own state folder."""
    socket: str = ""
    """Empty: `/run/topod-coordinator/coordinator.sock`, for others than root in their own run folder."""
    key_file: str = "/etc/topod/coordinator.key"
    authorized_keys: str = "/etc/topod/authorized_keys"
    lease_seconds: Seconds = Seconds(60)
    """For so long a host that is cut off goes on with jobs that may be placed elsewhere."""
    placing: Literal["pack", "spread"] = "pack"
    """Of hosts that are equally good: the fullest first, or the emptiest."""
    metrics: str = ""
    """`[ADDR:]PORT` for Prometheus; empty: nowhere."""


class StoreSection(Section, frozen=True, kw_only=True):
    """`[store]`: where the coordinator keeps its state; in etcd several coordinators share it."""

    kind: Literal["sqlite", "etcd"] = "sqlite"
    endpoints: tuple[str, ...] = ()
    """`http://HOST:PORT` or `https://HOST:PORT`, of each member of etcd."""
    prefix: str = "/topod/"
    """Before all its keys: of each fleet another one."""
    lease_seconds: Seconds = Seconds(5)
    """After so long without a sign of the leader another coordinator takes over."""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def check_store(section: StoreSection) -> Iterator[str]:
    """Say what cannot be meant in a section."""
    if section.kind == "sqlite":
        if section != StoreSection():
            yield 'store.kind: "sqlite" is a file in state_dir and takes no other key of [store]'
        return
    if not section.endpoints:
        yield 'store.endpoints: is missing: ["http://HOST:PORT", ...], each member of etcd'
    for endpoint in section.endpoints:
        if not _ENDPOINT.fullmatch(endpoint):
            yield f"store.endpoints: a member is at http(s)://HOST:PORT, not {endpoint!r}"
    if len({endpoint.partition(":")[0] for endpoint in section.endpoints}) > 1:
        yield "store.endpoints: all with http, or all with https"
    if not re.fullmatch(r"/([\w.-]+/)+", section.prefix, re.ASCII):
        yield f'store.prefix: written "/topod/", not {section.prefix!r}'
    least, most = LEAST_TERM, MOST_TERM
    if not least <= section.lease_seconds <= most or not float(section.lease_seconds).is_integer():
        yield f"store.lease_seconds: must be whole seconds from {least} to {most}"
    yield from _check_tls(section)


def _check_tls(section: StoreSection) -> Iterator[str]:
    names = ("ca_file", "cert_file", "key_file")
    for name in names:
        path = getattr(section, name)
        if path and not path.startswith("/"):
            yield f"store.{name}: must start with /: {path!r}"
    insecure = not all(endpoint.startswith("https:") for endpoint in section.endpoints[:1])
    if any(getattr(section, name) for name in names) and insecure:
        yield "store.endpoints: https://HOST:PORT, where files for TLS are named"
    if bool(section.cert_file) != bool(section.key_file):
        yield "store.cert_file: goes with key_file"


def check_coordinator(section: CoordinatorSection) -> Iterator[str]:
    """Say what cannot be meant in a section."""
    for name, place in (("listen", section.listen), ("advertise", section.advertise)):
        if place or name == "listen":
            try:
                check_endpoint(place)
            except ValueError as error:
                yield f"coordinator.{name}: {error}"
    if section.lease_seconds < LEAST_LEASE:
        yield f"coordinator.lease_seconds: must be at least {LEAST_LEASE:g} s"
    yield from check_place("coordinator.metrics", section.metrics)
    for name in ("state_dir", "socket", "key_file", "authorized_keys"):
        path = getattr(section, name)
        if path and not path.startswith("/"):
            yield f"coordinator.{name}: must start with /: {path!r}"
