"""What a service manager is told of a daemon: datagrams to `NOTIFY_SOCKET`, see sd_notify(3)."""

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
WATCHDOG: Final = "WATCHDOG=1"
_ADDRESS, _LIMIT, _PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"

log = logging.getLogger(__name__)


class ServiceManager:
    """Who started the daemon, as far as it listens; where nobody does, what is told goes nowhere."""

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        """`address`: a path, or `@NAME` for an abstract socket; `watchdog_seconds` None: nobody watches."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = watchdog_seconds if address else None

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._address)

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> "ServiceManager":
        """Return who the environment names, and take that out: nothing that is started may speak for us."""
        address, limit, pid = (environ.pop(name, "") for name in (_ADDRESS, _LIMIT, _PID))
        if address and address[0] not in "/@":
            log.warning("service-manager.unknown", extra={"detail": f"{_ADDRESS}={address}"})
            return cls()
        watched = limit.isdecimal() and int(limit) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(limit) / 1e6 if watched else None)

    def tell(self, *lines: str) -> bool:
        """Send lines such as `READY=1` in one datagram, at once; False: it was not taken, say it again."""
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
                wire.setblocking(False)
                wire.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.debug("service-manager.unheard", extra={"error": str(error)})
            return False
        return True


def status(text: str) -> str:
    """Return the line that says in words how it stands."""
    return f"STATUS={' '.join(text.split())}"


def reloading() -> str:
    """Return the lines that say that a reload begins now."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
