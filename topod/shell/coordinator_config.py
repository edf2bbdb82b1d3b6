"""`[coordinator]` of the configuration: where a fleet's coordinator listens, and by which keys."""

from typing import Literal

from topod.protocol.remote import check_endpoint
from topod.shell.config_kinds import Seconds, Section

LEAST_LEASE: float = 10.0


class CoordinatorSection(Section, frozen=True, kw_only=True):
    """`[coordinator]`. Read by topod-coordinator alone."""

    listen: str = "tcp://0.0.0.0:7461"
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


def check_coordinator(section: CoordinatorSection) -> None:
    """Raise `ValueError` for a section that cannot be meant."""
    try:
        check_endpoint(section.listen)
    except ValueError as error:
        raise ValueError(f"coordinator.listen: {error}") from None
    if section.lease_seconds < LEAST_LEASE:
        raise ValueError(f"coordinator.lease_seconds: must be at least {LEAST_LEASE:g} s")
    for name in ("state_dir", "socket", "key_file", "authorized_keys"):
        path = getattr(section, name)
        if path and not path.startswith("/"):
            raise ValueError(f"coordinator.{name}: must start with /: {path!r}")
