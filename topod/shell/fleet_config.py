"""`[fleet]` of the configuration: which coordinator a host belongs to, and the keys that prove both."""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from topod.adapters.credentials import handed
from topod.adapters.curve_keys import read_private
from topod.protocol.curve import Kind, check_name
from topod.protocol.remote import Remote, coordinators

Texts = str | tuple[str, ...]
ADDRESS = re.compile(r"[A-Za-z0-9_.:%-]{0,253}")


class FleetSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[fleet]`. Without `coordinator` the host is alone."""

    coordinator: Texts = ()
    """`tcp://HOST:PORT`; several are tried in turn."""
    coordinator_key: Texts = ()
    """The public line of its key, one for all or one for each."""
    key_file: str = "/etc/topod/host.key"
    """The host's own private key."""
    name: str = ""
    """Of the host in the fleet; empty: what the machine is called."""
    address: str = ""
    """By which jobs on other hosts reach this one; empty: that from which it speaks to the coordinator."""
    labels: dict[str, str] = {}
    """What jobs may ask for, such as `zone = "a"`."""


def check_fleet(section: FleetSection) -> Iterator[str]:
    """Say what cannot be meant in a section. The key is read when topod starts."""
    places, keys = _joined(section.coordinator), _joined(section.coordinator_key)
    if not places:
        if section != FleetSection(labels=section.labels, name=section.name, address=section.address):
            yield 'fleet.coordinator: is missing: "tcp://HOST:PORT"'
        return
    if not keys:
        yield "fleet.coordinator_key: is missing: the public line of the coordinator's key"
    else:
        try:
            coordinators(places, keys)
        except ValueError as error:
            yield f"fleet.coordinator: {error}"
    if section.name:
        try:
            check_name(section.name)
        except ValueError as error:
            yield f"fleet.name: {error}"
    if not ADDRESS.fullmatch(section.address):
        yield f"fleet.address: must be an IP address or a host's name: {section.address!r}"
    if not section.key_file.startswith("/"):
        yield f"fleet.key_file: must start with /: {section.key_file!r}"


def remote_of(section: FleetSection) -> Remote | None:
    """Return the coordinators and the host's own key; None for a host alone.

    Raises what `read_private` raises: `NotFoundError`, `NotAllowedError`, `DataError`.
    """
    places = _joined(section.coordinator)
    if not places:
        return None
    return Remote(
        coordinators=coordinators(places, _joined(section.coordinator_key)),
        keys=read_private(handed(Path(section.key_file)), Kind.HOST),
    )


def _joined(texts: Texts) -> str:
    return texts if isinstance(texts, str) else ",".join(texts)
