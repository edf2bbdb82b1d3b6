"""Whether this machine and the coordinator agree on the time.

Leases and time limits go by steady clocks and do not care; moments that people read, certificates and the
order of events of different hosts do.
"""

import time
from collections.abc import Iterator
from typing import Final

from topoctl.doctor.check import Check
from topod.protocol.replies import Welcome
from topod.shell.clocks import TOLERATED_SECONDS, clocks_differ

MEND: Final = "sudo timedatectl set-ntp true, on the one that is wrong"


def coordinators_clock(welcome: Welcome) -> Iterator[Check]:
    """Yield what the host's topod found out about the clock of the coordinator that it belongs to."""
    if welcome.coordinator_ahead is not None:
        yield _check(welcome.coordinator_ahead, welcome.coordinator_ahead_within)


def own_clock(welcome: Welcome, asked_at: float, answered_at: float) -> Iterator[Check]:
    """Yield how our clock stands to that of a coordinator that answered; moments by ours."""
    if welcome.now:
        yield _check(welcome.now - (asked_at + answered_at) / 2, (answered_at - asked_at) / 2)


def now() -> float:
    """Return what the clock on the wall shows, in epoch seconds."""
    return time.time()


def _check(ahead: float, within: float) -> Check:
    if abs(ahead) - within > TOLERATED_SECONDS:
        text = clocks_differ(ahead)
        return Check(name="clock", verdict="warn", text=text, mend=MEND)
    text = f"as the coordinator's, within {abs(ahead) + within:.2f} s"
    return Check(name="clock", verdict="ok", text=text)
