"""Runs topod or its coordinator with spans of seconds where it has half minutes, for tests that wait them out.

`python -m tests.short_terms MODULE ARGUMENTS...`. What hosts and coordinator owe each other stays in proportion;
only how long a fault takes to come to an end is shorter. Jobs of such tests have a grace of a second.
"""

import importlib
import sys
from functools import partial
from typing import Final

from topod.adapters import curve_limits
from topod.coordinator import wiring
from topod.daemon import fleet_part
from topod.daemon.fleet_link import FleetLink
from topod.fleet import members, terms
from topod.fleet.terms import DRIFT
from topod.shell import coordinator_config

LEASE_SECONDS: Final = 6.0
KILL_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 3.0
READY_SECONDS: Final = 10.0
GRACE_SECONDS: Final = 1.0
AWAY_SECONDS: Final = (
    DRIFT * (LEASE_SECONDS + GRACE_SECONDS + KILL_SECONDS) - LEASE_SECONDS - GRACE_SECONDS - 1.0
)
"""A topod may be dead for so long, and its machine go on, whenever its lease ends; a second is for looking."""


def shorten() -> None:
    """Shorten the terms of this process."""
    for module, values in (
        (coordinator_config, {"LEAST_LEASE": LEASE_SECONDS}),
        (terms, {"KILL_SECONDS": KILL_SECONDS}),
        (members, {"BACK_OFF_SECONDS": 0.5}),
        (curve_limits, {"HEARTBEAT_MS": 500, "GONE_MS": int(SILENT_SECONDS * 1000)}),
        (
            wiring,
            {"Terms": partial(terms.Terms, silent_after_seconds=SILENT_SECONDS, ready_seconds=READY_SECONDS)},
        ),
        (fleet_part, {"FleetLink": partial(FleetLink, heartbeat_seconds=0.5)}),
    ):
        assert all(hasattr(module, name) for name in values), module
        vars(module).update(values)


if __name__ == "__main__":
    shorten()
    module, *arguments = sys.argv[1:]
    importlib.import_module(f"{module}.__main__").main(arguments)
